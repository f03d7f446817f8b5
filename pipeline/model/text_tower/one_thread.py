"""Keep numpy's matrix products on the calling thread.

The threads of OpenBLAS wait for each other by spinning. Where another process needs the cores, one text took 2 s on
two threads and 0.1 s on one. Batches run on threads of their own instead, see `encoder`.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_lock = threading.Lock()
_inside = {"users": 0, "threads": 0}


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """Let numpy's own OpenBLAS use one thread within the block. Changes nothing if numpy has another BLAS.

    The setting belongs to the process: the first block to be entered sets it, the last to be left restores it.
    """
    functions = _openblas()
    if functions is None:
        yield
        return
    get, set_to = functions
    with _lock:
        if not _inside["users"]:
            _inside["threads"] = get()
            set_to(1)
        _inside["users"] += 1
    try:
        yield
    finally:
        with _lock:
            _inside["users"] -= 1
            if not _inside["users"]:
                set_to(_inside["threads"])


@cache
def _openblas() -> tuple[ctypes._CFuncPtr, ctypes._CFuncPtr] | None:
    """The functions of the OpenBLAS in numpy's wheels that get and set its number of threads; None if it is not there.

    FAISS has its own copy of OpenBLAS, which keeps its threads.
    """
    try:
        from numpy._core import _multiarray_umath

        library = ctypes.CDLL(_multiarray_umath.__file__)
        return library.scipy_openblas_get_num_threads64_, library.scipy_openblas_set_num_threads64_
    except (ImportError, OSError, AttributeError):
        return None
