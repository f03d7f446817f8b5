"""Lines of text files that people write: UTF-8, or UTF-16 with a byte-order mark, with any kind of line end."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import InputError
from pipeline.source.formats.text import encoding_of

_START = 1 << 20  # bytes that are examined for line ends


def read_lines(path: Path, what: str, expected: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, each with its number from 1, without line ends.

    Lines end with LF or CR LF. In a file without any LF, as old programs on a Mac write it, they end with CR.

    Args:
        path: The file.
        what: What it is, for messages.
        expected: What the file should hold, for messages.

    Raises:
        InputError: If the file cannot be read, or is not text.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_START)
        encoding = encoding_of(start)
        is_old = b"\r" in start and b"\n" not in start
        with path.open(encoding=encoding, newline="\r" if is_old else "\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}; pass {expected}") from error
    except UnicodeDecodeError as error:
        tried = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise InputError(
            f"{what} {path} is not {tried} ({error.reason}, byte {error.start}); save it as UTF-8"
        ) from error
