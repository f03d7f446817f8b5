"""What a manifest records about the files of the rows."""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict


class RowFiles(BaseModel):
    """How many rows the three files hold, and where the Arrow messages are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    """In the names of the files. A rebuild writes files of another number."""
    num_rows: int
    dim: int
    dtype: str
    """Of the vectors: float16 or float32."""
    offsets: tuple[int, ...] = ()
    """Where each record batch starts in the Arrow stream."""
    starts: tuple[int, ...] = ()
    """The first row of each record batch."""
    arrow_bytes: int = 0

    @property
    def names(self) -> tuple[str, str, str]:
        """Names of the files: vectors, ids and metadata."""
        stem = f"rows-{self.number:05d}"
        return f"{stem}.vectors", f"{stem}.ids", f"{stem}.arrows"

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of the files that are in use."""
        return self.num_rows * self.dim * np.dtype(self.dtype).itemsize, 8 * self.num_rows, self.arrow_bytes

    def paths(self, folder: Path) -> tuple[Path, Path, Path]:
        """The files in an index's folder."""
        vectors, ids, rows = self.names
        return folder / vectors, folder / ids, folder / rows
