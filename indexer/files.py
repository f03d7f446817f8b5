"""Write the index file, always in its CPU form, and report the FAISS version and build."""

import errno
from pathlib import Path

import faiss


def save_index(index: faiss.Index, path: Path) -> None:
    """Write an index directly. The caller makes it atomic."""
    # through a Python file, because FAISS's own writer only prints a message if the last bytes do not fit on the disk
    with path.open("wb") as file:
        try:
            faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
        except RuntimeError as error:
            raise OSError(errno.EIO, "the index was not written completely") from error


def faiss_version() -> str:
    """The FAISS version in use."""
    return faiss.__version__


def faiss_build() -> dict[str, str | int]:
    """Version, compile options, SIMD level and visible GPUs, for `clipsieve doctor`."""
    simd = getattr(faiss, "SIMDConfig", None)  # FAISS before 1.14 has none
    return {
        "version": faiss.__version__,
        "compile_options": faiss.get_compile_options().strip(),
        "simd_level": simd.get_level_name() if simd else "unknown",
        "gpus": faiss.get_num_gpus(),
    }
