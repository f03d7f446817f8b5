"""The index file on disk, always in its CPU form; and which FAISS writes it."""

import errno
from pathlib import Path

import faiss


def save_index(index: faiss.Index, path: Path) -> None:
    """Write an index as is; the caller makes it atomic."""
    # through a file of Python's: FAISS's own only prints that the last bytes did not fit on the disk
    with path.open("wb") as file:
        try:
            faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
        except RuntimeError as error:
            raise OSError(errno.EIO, "the disk did not take all of it") from error


def faiss_version() -> str:
    """Version of the FAISS in use."""
    return faiss.__version__


def faiss_build() -> dict[str, str | int]:
    """Version, compile options and visible GPUs, for `clipsieve doctor`."""
    return {
        "version": faiss.__version__,
        "compile_options": faiss.get_compile_options().strip(),
        "gpus": faiss.get_num_gpus(),
    }
