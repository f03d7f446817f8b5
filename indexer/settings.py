"""Settings of `clipsieve index`."""

import os
import re
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator
from pydantic_settings import CliPositionalArg

from pipeline.settings.load import OutputSettings

MIN_RECALL = 0.95


def memory_of_machine() -> int:
    """Bytes of main memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class IndexSettings(OutputSettings):
    """Build an index over the embeddings of a store, or bring it up to date. Plans it, and proves its recall."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("store", "recipe", "rebuild", "dry_run", "show", "plot", "check"),
        "how good": ("min_recall", "queries", "proof"),
        "how fast": ("max_query_ms", "max_index_memory", "max_build_memory", "threads"),
        "safety": ("partial", "seed"),
    }
    OUTPUTS: ClassVar[dict[str, str]] = {"plot": "file"}

    store: CliPositionalArg[Path]
    """Store written by `clipsieve embed` or `clipsieve import`."""

    recipe: str | None = Field(default=None, min_length=1)
    """A faiss.index_factory string, such as IVF4096,SQ8, instead of the planner's choice."""

    rebuild: bool = False
    """Plan and build from scratch, even if the index could be brought up to date."""

    dry_run: bool = False
    """Show the plan and stop."""

    show: bool = False
    """Show the index that exists and its curve of recall against time. Builds nothing."""

    plot: Path | None = None
    """Draw the curve to this picture: .png, .svg or .pdf."""

    check: bool = False
    """Check the index that exists: every block of its files, its rows against the store, a sample of its answers."""

    min_recall: float | None = Field(default=None, gt=0, le=1)
    """Recall@10 of text queries that the index must prove, against exact search. 0.95 unless given."""

    queries: Path | None = None
    """Text queries of your own: a file of texts (.txt, .tsv, .jsonl, .parquet), or of vectors in a column `embedding`
    (.parquet). Without it, built-in texts are used."""

    proof: bool = True
    """Measure the recall. Without it, the index is searched at a point that nothing has proven."""

    max_query_ms: float | None = Field(default=None, gt=0)
    """Longest time that one query may take on one thread, in milliseconds (median)."""

    max_index_memory: int | None = Field(default=None, gt=0)
    """Most memory that searching may take, such as 600M. Half of this machine's memory unless given."""

    max_build_memory: int | None = Field(default=None, gt=0)
    """Most memory that building may take, such as 8G. Three quarters of this machine's memory unless given."""

    threads: int | None = Field(default=None, ge=1)
    """Threads that build. All cores unless given."""

    partial: bool = False
    """Index the committed shards even if others are missing."""

    seed: int = Field(default=1, ge=0)
    """Seed of all samples. The same seed, threads and CPU features give the same files."""

    @field_validator("max_index_memory", "max_build_memory", mode="before")
    @classmethod
    def _take_units(cls, value: object) -> object:
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(i?)B?", str(value).strip(), re.IGNORECASE)
        if value is None or not found:
            return value
        number, unit, binary = found.groups()
        power = "KMGT".find(unit.upper()) + 1 if unit else 0
        return int(float(number) * (1024 if binary else 1000) ** power)

    @model_validator(mode="after")
    def _check(self) -> "IndexSettings":
        chosen = [name for name in ("show", "check", "dry_run") if getattr(self, name)]
        if len(chosen) > 1:
            raise ValueError(f"give one of {' and '.join('--' + name.replace('_', '-') for name in chosen)}")
        if self.recipe and self.limits:
            raise ValueError(f"{self.limits[0]} is for choosing a recipe; leave it out, or --recipe")
        if self.plot and (self.check or self.dry_run):
            raise ValueError("--plot draws the curve of an index; leave out --check and --dry-run")
        if not self.proof and (self.queries or self.min_recall):
            raise ValueError("--queries and --min-recall are for the proof; leave them out, or let it be proven")
        return self

    @property
    def limits(self) -> list[str]:
        """The flags that limit which recipe is chosen, as far as they are given."""
        names = ("max_query_ms", "max_index_memory", "max_build_memory")
        return ["--" + name.replace("_", "-") for name in names if getattr(self, name)]

    @property
    def asked(self) -> dict[str, Any]:
        """What the choice of a recipe depends on, as far as it is given."""
        names = ("recipe", "seed")
        if not self.recipe:
            names += ("min_recall", "max_query_ms", "max_index_memory", "max_build_memory")
        return self.model_dump(include=set(names), exclude_none=True)

    @property
    def recall(self) -> float:
        """The recall to prove."""
        return MIN_RECALL if self.min_recall is None else self.min_recall

    @property
    def num_threads(self) -> int:
        """Threads that build."""
        return self.threads or len(os.sched_getaffinity(0))
