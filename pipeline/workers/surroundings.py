"""What Ray's processes on this machine are given: a folder for their files and a search path. Plain, no Ray."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pipeline
from pipeline.errors import InputError

_PREFIX = "ray-"  # short, because of the limit on the paths of sockets
_SYSTEM_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
_MAX_SOCKET_PATH = 107  # bytes, on Linux
_BELOW = f"/{_PREFIX}12345678/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
MAX_PLACE_BYTES = _MAX_SOCKET_PATH - len(_BELOW)
"""A folder whose path has more bytes than this cannot hold Ray's sockets."""

_PROBE_BYTES = 4 * 2**20
"""What a folder must have room for: Ray's logs of a short run."""


@dataclass(slots=True)
class RayFolders:
    """Where the files of a Ray on this machine go."""

    own: Path
    """Sockets and logs."""

    large: Path
    """What Ray moves out of memory; usually the same folder."""

    is_kept: bool = False
    """Whether `own` stays at the end, because somebody may want to read its logs."""

    @property
    def logs(self) -> Path:
        """Where Ray's processes write their logs."""
        return self.own / "session_latest" / "logs"

    @property
    def has_logs(self) -> bool:
        """Whether a process has begun a log."""
        return self.logs.is_dir() and any(self.logs.glob("*.*"))


@contextmanager
def ray_folders() -> Iterator[RayFolders]:
    """Make owner-only folders for a Ray on this machine, and remove them at the end of the block.

    There is one folder, unless the path of the folder for temporary files is too long for sockets.

    Raises:
        InputError: If no folder can be used.
    """
    places = _places()
    large = _make_in(places)
    own = None
    try:
        own = large if _is_short(large.parent) else _make_in([place for place in places if _is_short(place)])
        folders = RayFolders(own, large)
        yield folders
    finally:
        for folder in {own, large} - {None, own if own and folders.is_kept else None}:
            _remove(folder)


def _places() -> list[str]:
    """Folders for temporary files, best first. Not the current folder, which Python's `tempfile` would try last."""
    chosen = [os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR")]
    return list(dict.fromkeys(str(Path(place).absolute()) for place in (*chosen, *_SYSTEM_PLACES) if place))


def _is_short(place: str | Path) -> bool:
    return len(os.fsencode(place)) <= MAX_PLACE_BYTES


def _make_in(places: Sequence[str]) -> Path:
    """Make a folder in the first place that has room."""
    failures = []
    for place in places:
        try:
            return _make(place)
        except OSError as error:
            failures.append(f"{place}: {error.strerror}")
    raise InputError(
        f"Ray needs a folder for its files, but none can be used ({'; '.join(failures)}); set TMPDIR to a folder that "
        f"you can write, with free space and a path of at most {MAX_PLACE_BYTES} bytes"
    )


def _make(place: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    try:
        probe = folder / "probe"
        probe.write_bytes(bytes(_PROBE_BYTES))
        probe.unlink()
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _remove(folder: Path) -> None:
    for _ in range(20):  # processes that are just ending may still write to their logs
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def search_path() -> list[str]:
    """Where workers on this machine look for packages before Python's own folders: where the driver found its own.

    The current folder is not among them, unless this package is in it or PYTHONPATH names it by its full path.
    """
    home = Path(pipeline.__file__).absolute().parent.parent
    # Python adds this folder itself, after its own library, which packages must not come before
    own = [] if home.name in ("site-packages", "dist-packages") else [home]
    named = "" if sys.flags.ignore_environment else os.environ.get("PYTHONPATH", "")
    # a relative entry counts from the current folder; an empty one is the current folder
    found = [Path(entry).absolute() for entry in named.split(os.pathsep) if Path(entry) != Path()]
    return list(dict.fromkeys(map(str, [*own, *found])))


def python_environment() -> dict[str, str | None]:
    """Environment variables with which another Python on this machine imports what this one does.

    Without the second, `python -c` and `python -m` look in the current folder, and `multiprocessing` runs the former.
    """
    return {"PYTHONPATH": os.pathsep.join(search_path()) or None, "PYTHONSAFEPATH": "1"}


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Set environment variables for the block, or unset those whose value is None."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
