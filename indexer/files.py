"""Read and write FAISS index files, always in their CPU form, and report the FAISS version and build."""

import errno
from pathlib import Path

import faiss

from pipeline.errors import StoreError


def save_index(index: faiss.Index, path: Path) -> None:
    """Write an index directly. The caller makes it atomic."""
    # through a Python file, because FAISS's own writer only prints a message if the last bytes do not fit on the disk
    with path.open("wb") as file:
        try:
            faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
        except RuntimeError as error:
            raise OSError(errno.EIO, "the index was not written completely") from error


def load_index(path: Path) -> faiss.Index:
    """Open an index. Its vectors or lists stay in the file, and are read when they are searched, where FAISS can.

    FAISS maps IVF lists of plain codes, flat indexes and the codes of HNSW. It reads fast-scan lists.

    Raises:
        StoreError: If the file is missing or damaged.
    """
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as error:  # a damaged size asks for more memory than there is
        raise StoreError(f"cannot read the index {path}; rebuild it with `clipsieve index --rebuild`") from error


def faiss_version() -> str:
    """The FAISS version in use."""
    return faiss.__version__


def simd_level() -> str:
    """The SIMD level that FAISS uses on this CPU, or the one that FAISS_SIMD_LEVEL asks for."""
    return faiss.SIMDConfig.get_level_name()


def faiss_build() -> dict[str, str | int]:
    """Version, compile options, SIMD level and visible GPUs, for `clipsieve doctor`."""
    simd = getattr(faiss, "SIMDConfig", None)  # FAISS before 1.14 has none
    return {
        "version": faiss.__version__,
        "compile_options": faiss.get_compile_options().strip(),
        "simd_level": simd.get_level_name() if simd else "unknown",
        "gpus": faiss.get_num_gpus(),
    }
