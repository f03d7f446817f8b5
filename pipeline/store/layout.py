"""A store on disk: the paths of its files, its record and its plans. No torch, no Ray.

    STORE/calibration.safetensors           in int8, how activations are rounded; written once, before run.json
    STORE/run.json                          the encoder and the units of work; written once, before any part
    STORE/plan/00000.parquet                images of a listing, one row group per shard; not of tars and Parquet
    STORE/plan/00000.json                   shards of that listing; written after it, before any of their parts
    STORE/embeddings/part-00000.parquet     the rows of one shard
    STORE/embeddings/part-00000.stats.json  commit marker of that shard; written last
    STORE/tombstones.parquet                ids of deleted, replaced and missing rows (see `tombstones`)
    STORE/stats.json, events.jsonl          summary of the last run, and the event log of all runs
    STORE/index/                            written by `indexer`
    STORE/lock.json                         owner and heartbeat of the running job (see `lock`)

Readers ignore a part without its commit marker, and a list of images without its plan. Everything except the event
log, the lock and the index is protected by a hash: JSON files and tombstones are sealed (see `seal`), a commit marker
has the hash of its part, a plan has the hash of its list, and the encoder has that of the calibration.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.durable.atomic import write_atomically
from pipeline.durable.seal import sha256_of, unsealed_json, write_sealed_json
from pipeline.errors import ConfigError, FingerprintMismatch, StoreError, first_line
from pipeline.model.spec import ClaimedSpec, EncoderSpec
from pipeline.source.entry import ImageEntry, Source
from pipeline.source.formats.text import TEXT_RULES
from pipeline.store.calibration import write_calibration
from pipeline.store.lists import EntryWriter, read_entries
from pipeline.store.parts import SCHEMA_VERSION
from pipeline.store.records import CommitMarker, Plan, Shard, StoreRecord


class Store:
    """Paths, record and plans of one store."""

    def __init__(self, root: Path) -> None:
        """Refer to a store at `root`. Nothing is read or created."""
        self.root = root.absolute()
        self.record_path = self.root / "run.json"
        self.calibration_path = self.root / "calibration.safetensors"
        self.summary_path = self.root / "stats.json"
        self.events_path = self.root / "events.jsonl"
        self.plan_dir = self.root / "plan"
        self.embeddings_dir = self.root / "embeddings"
        self.index_dir = self.root / "index"

    def part_path(self, ordinal: int, compaction: int = 0) -> Path:
        """Parquet file of a shard, as first written or after some number of compactions."""
        generation = f".c{compaction}" if compaction else ""
        return self.embeddings_dir / f"part-{ordinal:05d}{generation}.parquet"

    def part_of(self, marker: CommitMarker) -> Path:
        """Parquet file that a commit marker names."""
        return self.part_path(marker.ordinal, marker.compaction)

    def marker_path(self, ordinal: int) -> Path:
        """Commit marker of a shard."""
        return self.embeddings_dir / f"part-{ordinal:05d}.stats.json"

    def create_folders(self) -> None:
        """Create the store's folders.

        Raises:
            StoreError: If the location cannot be written, or contains something that is not a store.
        """
        try:
            if self.root.is_dir() and not self.record_path.exists():
                strangers = [path.name for path in self.root.iterdir() if not _is_ours(path.name)]
                if strangers:
                    raise StoreError(
                        f"{self.root} is not a store and not empty (it contains {sorted(strangers)[0]!r}); "
                        "choose a new or empty folder for --out"
                    )
            self.embeddings_dir.mkdir(parents=True, exist_ok=True)
            self.plan_dir.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write the store {self.root}: {error.strerror}; choose another --out") from error

    def read_record(self) -> StoreRecord:
        """Read run.json.

        Raises:
            StoreError: If there is no store here, or its record is damaged or has another schema version.
        """
        try:
            data = self.record_path.read_bytes()
        except FileNotFoundError:
            raise StoreError(
                f"no store at {self.root}: run.json is missing; create one with `clipsieve embed` or `clipsieve import`"
            ) from None
        except OSError as error:
            raise StoreError(f"cannot read {self.record_path}: {error.strerror}; check its permissions") from error
        try:
            version = json.loads(data).get("schema_version")
            if version != SCHEMA_VERSION:
                raise StoreError(
                    f"{self.record_path} has schema version {version}, but this version of clipsieve reads "
                    f"{SCHEMA_VERSION}; use the version that wrote it, or import or embed again"
                )
            record = StoreRecord.model_validate(unsealed_json(data))
        except (ValueError, AttributeError) as error:
            reason = first_line(error)
            raise StoreError(
                f"{self.record_path} is damaged ({reason}); restore it from a backup, or import or embed again"
            ) from error
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
                raise StoreError(
                    f"{path} is damaged ({reason}); restore it from a backup, or import or embed again"
                ) from error

    def begin(self, record: StoreRecord, calibration: bytes | None = None) -> StoreRecord:
        """Write run.json, or check that the existing one has the same encoder and columns.

        Args:
            record: What run.json is to hold.
            calibration: The file that the encoder of a new store names, if it does. It is written first.

        Raises:
            FingerprintMismatch: If the store has another encoder. The message shows both.
            ConfigError: If the store carries other columns.
        """
        if not self.record_path.exists():
            # a job that died before it wrote run.json may have left another one
            self.calibration_path.unlink(missing_ok=True)
            if calibration is not None:
                write_calibration(self.calibration_path, calibration)
            write_sealed_json(self.record_path, record.model_dump(mode="json"))
            return record
        found = self.read_record()
        self.check_fingerprint(record.encoder, found)
        self.check_columns(record.columns, found)
        return found

    def add_plan(
        self,
        record: StoreRecord,
        source: Source,
        shards: Iterable[tuple[Shard, list[ImageEntry] | None]],
        retried: Sequence[str] = (),
        max_pixels: int | None = None,
    ) -> StoreRecord:
        """Write a new plan, all of it or nothing.

        Args:
            record: The store's record so far.
            source: Where the images come from.
            shards: Shards, each with its images, or None if a file holds them. Consumed once, without holding the
                images in memory.
            retried: The statuses of the failed rows that the plan tries again, if it does. It lists its images then,
                whatever the source.
            max_pixels: Limit on the pixels of its images, if it is not that of the store.

        Returns:
            The record with the new plan.
        """
        plan = Plan(
            number=len(record.plans),
            source=source,
            shards=(),
            text_rules=TEXT_RULES,
            retried=tuple(sorted(retried)),
            max_pixels=max_pixels,
        )
        planned: list[Shard] = []

        def write(temporary: Path) -> None:
            with EntryWriter(temporary, names_replaced=bool(retried)) as writer:
                for shard, entries in shards:
                    planned.append(shard)
                    writer.write(entries)

        if retried or not plan.has_files:
            write_atomically(self.entries_path(plan), write)
            plan = plan.model_copy(update={"entries_sha256": sha256_of(self.entries_path(plan))})
        else:
            planned = [shard for shard, _ in shards]
        plan = plan.model_copy(update={"shards": tuple(planned)})
        self.write_plan(plan)
        return record.model_copy(update={"plans": (*record.plans, plan)})

    def write_plan(self, plan: Plan) -> None:
        """Write a plan's JSON file."""
        write_sealed_json(self.plan_dir / f"{plan.number:05d}.json", plan.model_dump(mode="json"))

    def entries_of(self, plan: Plan, shard: Shard | None = None) -> Iterator[ImageEntry]:
        """Yield the listed images of one shard of a plan, or of all its shards.

        Raises:
            StoreError: If the list is missing or damaged.
        """
        first = plan.shards[0].ordinal
        groups = range(len(plan.shards)) if shard is None else [shard.ordinal - first]
        return read_entries(self.entries_path(plan), groups)

    def entries_path(self, plan: Plan) -> Path:
        """Parquet file that lists a plan's images."""
        return self.plan_dir / f"{plan.number:05d}.parquet"

    def check_fingerprint(self, spec: EncoderSpec | ClaimedSpec, found: StoreRecord) -> None:
        """Refuse an encoder that is not the store's own.

        Raises:
            FingerprintMismatch: If the fingerprints differ. The message shows both encoders.
        """
        if found.fingerprint != spec.fingerprint:
            raise FingerprintMismatch(
                f"the store {self.root} has embeddings from {found.encoder.describe()}, but this run would use "
                f"{spec.describe()}; choose another --out, or the same model, policy and precision"
            )

    def check_columns(self, columns: dict[str, str], found: StoreRecord) -> None:
        """Refuse carried columns that are not the store's own.

        Raises:
            ConfigError: If names or types differ. The message shows both.
        """
        if found.columns != columns:
            raise ConfigError(
                f"the store {self.root} carries the columns {_described(found.columns)}, but this source has "
                f"{_described(columns)}; pass the same --columns, with the same types"
            )

    def remove_if_empty(self) -> None:
        """Remove what a job left that stopped before it wrote run.json, unless another job is about to write it."""
        # a lock file belongs to another job that has yet to write run.json; the folders are that job's
        if not self.record_path.exists() and not (self.root / "lock.json").exists():
            with suppress(OSError):
                self.events_path.unlink(missing_ok=True)
                self.calibration_path.unlink(missing_ok=True)
                self.plan_dir.rmdir()
                self.embeddings_dir.rmdir()
                self.root.rmdir()

    def sweep(self) -> None:
        """Remove temporary files left by killed writers. No other writer may be active."""
        for folder in (self.root, self.plan_dir, self.embeddings_dir):
            for path in folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)


def _is_ours(name: str) -> bool:
    # files that a job can leave if it dies before it writes run.json
    return name in ("embeddings", "plan", "lock.json", "events.jsonl", "calibration.safetensors") or (
        name.startswith(".") and name.endswith(".tmp")
    )


def _described(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items()) or "(none)"
