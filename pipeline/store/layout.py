"""A store on disk: its layout, its run record, its commit markers. No torch, no Ray.

    STORE/run.json                          the encoder and the units of work; written once, before any part
    STORE/plan/00000.parquet                images of a listing, one row group a shard; folders and lists only
    STORE/plan/00000.json                   the shards of that listing: written after it, before any of their parts
    STORE/embeddings/part-00000.parquet     one shard's rows
    STORE/embeddings/part-00000.stats.json  commit marker of that shard: written last
    STORE/tombstones.parquet                ids of rows that were deleted or replaced (see `tombstones`)
    STORE/stats.json, events.jsonl          what the last run cost, and what happened in all of them
    STORE/index/                            written by `indexer`
    STORE/lock.json                         owner and heartbeat of the running job (see `lock`)

A part without its stats file does not exist for any reader, nor does a list of images without its plan. All but log,
lock and index is under a hash: JSON and tombstones are sealed (see `seal`), a stats file has the hash of its part, a
plan that of its list.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.durable.atomic import write_atomically
from pipeline.durable.seal import unsealed_json, write_sealed_json
from pipeline.errors import ConfigError, FingerprintMismatch, StoreError, UnfinishedStore, first_line
from pipeline.model.spec import EncoderSpec
from pipeline.source.entry import ImageEntry, Source
from pipeline.store.lists import EntryWriter, read_entries
from pipeline.store.parts import SCHEMA_VERSION, write_part
from pipeline.store.records import CommitMarker, Plan, Shard, StoreRecord


class Store:
    """Paths and commit protocol of one store."""

    def __init__(self, root: Path) -> None:
        """Name a store; nothing is read or created."""
        self.root = root.absolute()
        self.run_path = self.root / "run.json"
        self.events_path = self.root / "events.jsonl"
        self.plan_dir = self.root / "plan"
        self.embeddings_dir = self.root / "embeddings"
        self.index_dir = self.root / "index"

    def part_path(self, ordinal: int, compaction: int = 0) -> Path:
        """Parquet file of a shard, or of its rows that were left when deleted ones were taken out."""
        generation = f".c{compaction}" if compaction else ""
        return self.embeddings_dir / f"part-{ordinal:05d}{generation}.parquet"

    def part_of(self, stats: CommitMarker) -> Path:
        """Parquet file that a commit marker speaks of."""
        return self.part_path(stats.ordinal, stats.compaction)

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
            self.plan_dir.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write the store {self.root}: {error.strerror}; choose another --out") from error

    def read_run(self) -> StoreRecord:
        """Read run.json.

        Raises:
            StoreError: If there is no store here, or its record is damaged or of another version.
        """
        try:
            data = self.run_path.read_bytes()
        except FileNotFoundError:
            raise StoreError(f"no store at {self.root}: run.json is missing; make one with `clipsieve embed`") from None
        except OSError as error:
            raise StoreError(f"cannot read {self.run_path}: {error.strerror}") from error
        try:
            version = json.loads(data).get("schema_version")
            if version != SCHEMA_VERSION:
                raise StoreError(
                    f"{self.run_path} has schema version {version}, this clipsieve reads {SCHEMA_VERSION}; "
                    "use the version that wrote it, or embed again"
                )
            record = StoreRecord.model_validate(unsealed_json(data))
        except (ValueError, AttributeError) as error:
            raise StoreError(f"{self.run_path} is damaged ({first_line(error)}); embed again") from error
        return record.model_copy(update={"plans": tuple(self._read_plans())})

    def _read_plans(self) -> Iterator[Plan]:
        found = sorted(path for path in self.plan_dir.glob("*.json") if not path.name.startswith("."))
        for number, path in enumerate(found):
            try:
                plan = Plan.model_validate(unsealed_json(path.read_bytes()))
                if plan.number != number:
                    raise OSError(f"the plan before it, number {number}, is missing")
                yield plan
            except (OSError, ValueError) as error:
                reason = first_line(error)
                raise StoreError(f"{path} is damaged ({reason}); put it back from a backup, or embed again") from error

    def begin(self, record: StoreRecord) -> StoreRecord:
        """Write run.json, or check that the one found there is of the same encoder and columns.

        Raises:
            FingerprintMismatch: If the store is of another encoder; the message shows both.
            ConfigError: If the store carries other columns.
        """
        if not self.run_path.exists():
            write_sealed_json(self.run_path, record.model_dump(mode="json"))
            return record
        found = self.read_run()
        self.check_fingerprint(record.encoder, found)
        if found.columns != record.columns:
            raise ConfigError(
                f"the store {self.root} carries the columns {_described(found.columns)}, this source would bring "
                f"{_described(record.columns)}; give the same --columns, of the same types"
            )
        return found

    def add_plan(
        self, record: StoreRecord, source: Source, shards: Iterable[tuple[Shard, list[ImageEntry] | None]]
    ) -> StoreRecord:
        """Write a plan down, all of it or nothing.

        Args:
            record: The run so far.
            source: Where the images come from.
            shards: Each with its images, or None where a file holds them. Consumed once, kept as little as possible.

        Returns:
            The record with the new plan.
        """
        plan = Plan(number=len(record.plans), source=source, shards=())
        planned: list[Shard] = []

        def write(temporary: Path) -> None:
            with EntryWriter(temporary) as writer:
                for shard, entries in shards:
                    planned.append(shard)
                    writer.write(entries)

        if plan.has_entries:
            write_atomically(self.entries_path(plan), write)
            plan = plan.model_copy(update={"entries_sha256": sha256_of(self.entries_path(plan))})
        else:
            planned = [shard for shard, _ in shards]
        plan = plan.model_copy(update={"shards": tuple(planned)})
        self.write_plan(plan)
        return record.model_copy(update={"plans": (*record.plans, plan)})

    def write_plan(self, plan: Plan) -> None:
        """Write a plan's shards."""
        write_sealed_json(self.plan_dir / f"{plan.number:05d}.json", plan.model_dump(mode="json"))

    def entries_of(self, plan: Plan, shard: Shard | None = None) -> Iterator[ImageEntry]:
        """The listed images of one shard of a plan, or of all.

        Raises:
            StoreError: If the list is missing or damaged.
        """
        first = plan.shards[0].ordinal
        groups = range(len(plan.shards)) if shard is None else [shard.ordinal - first]
        return read_entries(self.entries_path(plan), groups)

    def entries_path(self, plan: Plan) -> Path:
        """Parquet file of a plan's images."""
        return self.plan_dir / f"{plan.number:05d}.parquet"

    def check_fingerprint(self, spec: EncoderSpec, found: StoreRecord) -> None:
        """Refuse an encoder that is not the store's own.

        Raises:
            FingerprintMismatch: With both encoders named.
        """
        if found.fingerprint != spec.fingerprint:
            raise FingerprintMismatch(
                f"the store {self.root} holds embeddings of {found.encoder.describe()}, asked for "
                f"{spec.describe()}; choose another --out or the same model, policy and precision"
            )

    def commit_shard(self, table: pa.Table, stats: dict[str, Any]) -> CommitMarker:
        """Write a shard's part, then its marker.

        Args:
            table: The rows, see `schema.part_table`.
            stats: All fields of `CommitMarker` but `sha256` and `num_bytes`.
        """
        path = self.part_path(stats["ordinal"], stats.get("compaction", 0))
        if path.exists():  # of a slower worker, say: no marker shall ever speak of another part than its own
            self.stats_path(stats["ordinal"]).unlink(missing_ok=True)
        write_atomically(path, lambda temporary: write_part(temporary, table))
        done = CommitMarker(**stats, sha256=sha256_of(path), num_bytes=path.stat().st_size)
        write_sealed_json(self.stats_path(done.ordinal), done.model_dump(mode="json"))
        return done

    def committed(self, record: StoreRecord) -> dict[int, CommitMarker]:
        """Stats of every committed shard of the plans, by ordinal.

        A marker counts only if it speaks of this plan and encoder and its part has the size it names.
        """
        found = {}
        for shard in record.shards:
            stats = self._marker(shard)
            if stats and (stats.shard_id, stats.fingerprint) == (shard.shard_id, record.fingerprint):
                found[shard.ordinal] = stats
        return found

    def _marker(self, shard: Shard) -> CommitMarker | None:
        try:
            stats = self.read_stats(shard.ordinal)
            return stats if self.part_of(stats).stat().st_size == stats.num_bytes else None
        except (FileNotFoundError, ValueError):
            return None

    def read_stats(self, ordinal: int) -> CommitMarker:
        """A commit marker as it stands, whatever it speaks of.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged.
        """
        return CommitMarker.model_validate(unsealed_json(self.stats_path(ordinal).read_bytes()))

    def sweep(self) -> None:
        """Remove what writers that were killed left half-written; nobody else may be writing."""
        for folder in (self.root, self.plan_dir, self.embeddings_dir):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)

    def require_finished(self, record: StoreRecord, partial: bool) -> dict[int, CommitMarker]:
        """Committed shards, all of them unless `partial`.

        Raises:
            UnfinishedStore: With the counts, if shards are missing; or if there is none at all.
        """
        committed = self.committed(record)
        missing = len(record.shards) - len(committed)
        if not committed or (missing and not partial):
            done = sum(stats.num_images for stats in committed.values())
            advice = "run the same embed command again to finish it"
            if committed:
                advice += ", or pass --partial"
            total = "an unknown number of" if record.num_images is None else record.num_images
            raise UnfinishedStore(
                f"the store {self.root} is unfinished: {len(committed)} of {len(record.shards)} shards, "
                f"{done} of {total} images; {advice}"
            )
        return committed


def _is_ours(name: str) -> bool:
    # what a job that died before its run.json can have left behind
    return name in ("embeddings", "plan", "lock.json", "events.jsonl") or (
        name.startswith(".") and name.endswith(".tmp")
    )


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items()) or "(none)"
