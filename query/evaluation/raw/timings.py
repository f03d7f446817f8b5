"""Timed rounds, one file each: a round is there whole or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from query.evaluation.raw.head import RawHead, read_raw, write_raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Every condition of a block run once, in turn. Only times of the same round may be compared."""

    number: int
    """Within its block, from 0."""
    block: int
    """Rounds of one block run the same conditions. Conditions that come later make another block."""
    kind: Literal["tower", "query"]
    """What was timed: the image tower on a batch of images, or the search of an index, query by query."""
    keys: list[str]
    """Conditions in the order in which they ran."""
    seconds: list[float]
    """How long each took."""
    num_items: list[int]
    """Images or queries that each worked on."""
    environment_key: str


def path_of(folder: Path, timed: Round) -> Path:
    """Where a round is in the folder of timings."""
    return folder / f"{timed.kind}-{timed.block:03d}-{timed.number:04d}.parquet"


def write_round(folder: Path, timed: Round) -> Path:
    """Write a round into the folder of timings.

    Raises:
        StoreError: If it cannot be written.
    """
    table = pa.table(
        {
            "condition": pa.array(timed.keys, pa.string()),
            "seconds": pa.array(timed.seconds, pa.float64()),
            "num_items": pa.array(timed.num_items, pa.int64()),
        }
    )
    settings = {"of": timed.kind, "block": timed.block, "number": timed.number}
    path = path_of(folder, timed)
    write_raw(path, table, RawHead(kind="round", environment_key=timed.environment_key, settings=settings))
    return path


def read_rounds(folder: Path) -> list[Round]:
    """All rounds, in the order of kind, block and number; none if there is no folder.

    Raises:
        StoreError: If one is damaged or of another schema version.
    """
    rounds = [_read(path) for path in folder.glob("*.parquet")]
    return sorted(rounds, key=lambda timed: (timed.kind, timed.block, timed.number))


def _read(path: Path) -> Round:
    table, head = read_raw(path)
    return Round(
        number=head.settings["number"],
        block=head.settings["block"],
        kind=head.settings["of"],
        keys=table["condition"].to_pylist(),
        seconds=table["seconds"].to_pylist(),
        num_items=table["num_items"].to_pylist(),
        environment_key=head.environment_key,
    )
