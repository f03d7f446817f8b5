"""Settings of `clipsieve search`."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator, model_validator
from pydantic_settings import CliPositionalArg

from pipeline.model.spec import DeviceChoice
from pipeline.settings.load import OutputSettings
from query.formats import picture_path


class SearchSettings(OutputSettings):
    """Find the images of a store that best match a text, or each of many vectors."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("store", "query", "k", "vectors", "out"),
        "how fast": ("device",),
        "safety": ("partial",),
        "watching": ("sheet",),
    }
    OUTPUTS: ClassVar[dict[str, str]] = {"sheet": "file", "out": "file"}

    store: CliPositionalArg[Path]
    """Indexed store."""

    query: CliPositionalArg[str | None] = None
    """Text that describes what to look for."""

    k: int = Field(default=10, ge=1)
    """Number of hits."""

    device: DeviceChoice = "auto"
    """Where to embed the text (in fp32) and search. auto embeds on the CPU, and searches on a GPU if FAISS sees one."""

    partial: bool = False
    """Search an index that does not cover the whole store."""

    vectors: Path | None = None
    """Instead of a text: a Parquet file whose column `embedding` has a vector per query."""

    out: Path | None = None
    """Where --vectors writes the hits: a Parquet file with the columns query (row of the vector), rank, id, key and
    score, in the order of the queries."""

    sheet: Path | None = None
    """Write a contact sheet of the hits to this picture: .png, .jpg or .webp."""

    _check_sheet = field_validator("sheet")(picture_path)

    @model_validator(mode="after")
    def _check_what(self) -> "SearchSettings":
        if (self.query is None) == (self.vectors is None):
            raise ValueError("give either a text (QUERY), or --vectors FILE")
        if (self.vectors is None) != (self.out is None):
            raise ValueError("--vectors and --out belong together: the vectors to search with, and the file of hits")
        if self.vectors and self.sheet:
            raise ValueError("--sheet shows the hits of a text, not of --vectors")
        return self
