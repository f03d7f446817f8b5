"""Settings of `clipsieve import`."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from pipeline.model.spec import ModelSource
from pipeline.settings.load import OutputSettings


class ImportSettings(OutputSettings):
    """Make a store of embeddings that exist already. Run it again to resume."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": (
            *("source", "out", "model", "pretrained", "keys"),
            *("embedding_column", "key_column", "caption_column", "uri_column", "columns"),
        ),
        "how fast": ("shard_size",),
    }
    OUTPUTS: ClassVar[dict[str, str]] = {"out": "folder"}

    source: CliPositionalArg[Path]
    """Embeddings: a folder that clip-retrieval wrote (img_emb, metadata), a Parquet file or a folder of them, or a .npy
    matrix."""

    out: Path
    """Store to make, or to resume."""

    model: str
    """Model that made the embeddings: an open_clip name, hf-hub:ORG/NAME, or local-dir:PATH. If it can be loaded, its
    dimension is compared; that it made them is not verified."""

    pretrained: str | None = None
    """Pretrained tag or checkpoint file. An open_clip name needs one."""

    keys: Path | None = None
    """Keys of a .npy matrix: a text file with one key per line, or a Parquet file with one row per embedding. By
    default, the .txt or .parquet file with the name of the matrix."""

    embedding_column: str = "embedding"
    """Column of embeddings in Parquet files: lists of floats."""

    key_column: str | None = None
    """Column of unique keys: text or integers. By default, key, or image_path in clip-retrieval's folders; a row
    without a key gets file and row number."""

    caption_column: str | None = None
    """Column of captions: text or lists of text. By default, caption, text or title."""

    uri_column: str | None = None
    """Column of paths or URLs of the images. By default, uri, url or image_path."""

    columns: str | None = None
    """Additional columns to copy into every row, separated by commas. Lists and structs become JSON text."""

    shard_size: int | None = Field(default=None, ge=1)
    """Rows per shard. By default, 10,000. A shard never has rows of two files."""

    @model_validator(mode="after")
    def _check(self) -> "ImportSettings":
        if self.out.absolute().is_relative_to(self.source.absolute()):
            raise ValueError(f"out = {str(self.out)!r} is inside the source {self.source}; choose another --out")
        return self

    def writes(self, name: str) -> bool:
        """Whether an output is written. A store that exists may be finished, and is then only read."""
        return name != "out" or not (self.out / "run.json").exists()

    def model_source(self) -> ModelSource:
        """The claimed model, with absolute paths."""
        return ModelSource(model=self.model, pretrained=self.pretrained).absolute()

    def carried(self) -> list[str]:
        """The names in `columns`."""
        return [name for part in (self.columns or "").split(",") if (name := part.strip())]
