"""How many bytes an index of FAISS 1.15.1 has on disk and in memory, and how much memory its build takes.

Shapes: N rows, E embedding width, L lists.
"""

from dataclasses import dataclass

POSITION_BYTES = 8
"""Of a row's position in its list."""

ID_BYTES = 8
"""Of a row's id in the id file, which every index has."""

CHUNK_ROWS = 16_384
"""Rows that are read and added to lists at once."""

GRAPH_CHUNK_ROWS = 50_000
"""Rows that are added to a graph at once."""

LINKS = 32
"""Neighbours of a row in the upper layers of a graph (M of HNSW); twice as many in the lowest."""

_BLOCK_ROWS = 32

# Fitted to indexes of 8,000 to 10 million rows, 192 and 512 wide: anonymous memory beyond that of a process that has
# imported numpy, faiss and pyarrow.
_SEARCH_OVERHEAD = 1 << 18
_BUILD_OVERHEAD = 10 << 20
_CHUNK_COPIES, _NEXT_CHUNK_COPIES = 1.5, 1.9
"""Memory of a chunk, in float32 chunks: as read, converted, and as FAISS works on it. The next is read beside it."""
_GRAPH_CHUNK_COPIES = 1.45
_SAMPLE_READ = 1.5
"""Memory of the training sample, in float32 samples, as it is read and converted."""
_LIST_GROWTH, _FLAT_GROWTH = 1.3, 1.9
"""Codes are stored chunk by chunk, in memory that is doubled when it is full."""
_LOADED_GROWTH = 1.05
"""Fast-scan lists reserve more memory than they need."""
_LEVEL_BYTES = 12
"""Of a row of a graph: its level, and where its links begin. They are read; links and codes are mapped."""
_SCORED_ROWS, _SCORED_LISTS = 4_096, 1_024
"""FAISS scores so many rows against so many centroids at once."""


@dataclass(frozen=True, slots=True)
class Code:
    """How the vectors of an index are stored."""

    suffix: str
    """The last part of the factory string, with {half} for half the width."""
    bits: float
    """Per dimension."""
    extra: int = 0
    """Bytes per row besides."""
    is_fast_scan: bool = False
    is_rotated: bool = False
    trained_floats: int = 0
    """Per dimension, of what was trained: ranges or codewords."""

    def takes(self, dim: int) -> bool:
        """Whether vectors of a width can be stored so."""
        return dim % 8 == 0 if self.is_rotated else dim % 2 == 0 or "half" not in self.suffix

    def row_bytes(self, dim: int) -> int:
        """Bytes of one row's code."""
        return int(dim * self.bits + 7) // 8 + self.extra


CODES = {
    "fp32": Code("Flat", 32),
    "fp16": Code("SQfp16", 16),
    "SQ8": Code("SQ8", 8, trained_floats=2),
    "PQ4": Code("PQ{half}x4fs", 2, is_fast_scan=True, trained_floats=16),
    "RaBitQ2": Code("RaBitQfs2", 2, extra=20, is_fast_scan=True, is_rotated=True),
    "RaBitQ4": Code("RaBitQfs4", 4, extra=20, is_fast_scan=True, is_rotated=True),
}
"""By the names that calibrations and pilots use."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides an index's size: its code, and its lists (0: none) or its graph."""

    code: str
    num_lists: int = 0
    is_graph: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether every vector is compared."""
        return not self.num_lists and not self.is_graph

    def factory(self, dim: int) -> str:
        """The string for `faiss.index_factory`."""
        code = CODES[self.code]
        parts = [f"RR{dim}"] if code.is_rotated else []
        parts += [f"IVF{self.num_lists}"] if self.num_lists else []
        parts += [f"HNSW{LINKS}"] if self.is_graph else []
        return ",".join([*parts, code.suffix.format(half=dim // 2)])


def index_bytes(shape: Shape, num_rows: int, dim: int) -> int:
    """Bytes of the index file: codes and positions, centroids, what was trained, links, and headers."""
    code = CODES[shape.code]
    row_bytes = code.row_bytes(dim)
    trained = 4 * dim * (code.trained_floats + (dim if code.is_rotated else 0))
    if shape.num_lists:
        sizes = 16 if code.is_fast_scan else 8  # bytes per list that say how long it is
        stored = padded_rows(shape, num_rows) * row_bytes + num_rows * POSITION_BYTES
        return 200 + stored + shape.num_lists * (4 * dim + sizes) + trained
    if shape.is_graph:
        upper = 4 * LINKS * num_rows / (LINKS - 1)  # a row is in one of LINKS rows' upper layers
        return int(400 + num_rows * (row_bytes + 4 * 2 * LINKS + 4 + 8) + upper) + trained
    return 80 + num_rows * row_bytes + trained


def padded_rows(shape: Shape, num_rows: int) -> int:
    """Rows for which an index has codes: fast-scan lists are filled up to whole blocks, by half a block on average."""
    if not CODES[shape.code].is_fast_scan:
        return num_rows
    return max(num_rows + int(15.5 * shape.num_lists), _BLOCK_ROWS * min(shape.num_lists, num_rows))


def search_memory(shape: Shape, num_rows: int, dim: int) -> int:
    """Bytes that searching takes: codes, positions, ids and centroids, mapped or not. Not the vector file's pages."""
    loaded = index_bytes(shape, num_rows, dim) * (_LOADED_GROWTH if CODES[shape.code].is_fast_scan else 1)
    return int(loaded) + num_rows * ID_BYTES + _SEARCH_OVERHEAD


def opening_memory(shape: Shape, num_rows: int, dim: int) -> int:
    """Bytes of anonymous memory after opening. Fast-scan lists are read; FAISS maps all others."""
    read = index_bytes(shape, num_rows, dim) if CODES[shape.code].is_fast_scan else 0
    return _SEARCH_OVERHEAD + int(_LOADED_GROWTH * read) + shape.is_graph * _LEVEL_BYTES * num_rows


def build_memory(shape: Shape, num_rows: int, dim: int, num_train: int) -> int:
    """Bytes of anonymous memory at the peak of the build, which is in training or when the last rows are added."""
    code = CODES[shape.code]
    row = 4 * dim
    whole: float = index_bytes(shape, num_rows, dim)
    if shape.is_graph:
        return _BUILD_OVERHEAD + int(whole + _GRAPH_CHUNK_COPIES * row * min(GRAPH_CHUNK_ROWS, num_rows))
    first, second = min(CHUNK_ROWS, num_rows), min(CHUNK_ROWS, max(0, num_rows - CHUNK_ROWS))
    chunks = row * max(_CHUNK_COPIES * first, first + _NEXT_CHUNK_COPIES * second) + code.is_rotated * row * first
    if shape.is_exact:
        return _BUILD_OVERHEAD + int(_FLAT_GROWTH * whole + row * first)
    # fast-scan lists are converted from plain lists, which have no padding
    plain = num_rows * (code.row_bytes(dim) + POSITION_BYTES)
    adding = _LIST_GROWTH * plain + (whole if code.is_fast_scan else 0) + 4 * num_rows + row * shape.num_lists
    scored = 4 * min(_SCORED_ROWS, num_rows) * min(_SCORED_LISTS, shape.num_lists)
    # all but PQ, which takes few rows, are trained on a copy of the sample, and a rotation makes another
    copies = (1 if shape.code == "PQ4" else 2) + code.is_rotated
    training = row * max(_SAMPLE_READ * num_train, copies * num_train + 3 * shape.num_lists + scored / row)
    return _BUILD_OVERHEAD + int(max(training, adding + chunks))
