"""Cut files of embeddings into shards, and refuse keys that occur twice."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from operator import itemgetter

from pipeline.errors import InputError
from pipeline.imported.files import Embeddings
from pipeline.imported.rows import RowReader
from pipeline.source.access.location import examine
from pipeline.source.sorting import Sorted
from pipeline.store.records import Shard

_KEYS_AT_ONCE = 10_000


def cut(found: Embeddings, capacity: int) -> Iterator[Shard]:
    """Cut files into shards of at most `capacity` rows, in order. A shard has rows of one file.

    Raises:
        InputError: If a file is gone.
    """
    ordinal = first_id = 0
    for file in found.files:
        planned = file.as_planned()
        beside = examine(str(file.beside)) if file.beside else None
        for start in range(0, file.num_rows, capacity):
            size = min(capacity, file.num_rows - start)
            identity = (planned.model_dump(), beside, file.columns, found.dim, found.is_half, start, size)
            yield Shard(
                ordinal=ordinal,
                shard_id=hashlib.sha256(repr(identity).encode()).hexdigest()[:32],
                first_id=first_id,
                room=size,
                num_images=size,
                start=start,
                file=planned,
            )
            ordinal, first_id = ordinal + 1, first_id + size


def refuse_repeated_keys(found: Embeddings) -> None:
    """Compare the keys of all rows. Memory does not grow with their number.

    Raises:
        InputError: If a key occurs twice.
    """
    for one, other in pairwise(Sorted(_keys(found), itemgetter(0))):
        if one[0] == other[0]:
            raise InputError(
                f"row {other[2]} of {other[1]} has the key {other[0]!r}, which row {one[2]} of {one[1]} has too; keys "
                "must be unique: pass another --key-column, or correct the keys"
            )


def _keys(found: Embeddings) -> Iterator[tuple[str, str, int]]:
    """Yield key, file and row number of every row."""
    for file in found.files:
        name = str(file.beside or file.path)
        with RowReader(file, file.columns.only_keys(), 0) as reader:
            while (row := reader.position) < file.num_rows:
                keys = reader.read_keys(min(_KEYS_AT_ONCE, file.num_rows - row))
                yield from ((key, name, number) for number, key in enumerate(keys, row))
