"""What an index records about a segment."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Segment(BaseModel):
    """A segment's size and the place of its Arrow messages. It never changes once it is complete."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    num_rows: int
    dim: int
    dtype: str
    """Of the vectors: float16 or float32."""

    offsets: tuple[int, ...]
    """Where each record batch starts in the Arrow stream."""

    starts: tuple[int, ...]
    """The first row of each record batch."""

    @property
    def files(self) -> tuple[str, str, str]:
        """Names of its three files: vectors, ids and metadata."""
        stem = f"segment-{self.number:05d}"
        return f"{stem}.vectors", f"{stem}.ids", f"{stem}.arrows"

    def paths(self, folder: Path) -> tuple[Path, Path, Path]:
        """Its three files in an index's folder."""
        vectors, ids, rows = self.files
        return folder / vectors, folder / ids, folder / rows
