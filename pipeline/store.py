"""A store on disk: its layout, its run record, its commit markers. No torch, no Ray.

    STORE/run.json                          the plan and the encoder; written once, before any part
    STORE/embeddings/part-00000.parquet     one shard's rows
    STORE/embeddings/part-00000.stats.json  commit marker of that shard: written last
    STORE/index/                            written by `indexer`
    STORE/lock.json                         owner and heartbeat of the running job (see `lock`)

A part without its stats file does not exist for any reader.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.atomic import write_atomically, write_json
from pipeline.errors import FingerprintMismatch, StoreError, UnfinishedStore
from pipeline.schema import SCHEMA_VERSION, write_part
from pipeline.spec import EncoderSpec


class PlannedShard(BaseModel):
    """One entry of the plan: position, content hash of the listing, number of images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ordinal: int
    shard_id: str
    num_images: int


class RunRecord(BaseModel):
    """run.json: what is to be embedded, by which encoder, in which units."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    clipsieve_version: str
    source: str
    encoder: EncoderSpec
    fingerprint: str
    text_space: str
    image_policy: str
    shard_capacity: int
    batch_size: int
    max_pixels: int
    threads_per_worker: int
    shards: tuple[PlannedShard, ...]
    environment: dict[str, Any]

    @property
    def num_images(self) -> int:
        """Images planned, over all shards."""
        return sum(shard.num_images for shard in self.shards)


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


class Store:
    """Paths and commit protocol of one store."""

    def __init__(self, root: Path) -> None:
        """Name a store; nothing is read or created."""
        self.root = root.absolute()
        self.run_path = self.root / "run.json"
        self.embeddings_dir = self.root / "embeddings"
        self.index_dir = self.root / "index"

    def part_path(self, ordinal: int) -> Path:
        """Parquet file of a shard."""
        return self.embeddings_dir / f"part-{ordinal:05d}.parquet"

    def stats_path(self, ordinal: int) -> Path:
        """Commit marker of a shard."""
        return self.embeddings_dir / f"part-{ordinal:05d}.stats.json"

    def create_folders(self) -> None:
        """Make the store's folders.

        Raises:
            StoreError: If the place cannot be written, or holds something that is not a store.
        """
        try:
            if self.root.is_dir() and not self.run_path.exists():
                strangers = [path.name for path in self.root.iterdir() if not _is_ours(path.name)]
                if strangers:
                    raise StoreError(
                        f"{self.root} is no store and not empty (it holds {sorted(strangers)[0]!r}); "
                        "choose a new or an empty folder for --out"
                    )
            self.embeddings_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write the store {self.root}: {error.strerror}; choose another --out") from error

    def read_run(self) -> RunRecord:
        """Read run.json.

        Raises:
            StoreError: If there is no store here, or its record is damaged or of another version.
        """
        try:
            text = self.run_path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise StoreError(f"no store at {self.root}: run.json is missing; make one with `clipsieve embed`") from None
        except OSError as error:
            raise StoreError(f"cannot read {self.run_path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise StoreError(f"{self.run_path} is damaged ({error}); embed again") from error
        try:
            version = json.loads(text).get("schema_version")
            if version != SCHEMA_VERSION:
                raise StoreError(
                    f"{self.run_path} has schema version {version}, this clipsieve reads {SCHEMA_VERSION}; "
                    "use the version that wrote it, or embed again"
                )
            return RunRecord.model_validate_json(text)
        except (ValidationError, ValueError, AttributeError) as error:
            raise StoreError(f"{self.run_path} is damaged ({str(error).splitlines()[0]}); embed again") from error

    def begin(self, record: RunRecord) -> RunRecord:
        """Write run.json, or check that the one found there is of the same encoder and plan.

        Raises:
            FingerprintMismatch: If the store is of another encoder; the message shows both.
            StoreError: If the collection changed since the store was begun.
        """
        if not self.run_path.exists():
            write_json(self.run_path, record.model_dump(mode="json"))
            return record
        found = self.read_run()
        self.check_fingerprint(record.encoder, found)
        if [shard.shard_id for shard in found.shards] != [shard.shard_id for shard in record.shards]:
            raise StoreError(
                f"the store {self.root} was begun over {found.num_images} images of {found.source}; now there are "
                f"{record.num_images} of {record.source} (names, sizes, times or shard size differ); choose a new --out"
            )
        return found

    def check_fingerprint(self, spec: EncoderSpec, found: RunRecord) -> None:
        """Refuse an encoder that is not the store's own.

        Raises:
            FingerprintMismatch: With both encoders named.
        """
        if found.fingerprint != spec.fingerprint:
            raise FingerprintMismatch(
                f"the store {self.root} holds embeddings of {found.encoder.describe()}, asked for "
                f"{spec.describe()}; choose another --out or the same model, policy and precision"
            )

    def commit_shard(self, table: pa.Table, stats: dict[str, Any]) -> ShardStats:
        """Write a shard's part, then its marker.

        Args:
            table: The rows, see `schema.part_table`.
            stats: All fields of `ShardStats` but `sha256` and `num_bytes`.
        """
        path = self.part_path(stats["ordinal"])
        write_atomically(path, lambda temporary: write_part(temporary, table))
        done = ShardStats(**stats, sha256=sha256_of(path), num_bytes=path.stat().st_size)
        write_json(self.stats_path(done.ordinal), done.model_dump(mode="json"))
        return done

    def committed(self, record: RunRecord) -> dict[int, ShardStats]:
        """Stats of every committed shard of the plan, by ordinal.

        A marker counts only if it speaks of this plan and encoder and its part has the size it names.
        """
        found = {}
        for shard in record.shards:
            try:
                stats = ShardStats.model_validate_json(self.stats_path(shard.ordinal).read_bytes())
                num_bytes = self.part_path(shard.ordinal).stat().st_size
            except (FileNotFoundError, ValidationError):
                continue
            expected = (shard.shard_id, record.fingerprint, num_bytes)
            if (stats.shard_id, stats.fingerprint, stats.num_bytes) == expected:
                found[shard.ordinal] = stats
        return found

    def require_finished(self, record: RunRecord, partial: bool) -> dict[int, ShardStats]:
        """Committed shards, all of them unless `partial`.

        Raises:
            UnfinishedStore: With the counts, if shards are missing; or if there is none at all.
        """
        committed = self.committed(record)
        missing = len(record.shards) - len(committed)
        if missing and not (partial and committed):
            done = sum(stats.num_images for stats in committed.values())
            advice = "run the same embed command again to finish it"
            if committed:
                advice += ", or pass --partial"
            raise UnfinishedStore(
                f"the store {self.root} is unfinished: {len(committed)} of {len(record.shards)} shards, "
                f"{done} of {record.num_images} images; {advice}"
            )
        return committed


def _is_ours(name: str) -> bool:
    # what a job that died before its run.json can have left behind
    return name in ("embeddings", "lock.json") or (name.startswith(".") and name.endswith(".tmp"))


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
