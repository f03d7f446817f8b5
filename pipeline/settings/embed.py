"""Settings of `clipsieve embed`."""

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import CliPositionalArg

from pipeline.model.precision import MIN_COSINE
from pipeline.settings.load import OutputSettings
from pipeline.settings.model import PolicySettings
from pipeline.settings.workers import CompileChoice, WorkerSettings
from pipeline.source.access.naming import expand_home
from pipeline.source.entry import Source, Status

INT8 = ("int8", "8bit")
"""The choices of a precision that can be int8, which is calibrated."""

OnChange = Literal["stop", "keep", "embed"]
FAILED_STATUSES = tuple(str(status) for status in Status if status not in (Status.OK, Status.BAD_EMBEDDING))
"""Those of images that can be tried again."""


class SourceSettings(WorkerSettings):
    """Where the images come from, and which columns of the source to use."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": (
            *("input_format", "image_column", "key_column", "caption_column", "columns", "key_prefix"),
            *("exclude", "follow_links"),
        ),
    }

    input_format: Literal["auto", "folder", "webdataset", "parquet", "list"] = "auto"
    """Kind of source. auto goes by the file extension (.tar, .parquet, .csv, .tsv or .jsonl); anything else is a
    folder."""

    image_column: str | None = None
    """Column of images: paths or URLs, and in Parquet files also bytes or base64. By default, common names are
    tried."""

    key_column: str | None = None
    """Column of unique keys: text or integers. By default, keys are file and row number (Parquet) or the path as the
    list spells it; a row without a key gets the default."""

    caption_column: str | None = None
    """Column of captions: text or lists of text, by default caption, text or title. In tars, a field of the .json
    member, by default caption; one that is named here counts before .txt."""

    columns: str | None = None
    """Additional columns to copy into every row, separated by commas. Lists and structs become JSON text."""

    key_prefix: str = ""
    """Prefix of every key, so that sources with the same file names fit into one store."""

    exclude: tuple[str, ...] = ()
    """Leave out files and folders by name ('*_thumb.jpg', drafts), or by path from the source if there is a / in the
    pattern ('2019/raw/*'; there, * also matches /). May be given several times. What is planned already stays."""

    follow_links: bool = False
    """Also list the folders that links lead to, each once. By default, linked folders are left out and counted."""

    @field_validator("exclude", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part for part in re.split(r"[,\n]", value) if part.strip()] if isinstance(value, str) else value


class EmbedSettings(SourceSettings, PolicySettings, OutputSettings):
    """Embed images into a store of Parquet shards, on Ray workers. Run it again to resume, or to add images."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("source", "out", "captions"),
        "how good": ("calibration", "min_cosine"),
        "how fast": ("shard_size", "min_workers", "compile_tower"),
        "safety": (
            "image_timeout",
            "max_bad_fraction",
            "on_change",
            "check_content",
            "retry",
            "canary",
            "canary_floor",
        ),
        "watching": ("dry_run", "metrics_port", "wandb"),
    }

    OUTPUTS: ClassVar[dict[str, str]] = {"out": "folder"}

    source: CliPositionalArg[str]
    """Images: a folder, tars ('shards/{00000..00099}.tar'), Parquet files, or a CSV, TSV or JSONL list; by path, or by
    an s3, gs, hdfs or https URL."""

    out: Path
    """Store to write, to resume, or to add to."""

    captions: Path | None = None
    """TSV of `key TAB caption` for a folder. The first caption of an image goes into its row."""

    calibration: Path | None = None
    """The calibration.safetensors of another store, for --precision int8. By default, the first run measures it on 256
    images of the source; the store keeps it."""

    min_cosine: float = Field(default=MIN_COSINE, ge=0, lt=1)
    """Least mean cosine of embeddings in int8 to those in float, on these images. As many of the first blocks as it
    takes stay in float; 0 leaves none."""

    shard_size: int | None = Field(default=None, ge=1)
    """Images per shard. By default, 10,000, or fewer if workers would idle. A tar is always one shard."""

    min_workers: int | None = Field(default=None, ge=1)
    """Number of workers to start with on a cluster that grows on demand. More join later, up to --workers."""

    compile_tower: CompileChoice = Field(default="auto", alias="compile")
    """Compile the image tower on GPUs: up to 40 % faster, after up to a minute. auto does so for 500,000 images or
    more per GPU."""

    image_timeout: float = Field(default=60.0, gt=0)
    """Seconds after which an image whose decoder hangs becomes a row with status timeout."""

    max_bad_fraction: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Stop if more than this share of the images fails."""

    on_change: OnChange = "stop"
    """What to do if images changed since they were planned: stop, keep the old rows, or embed the images again."""

    check_content: bool = False
    """Detect changed images by their bytes, not only by size and modification time. Reads everything again."""

    retry: str | None = None
    """Try failed images again: some of timeout, crashed, unreadable, too_large and undecodable, separated by commas,
    or failed for all of them. --max-pixels and --image-timeout may be higher than before."""

    canary: float | None = Field(default=None, gt=0.0, le=1.0)
    """Share of the images to embed unpruned as well, such as 0.01, to monitor the effect of pruning."""

    canary_floor: float = Field(default=0.8, ge=-1.0, le=1.0)
    """Warn if a shard's median cosine between pruned and unpruned falls below this."""

    dry_run: bool = False
    """Plan, measure a sample, and print what the run would take. Writes nothing."""

    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Serve Prometheus metrics on this port during the run. Needs prometheus_client."""

    wandb: str | None = None
    """Weights & Biases project to log to. Needs wandb."""

    @field_validator("source", mode="before")
    @classmethod
    def _take_paths(cls, value: object) -> object:
        return expand_home(str(value)) if isinstance(value, str | Path) else value

    @field_validator("retry")
    @classmethod
    def _check_retry(cls, value: str | None) -> str | None:
        unknown = sorted(set(_names(value)) - {*FAILED_STATUSES, "failed"})
        if unknown or (value is not None and not _names(value)):
            raise ValueError(f"expected failed, or some of {', '.join(FAILED_STATUSES)}, separated by commas")
        return value

    @model_validator(mode="after")
    def _check(self) -> "EmbedSettings":
        self.pruning_policy()
        if self.calibration and self.precision not in (*INT8, "auto"):
            raise ValueError(
                f"calibration = {str(self.calibration)!r}: only int8 uses a calibration, not {self.precision}; give "
                "--precision int8, or leave out --calibration"
            )
        if self.min_workers and self.min_workers > (self.workers or 0):
            raise ValueError(f"min_workers = {self.min_workers}: also give --workers, the maximum, at least as many")
        return self

    def writes(self, name: str) -> bool:
        """Whether an output is written. A store that exists may be finished, and is then only read."""
        return name != "out" or not (self.out / "run.json").exists()

    def image_source(self) -> Source:
        """The source that these settings describe."""
        return Source(
            location=self.source,
            format=self.input_format,
            image_column=self.image_column,
            key_column=self.key_column,
            caption_column=self.caption_column,
            columns=dict.fromkeys(_names(self.columns), ""),
            key_prefix=self.key_prefix,
            exclude=self.exclude,
            follow_links=self.follow_links,
        )

    def comparison(self) -> dict[str, Any]:
        """How to compare the source with the store: the arguments of `find_changes`."""
        names = _names(self.retry)
        retried = FAILED_STATUSES if "failed" in names else tuple(names)
        return {"on_change": self.on_change, "checks_content": self.check_content, "retried": retried}


def _names(text: str | None) -> list[str]:
    return [name for part in (text or "").split(",") if (name := part.strip())]
