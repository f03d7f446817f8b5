"""Settings of `clipsieve embed`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import CliPositionalArg

from pipeline.settings.model import ModelSettings
from pipeline.settings.workers import WorkerSettings
from pipeline.source.entry import Source

OnChange = Literal["stop", "keep", "embed"]


class SourceSettings(WorkerSettings):
    """Where images come from, and which of its columns are used."""

    input_format: Literal["auto", "folder", "webdataset", "parquet", "list"] = "auto"
    """What the source is; auto goes by its name: .tar, .parquet, .csv .tsv .jsonl, else a folder."""

    image_column: str | None = None
    """Column of image bytes, paths or URLs, of Parquet files and lists; found by usual names unless given."""

    key_column: str | None = None
    """Column of unique keys; file and row number (Parquet), or the path (lists), unless given."""

    caption_column: str | None = None
    """Column (tars: field of the .json member) of captions; found by usual names unless given."""

    columns: str | None = None
    """More columns to carry along to every row, separated by commas."""

    key_prefix: str = ""
    """Put before every key, so that two sources of equal names fit into one store."""


class EmbedSettings(SourceSettings, ModelSettings):
    """Embed images into a store of Parquet shards, on Ray workers; go on with a store that was begun or has grown."""

    source: CliPositionalArg[str]
    """Folder, tars ('shards/{00000..00099}.tar'), Parquet files, or a CSV, TSV or JSONL list; a path, or a URL of
    s3, gs, hdfs or https."""

    out: Path
    """Store to write, to finish, or to add to."""

    captions: Path | None = None
    """TSV of `key TAB caption` for a folder; the first caption of an image goes to its row."""

    shard_size: int | None = Field(default=None, ge=1)
    """Images per shard; 10,000 unless given, less where workers would idle. A tar is a shard."""

    min_workers: int | None = Field(default=None, ge=1)
    """Workers to begin with, where a cluster grows on demand; more join up to --workers."""

    image_timeout: float = Field(default=60.0, gt=0)
    """Seconds after which an image whose decoder hangs becomes a row with status timeout."""

    max_bad_fraction: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Stop when more than this share of the images failed."""

    on_change: OnChange = "stop"
    """When images changed since they were planned: stop, keep what there is, or embed them again."""

    check_content: bool = False
    """Find changed images by their bytes, not only by size and time: reads everything that is embedded."""

    canary: float | None = Field(default=None, gt=0.0, le=1.0)
    """Share of the images to embed unpruned as well, to watch what pruning does to them; 0.01, say."""

    canary_floor: float = Field(default=0.8, ge=-1.0, le=1.0)
    """Warn when a shard's median cosine between pruned and unpruned falls under this."""

    dry_run: bool = False
    """Plan, measure a sample, print what the run would take, and write nothing."""

    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Serve Prometheus metrics on this port while the run lasts; needs prometheus_client."""

    wandb: str | None = None
    """Weights & Biases project to log to; needs wandb."""

    @field_validator("source", mode="before")
    @classmethod
    def _take_paths(cls, value: object) -> object:
        return str(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _check(self) -> "EmbedSettings":
        self.pruning_policy()
        if self.min_workers and self.min_workers > (self.workers or 0):
            raise ValueError(f"min_workers = {self.min_workers}: give --workers, the most there may be, as well")
        return self

    def image_source(self) -> Source:
        """The source that these settings name."""
        names = [name for text in (self.columns or "").split(",") if (name := text.strip())]
        return Source(
            location=self.source,
            format=self.input_format,
            image_column=self.image_column,
            key_column=self.key_column,
            caption_column=self.caption_column,
            columns=dict.fromkeys(names, ""),
            key_prefix=self.key_prefix,
        )
