"""Vectors in blocks on disk: a run that is killed loses one block at most.

Shapes: N items, B items of a block, E embedding width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.durable.atomic import write_atomically
from pipeline.errors import StoreError, first_line
from query.evaluation.running.kept.work import forget, is_made_of, note_made_of

BLOCK = 1000
"""Vectors of a block; the last one holds the rest."""

_NAME = "blocks"


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks `00000.npy`, `00001.npy`, ... of the vectors of N items, in one folder."""

    folder: Path
    num_items: int

    def prepare(self, made_of: Mapping[str, object]) -> None:
        """Keep the blocks that were made of the same things, and remove the others."""
        made_of = {**made_of, "num_items": self.num_items, "num_items_of_a_block": BLOCK}
        if is_made_of(self.folder, _NAME, made_of):
            return
        for path in self.folder.glob("*.npy"):
            path.unlink()
        note_made_of(self.folder, _NAME, made_of)

    def forget(self) -> None:
        """Forget what the blocks were made of, so that they are made again."""
        forget(self.folder, _NAME)

    def missing(self) -> list[int]:
        """Numbers of the blocks that are not there."""
        return [number for number in range(-(-self.num_items // BLOCK)) if not self._path(number).exists()]

    def rows(self, number: int) -> slice:
        """The items of a block."""
        return slice(number * BLOCK, min(self.num_items, (number + 1) * BLOCK))

    def write(self, number: int, vectors_BE: np.ndarray) -> None:
        """Write a block whole or not at all."""
        write_array(self._path(number), vectors_BE.astype(np.float32, copy=False))

    def read(self) -> np.ndarray:
        """All vectors, float32 [N, E].

        Raises:
            StoreError: If a block is missing or damaged. The message names the file.
        """
        numbers = range(-(-self.num_items // BLOCK))
        parts = [read_array(self._path(number), self._size(number)) for number in numbers]
        return np.concatenate(parts)

    def _size(self, number: int) -> int:
        rows = self.rows(number)
        return rows.stop - rows.start

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npy"


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array as .npy, whole or not at all; its folder is created."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # numpy would add .npy to the name
            np.save(file, values)

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def read_array(path: Path, num_rows: int) -> np.ndarray:
    """Read an array of so many rows.

    Raises:
        StoreError: If the file is missing, damaged, or has another number of rows.
    """
    try:
        values = np.load(path)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {first_line(error)}; delete it and run the sweep again") from error
    except (ValueError, EOFError) as error:  # numpy's own words speak of pickles
        raise StoreError(f"{path} is damaged: it is no array of vectors; delete it and run the sweep again") from error
    if len(values) != num_rows:
        raise StoreError(
            f"{path} is damaged: {len(values)} rows, expected {num_rows}; delete it and run the sweep again"
        )
    return values
