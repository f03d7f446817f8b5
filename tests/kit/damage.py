"""Damage a store, and check what `verify` finds."""

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.durable.seal import sha256_of, write_sealed_json
from pipeline.settings.store import VerifySettings
from pipeline.store.commit_markers import read_marker
from pipeline.store.parts import read_part
from pipeline.verify import verify


def check(store, **settings):
    return verify(VerifySettings(store=store.root, **settings))


def rewrite(store, ordinal, change=lambda table: table, **fields):
    """Change a part, and update its commit marker to match."""
    marker = read_marker(store, ordinal)
    path = store.part_of(marker)
    pq.write_table(change(read_part(path)), path, compression="zstd")
    fields = {"sha256": sha256_of(path), "num_bytes": path.stat().st_size} | fields
    write_sealed_json(store.marker_path(ordinal), marker.model_dump(mode="json") | fields)


def with_value(name, row, value):
    def change(table):
        place = table.schema.get_field_index(name)
        values = table[name].to_pylist()
        values[row] = value(values[row])
        return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return change
