"""`clipsieve verify`: prove that a store is whole, or report what is wrong with it."""

import re
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.durable.seal import sha256_of, unsealed_json
from pipeline.errors import StoreError, first_line
from pipeline.model.spec import spec_metadata
from pipeline.monitor.progress import Tick
from pipeline.planning.shards import listing_hash
from pipeline.settings.store import VerifySettings
from pipeline.source.entry import ImageEntry
from pipeline.store.calibration import calibration_fault
from pipeline.store.commit_markers import read_marker
from pipeline.store.faults import faults_of
from pipeline.store.layout import Store
from pipeline.store.parts import read_part
from pipeline.store.records import CommitMarker, Plan, Shard, StoreRecord
from pipeline.store.tombstones import read_tombstones, tombstones_between
from pipeline.store.view import StoreView

if TYPE_CHECKING:
    from pipeline.resample import Resample

_DELETE = "delete it (and its commit marker, if it is a part), then "
_BACKUP = "restore it from a backup, or import or embed again"
_NAMED = 5
_PART = re.compile(r"part-(\d+)(\.c\d+)?\.parquet")


@dataclass
class VerifyReport:
    """What a store holds. Each of the `findings` says what is wrong, where, and what to do.

    `num_images` counts rows, each image once (see `Counts`), `num_removed` the rows that compaction removed,
    `num_bytes` the size of the parts. `leftovers` are files that no reader uses. Shards that are not whole are not
    counted.
    """

    store: str
    num_shards: int = 0
    num_whole: int = 0
    num_images: int = 0
    num_ok: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    num_removed: int = 0
    num_tombstones: int = 0
    num_bytes: int = 0
    findings: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    resample: "Resample | None" = None

    def add_finding(self, where: Path, what: str, advice: str) -> None:
        """Add a finding."""
        self.findings.append(f"{where}: {what}; {advice}")

    def count(self, marker: CommitMarker) -> None:
        """Add a whole shard."""
        self.num_whole += 1
        self.num_images += marker.num_images
        self.num_ok += marker.num_ok
        self.num_removed += marker.num_removed
        self.num_bytes += marker.num_bytes
        for status, count in marker.failed.items():
            self.failed[status] = self.failed.get(status, 0) + count


def verify(settings: VerifySettings, on_tick: Callable[[str, Tick], None] = lambda name, tick: None) -> VerifyReport:
    """Check every byte of a store except its event log, its lock and its index. Changes nothing and takes no lock.

    Memory holds one part at a time, plus 8 bytes per row of the store.

    Args:
        settings: Which store to check, and how many rows to embed again.
        on_tick: Called with the name of a step and its progress: after each shard, and after each row embedded again.

    Raises:
        StoreError: If there is no store, or rows of imported embeddings are to be embedded again.
        InputError: If rows must be embedded again and the model cannot be loaded.
    """
    store = Store(settings.store)
    report = VerifyReport(str(store.root))
    try:
        record = store.read_record()
    except StoreError as error:
        if not store.record_path.exists():
            raise
        report.findings.append(str(error))
        return report
    _refuse_resample_of_imports(settings, record)
    _check_records(store, record, report)
    report.findings += filter(None, [calibration_fault(store.calibration_path, record.encoder)])
    deleted = _read_deleted(store, record, report)
    markers = _read_markers(store, record, report)
    whole: dict[int, CommitMarker] = {}
    hashes = array("q")  # grows in place
    started = time.perf_counter()
    for shard, entries in _planned(store, record, report):
        marker = markers.get(shard.ordinal)
        table = _read_whole(store, record, marker, report) if marker else None
        if table is None:
            continue
        ids = None if deleted is None else tombstones_between(deleted, shard.ids)
        faults = list(faults_of(table, record, shard, marker, entries=entries, deleted=ids))
        for fault in faults:
            report.add_finding(store.part_of(marker), fault, _DELETE + record.same_command)
        if not faults:
            whole[shard.ordinal] = marker
            report.count(marker)
            hashes.extend(hash(key) for _, key in _live_rows(table, ids))
        rate = report.num_images / (time.perf_counter() - started)
        num_done, num_failed = report.num_images + report.num_removed, sum(report.failed.values())
        on_tick("verify", Tick(num_done, record.num_images, num_failed, rate))
    view = StoreView(store, record, whole)
    if deleted is not None:
        report.num_images, report.num_ok = view.counts.num_images, view.counts.num_ok
        report.failed = view.counts.failed
    if deleted is not None and len(hashes):
        _check_keys(view, deleted, hashes, report)
    _check_names(store, record, markers, report)
    if settings.resample and whole:
        from pipeline.resample import resample

        report.resample = resample(view, settings.resample, settings.seed, settings.device, on_tick)
        report.findings += report.resample.findings
    return report


def _refuse_resample_of_imports(settings: VerifySettings, record: StoreRecord) -> None:
    if settings.resample and record.is_imported:
        raise StoreError(f"the store {settings.store} holds imported embeddings, not images; verify without --resample")


def _check_records(store: Store, record: StoreRecord, report: VerifyReport) -> None:
    report.num_shards = len(record.shards)
    planned = [shard for plan in record.plans for shard in plan.shards]
    if not planned:
        report.add_finding(store.plan_dir, "no images are planned", record.same_command)
    for number, shard in enumerate(planned):
        if shard.ordinal != number:
            report.add_finding(store.plan_dir, f"shard {number} has ordinal {shard.ordinal}", _BACKUP)
    for one, other in pairwise(planned):
        if one.ids.stop > other.first_id:
            report.add_finding(store.plan_dir, f"shards {one.ordinal} and {other.ordinal} share ids", _BACKUP)
    written = record.model_dump(mode="json")
    for name, value in spec_metadata(record.encoder).items():
        if name != "encoder" and written[name] != value:
            report.add_finding(store.record_path, f"its {name} does not match its encoder", _BACKUP)
    summary = store.summary_path
    try:
        unsealed_json(summary.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        report.add_finding(
            summary, f"it is damaged ({error})", "delete it; nothing reads it, and the next embed run rewrites it"
        )


def _read_deleted(store: Store, record: StoreRecord, report: VerifyReport) -> np.ndarray | None:
    try:
        deleted = read_tombstones(store)
    except StoreError as error:
        report.findings.append(str(error))
        return None
    report.num_tombstones = len(deleted)
    planned = [shard for plan in record.plans for shard in plan.shards]
    num_known = sum(len(tombstones_between(deleted, shard.ids)) for shard in planned)
    if num_known != len(deleted):
        what = f"{len(deleted) - num_known} of its ids belong to no shard"
        report.add_finding(store.root / "tombstones.parquet", what, "a plan is missing: restore it from a backup")
    return deleted


def _planned(
    store: Store, record: StoreRecord, report: VerifyReport
) -> Iterator[tuple[Shard, Sequence[ImageEntry] | None]]:
    """Yield every shard that is not dropped, with its images if the plan lists them."""
    for plan in record.plans:
        listed = _listed(store, plan, report) if plan.has_entries else (None for _ in plan.shards)
        pairs = zip(plan.shards, listed, strict=False)
        yield from ((shard, entries) for shard, entries in pairs if not shard.is_dropped)


def _listed(store: Store, plan: Plan, report: VerifyReport) -> Iterator[Sequence[ImageEntry] | None]:
    path = store.entries_path(plan)
    try:
        if sha256_of(path) != plan.entries_sha256:
            raise StoreError(f"{path}: its hash does not match its plan; {_BACKUP}")
        entries = store.entries_of(plan)
        for shard in plan.shards:
            members = list(islice(entries, shard.room))
            if listing_hash(members) != shard.shard_id:
                raise StoreError(f"{path}: its images of shard {shard.ordinal} do not match the plan; {_BACKUP}")
            yield members
    except OSError as error:
        report.add_finding(path, f"it cannot be read ({error.strerror})", _BACKUP)
    except StoreError as error:
        report.findings.append(str(error))
    else:
        return
    while True:
        yield None


def _read_markers(store: Store, record: StoreRecord, report: VerifyReport) -> dict[int, CommitMarker]:
    """The valid commit markers, by ordinal. The others become findings."""
    markers, missing = {}, []
    for shard in record.shards:
        path = store.marker_path(shard.ordinal)
        try:
            marker = read_marker(store, shard.ordinal)
        except FileNotFoundError:
            missing.append(shard.ordinal)
            continue
        except (OSError, ValueError) as error:
            reason = first_line(error)
            what = f"it is damaged ({reason}), so its shard does not count"
            report.add_finding(path, what, _DELETE + record.same_command)
            continue
        if (marker.ordinal, marker.shard_id, marker.fingerprint) == (shard.ordinal, shard.shard_id, record.fingerprint):
            markers[shard.ordinal] = marker
        else:
            report.add_finding(path, "it belongs to another shard or another encoder", _DELETE + record.same_command)
    if missing:
        what = f"unfinished: {len(missing)} of {report.num_shards} shards are not embedded, first {missing[0]}"
        report.add_finding(store.root, what, record.same_command)
    return markers


def _read_whole(store: Store, record: StoreRecord, marker: CommitMarker, report: VerifyReport) -> pa.Table | None:
    path = store.part_of(marker)
    try:
        if path.stat().st_size == marker.num_bytes and sha256_of(path) == marker.sha256:
            table = read_part(path)
            table.validate(full=True)
            return table
        report.add_finding(path, "its size or hash does not match its commit marker", _DELETE + record.same_command)
    except (OSError, pa.ArrowException, StoreError) as error:
        report.add_finding(path, f"it cannot be read ({first_line(error)})", _DELETE + record.same_command)
    return None


def _live_rows(table: pa.Table, deleted: np.ndarray | None) -> Iterator[tuple[int, str]]:
    """Ids and keys of the rows without a tombstone."""
    ids, is_deleted = table["id"].to_numpy(), set()
    if deleted is not None and len(ids):
        is_deleted = set(tombstones_between(deleted, range(ids.min(), ids.max() + 1)).tolist())
    pairs = zip(ids.tolist(), table["key"].to_pylist(), strict=True)
    return ((number, key) for number, key in pairs if number not in is_deleted)


def _check_keys(view: StoreView, deleted: np.ndarray, hashes: array, report: VerifyReport) -> None:
    sorted_hashes = np.frombuffer(hashes, np.int64)
    sorted_hashes.sort()
    repeated = np.unique(sorted_hashes[1:][np.diff(sorted_hashes) == 0])
    if not len(repeated):
        return
    wanted = set(repeated[:_NAMED].tolist())
    rows: dict[str, list[int]] = {}
    for _, table in view.parts(["id", "key"]):
        for number, key in _live_rows(table, deleted):
            if hash(key) in wanted:
                rows.setdefault(key, []).append(number)
    named = [f"{key!r} (ids {', '.join(map(str, ids[:_NAMED]))})" for key, ids in rows.items() if len(ids) > 1]
    if named:  # otherwise two keys share a hash
        what = f"{len(repeated)} keys name more than one image: {'; '.join(named)}"
        report.add_finding(
            view.store.embeddings_dir, what, "embed one of the sources again with --key-prefix or --key-column"
        )


def _check_names(store: Store, record: StoreRecord, markers: Mapping[int, CommitMarker], report: VerifyReport) -> None:
    """Look for files that do not belong to the store."""
    ordinals = {shard.ordinal for plan in record.plans for shard in plan.shards}  # including dropped shards
    known = {store.part_of(marker).name for marker in markers.values()}
    known |= {store.marker_path(ordinal).name for ordinal in ordinals}
    known |= {f"{plan.number:05d}.json" for plan in record.plans}
    known |= {store.entries_path(plan).name for plan in record.plans if plan.has_entries}
    for path in sorted([*store.root.glob(".*.tmp"), *store.plan_dir.glob("*"), *store.embeddings_dir.glob("*")]):
        if path.name in known:
            continue
        part = _PART.fullmatch(path.name)
        is_temporary = path.name.startswith(".") and path.suffix == ".tmp"
        # a killed job can leave a list whose plan was not written, or a part that no marker names
        if is_temporary or path.name == f"{len(record.plans):05d}.parquet" or (part and int(part[1]) in ordinals):
            report.leftovers.append(str(path))
        else:
            report.add_finding(
                path, "no plan mentions it", "restore the plan if one is missing, otherwise move the file away"
            )
