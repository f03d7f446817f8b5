"""Embeddings as other programs write them, and imports of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.imported.import_store import import_store
from pipeline.settings.imports import ImportSettings
from pipeline.store.view import StoreView

DIM = 8
NOWHERE = "local-dir:/no/such/model"
"""A model that cannot be loaded."""


def unit_vectors(num_rows, dtype=np.float32, seed=0, dim=DIM):
    values = np.random.default_rng(seed).normal(size=(num_rows, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(dtype)


def as_lists(vectors, kind=None):
    """A column of lists; None stands for a null."""
    rows = [None if row is None else list(row) for row in vectors]
    return pa.array(rows, kind or pa.list_(pa.float32()))


def write_parquet(path, vectors, kind=None, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({**columns, "embedding": as_lists(vectors, kind)}), path)
    return path


def write_clip_retrieval(folder, sizes, dtype=np.float16, digits=1, **columns):
    """A folder as `clip-retrieval inference` writes it: one matrix and one table per partition.

    `columns` maps further names to functions of the number of a partition and of a row.
    """
    for name in ("img_emb", "metadata", "text_emb"):
        (folder / name).mkdir(parents=True)
    for number, size in sizes.items():
        name = f"{number:0{digits}d}"
        np.save(folder / "img_emb" / f"img_emb_{name}.npy", unit_vectors(size, dtype, seed=number))
        values = {"image_path": lambda n, i: f"{n:05d}{i:04d}", "caption": lambda n, i: f"photo {i} of {n}", **columns}
        table = {column: [value(number, row) for row in range(size)] for column, value in values.items()}
        pq.write_table(pa.table(table), folder / "metadata" / f"metadata_{name}.parquet")
    return folder


def run_import(source, out, on_warning=lambda text: None, **settings):
    settings = {"model": NOWHERE, **settings}
    return import_store(ImportSettings(source=source, out=out, **settings), on_warning=on_warning)


def rows_of(root):
    return [row for _, table in StoreView.open(root).parts() for row in table.to_pylist()]


def stored_vectors(root):
    """The embeddings of a store whose rows are all good [N, E], in the order of their ids."""
    return np.array([row["embedding"] for row in rows_of(root)])
