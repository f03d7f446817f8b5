"""How fast a machine is at the steps of building and searching, as numbers."""

from pydantic import BaseModel, ConfigDict


class ScanSpeed(BaseModel):
    """Of one kind of code in lists. A search of one query takes their sum."""

    model_config = ConfigDict(frozen=True)

    call_us: float
    """Each search."""
    list_us: float
    """Each list that is scanned."""
    row_ns: float
    """Each row that is scanned."""
    candidate_us: float
    """Each candidate that is kept."""


class SearchSpeed(BaseModel):
    """Of the searches of one query."""

    model_config = ConfigDict(frozen=True)

    coarse_call_us: float
    """To find the lists of one query, whatever their number."""
    coarse_gmacs: float
    """Billions of multiply-adds a second in finding the lists of one query."""
    scan: dict[str, ScanSpeed]
    """By the names of `sizes.CODES`; of those that vectors of this width can have."""
    graph_us: float
    """Each neighbour list that the search of a graph opens (efSearch of them)."""


class Calibration(BaseModel):
    """What a machine takes for vectors of one width, in CPU time of one thread."""

    model_config = ConfigDict(frozen=True)

    assign_gmacs: float
    """Billions of multiply-adds a second in assigning many rows to lists."""
    cached: SearchSpeed
    """Of an index that the CPU's cache holds."""
    uncached: SearchSpeed
    """Of an index that the CPU's cache does not hold."""
    encode_us: dict[str, float]
    """To store a row in a list, by the names of `sizes.CODES`."""
    flat_row_ns: dict[str, float]
    """Each row of an exact index, by the names of `sizes.CODES`."""
    pq_train_s: float
    """To train the codewords of a pair of dimensions."""
    graph_add_us: float
    """To add a row to a graph of `graph_rows`."""
    graph_rows: int
    rescore_call_us: float
    """To score candidates again from the vector file."""
    rescore_us: float
    """Each candidate of them."""
    read_mb_s: float
    """Of embeddings in Parquet."""
    write_mb_s: float
