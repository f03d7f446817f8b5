"""The JSON records of a store: what is embedded by what, which shards there are, what became of each. Contracts."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.plan import Shard
from pipeline.schema import SCHEMA_VERSION
from pipeline.source.entry import SourceSpec
from pipeline.spec import EncoderSpec


class Plan(BaseModel):
    """plan/00000.json: the shards of one listing of one source; a source that grew has a plan for what is new."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    source: SourceSpec
    shards: tuple[Shard, ...]
    entries_sha256: str | None = None
    """Of plan/00000.parquet, where there is one."""

    @property
    def has_entries(self) -> bool:
        """Whether its images are listed one by one, in plan/00000.parquet."""
        return self.source.format in ("folder", "list")


class RunRecord(BaseModel):
    """run.json: by which encoder, in which units; with the plans beside it, what is to be embedded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    clipsieve_version: str
    encoder: EncoderSpec
    fingerprint: str
    text_space: str
    image_policy: str
    columns: dict[str, str] = {}
    shard_capacity: int
    batch_size: int
    max_pixels: int
    threads_per_worker: int
    environment: dict[str, Any]
    plans: tuple[Plan, ...] = Field(default=(), exclude=True)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All that are to be embedded, in the order of their ids."""
        return tuple(shard for plan in self.plans for shard in plan.shards if not shard.is_dropped)

    @property
    def num_images(self) -> int | None:
        """Images planned, over all shards; None if some are not counted yet."""
        counts = [shard.num_images for shard in self.shards]
        return None if None in counts else sum(counts)

    @property
    def next_numbers(self) -> tuple[int, int]:
        """Ordinal and first id of the next shard to be planned."""
        planned = [shard for plan in self.plans for shard in plan.shards]
        return (planned[-1].ordinal + 1, planned[-1].first_id + planned[-1].room) if planned else (0, 0)

    def plan_of(self, shard: Shard) -> Plan:
        """The plan that a shard belongs to."""
        return next(plan for plan in reversed(self.plans) if plan.shards[0].ordinal <= shard.ordinal)


class ShardStats(BaseModel):
    """part-*.stats.json: proof that a shard is committed, and what it cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ordinal: int
    shard_id: str
    fingerprint: str
    num_images: int
    num_ok: int
    failed: dict[str, int]
    sha256: str
    num_bytes: int
    timings_s: dict[str, float]
    finished_at: str
    host: str = ""
    micro_batch: int | None = None
    """Images per forward pass where the device's memory did not hold a whole batch."""
    num_halvings: int = 0
    """How often it ran out of memory in this shard."""
    canary: dict[str, float] | None = None
    """Quantiles of the cosine between pruned and unpruned embeddings of some of its images."""
    compaction: int = 0
    """How often deleted rows were taken out of its part."""
    num_removed: int = 0
    """Rows that were taken out."""
