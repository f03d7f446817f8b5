"""The metadata of rows: few and many, in any order, from mapped record batches."""

import numpy as np
import pyarrow as pa
import pytest

from indexer.rows import mapped
from pipeline.errors import StoreError
from tests.kit.mapped_rows import mapped_rows

TABLE = pa.table({"key": [f"k{row}" for row in range(500)], "width": pa.array(range(500), pa.int32())})


@pytest.mark.parametrize("num_rows", [0, 1, mapped.FEW_ROWS, mapped.FEW_ROWS + 1, 2000])
@pytest.mark.parametrize("columns", [None, ["width"], ["width", "key"]])
def test_rows_come_in_the_order_that_is_asked_for(tmp_path, num_rows, columns):
    positions = np.random.default_rng(num_rows).integers(0, 500, num_rows)
    found = mapped_rows(tmp_path, TABLE).metadata(positions, columns)
    assert found.equals(TABLE.select(columns or TABLE.column_names).take(pa.array(positions)))


def test_more_batches_than_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "KEPT_BATCHES", 3)
    rows = mapped_rows(tmp_path, TABLE)
    for _ in range(2):
        assert rows.metadata(np.arange(499, -1, -7))["width"].to_pylist() == list(range(499, -1, -7))


@pytest.mark.parametrize("num_rows", [1, 200])
def test_rows_that_a_batch_does_not_have(tmp_path, num_rows):
    rows = mapped_rows(tmp_path, TABLE)
    with pytest.raises(StoreError, match="is damaged"):
        rows.metadata(np.full(num_rows, 503))
