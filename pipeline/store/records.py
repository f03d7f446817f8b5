"""The JSON records of a store: its encoder, its plans and shards, and their commit markers. Stable contracts."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.model.precision import Kernels
from pipeline.model.spec import ClaimedSpec, EncoderSpec
from pipeline.source.entry import Source, SourceFile, bare_source
from pipeline.source.left_out import LeftOut
from pipeline.store.parts import SCHEMA_VERSION

IMPORTED = "embeddings"
"""Format of a source whose embeddings were imported."""


class Shard(BaseModel):
    """One entry of a plan: consecutive entries of a listing, a whole tar, or consecutive rows of a Parquet file.

    `shard_id` is a hash of the shard's content. Ids start at `first_id`; there are at most `room` of them. `num_images`
    is None for a tar, which is counted when it is read. `start` is the first entry in the plan's list, or the first
    row in the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ordinal: int
    shard_id: str
    first_id: int
    room: int
    num_images: int | None
    start: int = 0
    file: SourceFile | None = None
    is_dropped: bool = False
    """Its file changed or disappeared before it was embedded, so the shard does not count."""

    @property
    def is_tar(self) -> bool:
        """Whether it is a whole tar, whose images are known only once it is read."""
        return self.num_images is None

    @property
    def ids(self) -> range:
        """The range of ids that its rows can have."""
        return range(self.first_id, self.first_id + self.room)


class Plan(BaseModel):
    """plan/00000.json: the shards of one listing of a source. If the source grows, another plan covers what is new."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    source: Annotated[Source, AfterValidator(bare_source)]
    shards: tuple[Shard, ...]
    entries_sha256: str | None = None
    """Hash of plan/00000.parquet, if there is one."""
    retried: tuple[str, ...] = ()
    """The statuses of the failed rows that this plan tries again. Its list names the row that each image replaces."""
    max_pixels: int | None = None
    """Limit on the pixels of its images, if it is not that of the store."""
    text_rules: int = 1
    """Which rules read its captions and carried columns; see `pipeline.source.formats.text`."""

    @property
    def has_entries(self) -> bool:
        """Whether its images are listed individually, in plan/00000.parquet."""
        return self.entries_sha256 is not None

    @property
    def has_files(self) -> bool:
        """Whether its source has files that hold many images each."""
        return self.source.format in ("webdataset", "parquet", IMPORTED)


class StoreRecord(BaseModel):
    """run.json: the encoder and the units of work. The plans say what is to be embedded; they are separate files."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    schema_version: int = SCHEMA_VERSION
    clipsieve_version: str
    encoder: EncoderSpec | ClaimedSpec
    """A claim if the embeddings were imported."""

    fingerprint: str
    text_space: str
    image_space: str = Field(alias="image_policy")
    """The key on disk is older than the name."""

    columns: dict[str, str] = {}
    shard_capacity: int
    batch_size: int
    """0, like the next two, if the embeddings were imported."""

    max_pixels: int
    threads_per_worker: int
    environment: dict[str, Any]
    plans: tuple[Plan, ...] = Field(default=(), exclude=True)

    @property
    def is_imported(self) -> bool:
        """Whether the embeddings were imported, so that no image here was embedded."""
        return isinstance(self.encoder, ClaimedSpec)

    @property
    def same_command(self) -> str:
        """What finishes the store and replaces what is damaged, as advice."""
        return f"run the same {'import' if self.is_imported else 'embed'} command again"

    @property
    def kernels(self) -> Kernels:
        """How its workers compute bf16 on a CPU. Before there was a choice, it was by oneDNN."""
        return self.environment.get("kernels", "onednn")

    @property
    def shards(self) -> tuple[Shard, ...]:
        """All shards that are not dropped, in the order of their ids."""
        return tuple(shard for plan in self.plans for shard in plan.shards if not shard.is_dropped)

    @property
    def num_images(self) -> int | None:
        """Number of planned images over all shards. None if a shard is not counted yet."""
        counts = [shard.num_images for shard in self.shards]
        return None if None in counts else sum(counts)

    @property
    def next_numbers(self) -> tuple[int, int]:
        """Ordinal and first id for the next shard to be planned."""
        planned = [shard for plan in self.plans for shard in plan.shards]
        return (planned[-1].ordinal + 1, planned[-1].ids.stop) if planned else (0, 0)

    def plan_of(self, shard: Shard) -> Plan:
        """The plan that a shard belongs to."""
        return next(plan for plan in reversed(self.plans) if plan.shards[0].ordinal <= shard.ordinal)

    def max_pixels_of(self, shard: Shard) -> int:
        """Limit on the pixels of a shard's images."""
        return self.plan_of(shard).max_pixels or self.max_pixels


@dataclass(slots=True)
class Timings:
    """Where the time of a shard went, in seconds. `*_cpu_s` are CPU time, the others are the worker's wall time."""

    decode_cpu_s: float = 0.0
    decode_wait_s: float = 0.0
    transfer_s: float = 0.0
    encode_s: float = 0.0
    encode_cpu_s: float = 0.0
    write_s: float = 0.0


class CommitMarker(BaseModel):
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
    """The fields of `Timings`."""
    finished_at: str
    host: str = ""
    micro_batch: int | None = None
    """Images per forward pass, if a whole batch did not fit in the device's memory."""
    num_halvings: int = 0
    """How often the device ran out of memory in this shard."""
    canary: dict[str, float] | None = None
    """Quantiles of the cosine between pruned and unpruned embeddings for a sample of its images."""
    left_out: LeftOut = LeftOut()
    """What the shard's file holds that became no row."""
    columns_seen: list[str] | None = None
    """Which of the source's columns the images of its tar have. None if unknown, or if the format has a schema."""
    num_normalised: int = 0
    """Number of imported rows whose embedding did not have length 1 before."""

    compaction: int = 0
    """How often its part was compacted."""
    num_removed: int = 0
    """Number of rows that compaction removed."""
