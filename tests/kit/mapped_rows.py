"""The files of an index's rows, made of an Arrow table without vectors."""

import numpy as np

from indexer.rows.mapped import MappedRows
from indexer.rows.record import RowFiles


def mapped_rows(folder, table, ids=None, per_batch=7):
    """Write a table as the metadata of rows, in several record batches, and map it."""
    ids = np.arange(len(table)) if ids is None else np.asarray(ids, np.int64)
    files = RowFiles(number=0, num_rows=len(table), dim=1, dtype="float16")
    vectors_path, ids_path, arrow_path = files.paths(folder)
    np.zeros(len(table), np.float16).tofile(vectors_path)
    ids.tofile(ids_path)
    offsets, starts, rows = [], [], 0
    with arrow_path.open("wb") as file:
        file.write(table.schema.serialize())
        for batch in table.combine_chunks().to_batches(max_chunksize=per_batch):
            offsets.append(file.tell())
            starts.append(rows)
            file.write(batch.serialize())
            rows += batch.num_rows
        size = file.tell()
    changes = {"offsets": tuple(offsets), "starts": tuple(starts), "arrow_bytes": size}
    return MappedRows(folder, files.model_copy(update=changes))
