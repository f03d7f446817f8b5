"""A data set as it was used, so that metrics and exports need nothing else: queries, images, and which answers which.

Shapes: N images, Q queries, P pairs of a query and an image that answers it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import StoreError
from query.evaluation.data.data_set import DataSet
from query.evaluation.raw.head import RawHead, read_raw, write_raw

QUERIES, IMAGES, PAIRS = "queries.parquet", "images.parquet", "pairs.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTables:
    """What is kept of a data set; see `data.data_set`."""

    name: str
    sha256: str
    kind: str
    """captions or classes."""
    titles: list[str]
    """What each query is called [Q]."""
    keys: list[str]
    """Of the images of the gallery [N]; the data set's own first."""
    uris: list[str]
    """Where they are [N]."""
    pairs_P2: np.ndarray
    """int64 [P, 2]: (query, image), ascending."""
    grades_P: np.ndarray
    """float32 [P]: how well the image answers."""
    clusters_Q: np.ndarray
    """int64 [Q]: what each query belongs to when queries are resampled."""
    num_own: int
    """Images that are not distractors."""


def write_data(folder: Path, data: DataSet) -> None:
    """Write what is kept of a data set into its folder.

    Raises:
        StoreError: If it cannot be written.
    """
    settings = {"kind": data.kind, "num_own": data.num_own}
    head = RawHead(kind="data", data=data.name, data_sha256=data.sha256, settings=settings)
    prompts = pa.array([list(texts) for texts in data.prompts], pa.list_(pa.string()))
    queries = {"title": pa.array(data.titles, pa.string()), "prompts": prompts, "cluster": data.clusters_Q}
    images = {
        "key": pa.array([entry.key for entry in data.entries], pa.string()),
        "uri": pa.array([entry.uri for entry in data.entries], pa.string()),
    }
    grades = pa.array(data.grades_P, pa.float32())
    pairs = {"query": data.pairs_P2[:, 0], "image": data.pairs_P2[:, 1], "grade": grades}
    for name, columns in ((QUERIES, queries), (IMAGES, images), (PAIRS, pairs)):
        write_raw(folder / name, pa.table(columns), head)


def read_data(folder: Path, sha256: str | None = None) -> DataTables:
    """Read what is kept of a data set.

    Args:
        folder: Its folder.
        sha256: The split that it must be; None takes any.

    Raises:
        StoreError: If a file is missing, damaged, or of another split.
    """
    queries, head = read_raw(folder / QUERIES)
    if sha256 is not None and head.data_sha256 != sha256:
        raise StoreError(
            f"{folder / QUERIES} is of another split of {head.data}: {head.data_sha256}, expected {sha256}; run the "
            "command that wrote it again, into another folder"
        )
    images, pairs = (read_raw(folder / name, head)[0] for name in (IMAGES, PAIRS))
    return DataTables(
        name=head.data,
        sha256=head.data_sha256,
        kind=head.settings["kind"],
        titles=queries["title"].to_pylist(),
        keys=images["key"].to_pylist(),
        uris=images["uri"].to_pylist(),
        pairs_P2=np.stack([pairs["query"].to_numpy(), pairs["image"].to_numpy()], axis=1),
        grades_P=pairs["grade"].to_numpy(),
        clusters_Q=queries["cluster"].to_numpy(),
        num_own=head.settings["num_own"],
    )
