"""Outputs that a user names: checked before the work, so that results are not lost after it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError


def refuse_unwritable_file(path: Path, flag: str) -> None:
    """Check that a file can be written at `path`. Leaves nothing behind.

    Args:
        path: Where the file will be written.
        flag: The flag that names it, for the message.

    Raises:
        StoreError: If it cannot be written, or something other than a file is there.
    """
    folder, advice = path.absolute().parent, f"choose another {flag}"
    with _explained(f"{flag} {path}", advice):
        if path.exists() and not path.is_file():
            found = "a folder" if path.is_dir() else "not a regular file"
            raise StoreError(f"cannot write {flag} {path}: it is {found}; {advice}")
        if not folder.exists():
            raise StoreError(f"cannot write {flag} {path}: its folder does not exist; create it, or {advice}")
        _try_to_write(folder)


def refuse_unwritable_folder(path: Path, what: str, advice: str | None = None) -> None:
    """Check that files can be written in the folder `path`, which need not exist yet. Leaves nothing behind.

    Args:
        path: Where the folder is or will be.
        what: What it is, for the message: its flag, if it has one.
        advice: What to do if it cannot be written. By default, to choose another.

    Raises:
        StoreError: If it cannot be written, or is not a folder.
    """
    with _explained(f"{what} {path}", advice or f"choose another {what}"):
        places = [path.absolute(), *path.absolute().parents]
        _try_to_write(next(place for place in places if place.exists() or place.is_symlink()))


@contextmanager
def _explained(what: str, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {what}: {error.strerror}; {advice}") from error


def _try_to_write(folder: Path) -> None:
    # the only sure way to know: permissions say nothing about read-only disks, quotas and servers
    with tempfile.TemporaryFile(prefix=".", suffix=".tmp", dir=folder):
        pass
