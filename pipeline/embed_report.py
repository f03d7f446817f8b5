"""What a run of `clipsieve embed` did: the report, and its record in `stats.json`."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.durable.seal import unsealed_json, write_sealed_json
from pipeline.errors import InputError
from pipeline.model.spec import local_files
from pipeline.monitor.bottleneck import summarize
from pipeline.monitor.events import Reporting
from pipeline.monitor.progress import Progress
from pipeline.planning.changes import Changes
from pipeline.planning.planned import current_markers
from pipeline.planning.tars import check_tars
from pipeline.settings.embed import EmbedSettings
from pipeline.source.entry import Status
from pipeline.source.left_out import Kind, LeftOut
from pipeline.source.listing import Listing
from pipeline.store.layout import Store
from pipeline.store.records import StoreRecord
from pipeline.store.view import Counts, StoreView
from pipeline.workers.messages import WorkerReport


@dataclass(frozen=True, slots=True)
class Run:
    """What the workers did. `resources` are the `cpus` and `gpus` of the cluster.

    `model_files` were there before the model was loaded; see `local_files`.
    """

    progress: Progress
    loaded: WorkerReport
    resources: dict[str, int]
    model_files: dict[str, list[int]] | None
    start_s: float
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    """What a run did. `num_embedded` and `retried` count the images of this run; the other counts cover the store."""

    view: StoreView
    """The store after the run."""

    listing: Listing
    """This run's source."""

    left_out: LeftOut
    """What the source holds that became no row: found while listing, and in the files of the store's shards."""

    of_source: Counts
    """The images of this run's source alone."""

    num_gone: int
    """Number of embedded images that this run's source no longer has."""

    first_gone: str
    """The first of them, or their file; empty if there is none."""

    model_files: dict[str, list[int]] | None
    """The files that the model was loaded from; see `local_files`."""

    retried: dict[str, int] = field(default_factory=dict)
    """Number of images that were tried again, by their new status."""

    summary: dict[str, Any] = field(default_factory=lambda: summarize((), 0.0, 0, 0, 0, False))
    """Where this run's time went; see `bottleneck.summarize`."""

    start_s: float = 0.0
    device: str | None = None
    """None if there was nothing to do, so that no worker was started."""

    precision: str | None = None
    """The precision that was measured to be fastest, and the speeds of all; None if nothing was measured."""

    calibration: str | None = None
    """What it took to calibrate int8; None if this run did not."""

    warnings: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, view: StoreView, listing: Listing, changes: Changes, settings: EmbedSettings, run: Run | None = None
    ) -> "EmbedReport":
        """The report of a run, or of none because there was nothing to do. `view` is the store before the run."""
        if run is None:
            known: dict[str, Any] = {"model_files": local_files(settings.model_source())}
        else:
            view = StoreView(view.store, view.record, view.committed | {m.ordinal: m for m in run.progress.finished})
            known = {
                "retried": _retried(run.progress, view.record),
                "summary": _summary(run, view.record),
                "start_s": run.start_s,
                "device": run.loaded.device,
                "precision": run.loaded.measurement.describe() if run.loaded.measurement else None,
                "calibration": run.loaded.calibrating.describe() if run.loaded.calibrating else None,
                "warnings": _warnings(run, settings.canary_floor),
                "model_files": run.model_files,
            }
        return cls(
            view=view,
            listing=listing,
            left_out=_left_out(listing, view),
            of_source=_of_source(listing, view),
            num_gone=changes.differences.num_gone,
            first_gone=changes.differences.first_gone,
            **known,
        )

    @property
    def store(self) -> Store:
        """The store."""
        return self.view.store

    @property
    def record(self) -> StoreRecord:
        """The store's record."""
        return self.view.record

    @property
    def num_images(self) -> int:
        """Number of rows, including failed ones. Each image counts once, here and below."""
        return self.view.counts.num_images

    @property
    def num_ok(self) -> int:
        """Number of rows with an embedding."""
        return self.view.counts.num_ok

    @property
    def failed(self) -> dict[str, int]:
        """Number of rows without an embedding, by status."""
        return self.view.counts.failed

    @property
    def num_ignored_files(self) -> int:
        """Number of files without an image suffix."""
        return self.left_out.counts.get(Kind.OTHER_SUFFIX, 0)

    @property
    def num_embedded(self) -> int:
        """Number of images that this run embedded, including failed ones."""
        return self.summary["num_images"]

    @property
    def images_per_second_end_to_end(self) -> float | None:
        """Rate from the first shard handed out to the last one committed. Ray and model start-up are not counted."""
        return self.summary["images_per_second"]["end_to_end"] if self.num_embedded else None

    def refuse_bad_source(self) -> None:
        """Refuse a source that is of no use as a whole. Called after the report is shown.

        Raises:
            InputError: If its tars hold no image, or lack a column that was named; if it has images, and none of them
                has an embedding.
        """
        check_tars(self.view, self.listing)
        failed = self.of_source.failed
        if failed and not self.of_source.num_ok:
            kinds = ", ".join(f"{count} {status}" for status, count in failed.items())
            raise InputError(
                f"every image of this source failed ({kinds}); the error column of their rows in {self.store.root} "
                "says why: correct the source, then run the same command with --retry failed"
            )


def write_report(report: EmbedReport, reporting: Reporting | None = None) -> EmbedReport:
    """Write `stats.json`, and log the end of a run. If nothing was embedded, the cost of the last run stays.

    Returns:
        The report.

    Raises:
        StoreError: If the store cannot be written.
    """
    before = read_summary(report.store)
    summary = {
        "store": {
            "num_images": report.num_images,
            "num_ok": report.num_ok,
            "failed": report.failed,
            "left_out": report.left_out.model_dump(),
        },
        "gone": {"num_images": report.num_gone, "first": report.first_gone},
        "last_run": before.get("last_run"),
        "model_files": report.model_files,
    }
    if report.num_embedded:
        summary["last_run"] = {
            **report.summary,
            "retried": report.retried,
            "start_s": report.start_s,
            "device": report.device,
            "precision": report.precision,
            "warnings": report.warnings,
        }
    if summary != before:
        write_sealed_json(report.store.summary_path, summary)
    if reporting and report.num_embedded:
        for warning in report.warnings:
            reporting.event("warning", text=warning)
        reporting.event("run_finished", num_images=report.num_embedded, elapsed_s=round(report.summary["elapsed_s"], 3))
    return report


def read_summary(store: Store) -> dict[str, Any]:
    """Read `stats.json`; empty if it is missing or damaged, because the next run writes it again."""
    try:
        return unsealed_json(store.summary_path.read_bytes())
    except (OSError, ValueError, KeyError):
        return {}


def _left_out(listing: Listing, view: StoreView) -> LeftOut:
    left_out = LeftOut()
    for part in (listing, *current_markers(view)):
        left_out.add_all(part.left_out)
    return left_out


def _of_source(listing: Listing, view: StoreView) -> Counts:
    plans = [plan for plan in view.record.plans if plan.source.identity == listing.source.identity]
    return view.count([shard for plan in plans for shard in plan.shards if not shard.is_dropped])


def _retried(progress: Progress, record: StoreRecord) -> dict[str, int]:
    ordinals = {shard.ordinal for plan in record.plans if plan.retried for shard in plan.shards}
    found: Counter[str] = Counter()
    for marker in progress.finished:
        if marker.ordinal in ordinals:
            found.update({Status.OK: marker.num_ok, **marker.failed})
    return {str(status): count for status, count in found.items() if count}


def _summary(run: Run, record: StoreRecord) -> dict[str, Any]:
    num_workers, has_policy = run.progress.num_workers, record.encoder.policy is not None
    cpus, gpus = run.resources["cpus"], run.resources["gpus"]
    return summarize(run.progress.finished, run.elapsed_s, num_workers, cpus, gpus, has_policy)


def _warnings(run: Run, canary_floor: float) -> list[str]:
    calibrating = run.loaded.calibrating
    warnings = [text for text in (run.loaded.warning, calibrating and calibrating.warning) if text]
    low = [m for m in run.progress.finished if m.canary and m.canary["median"] < canary_floor]
    if low:
        worst = min(low, key=lambda marker: marker.canary["median"])
        warnings.append(
            f"the median cosine between pruned and unpruned embeddings is below {canary_floor} in {len(low)} "
            f"shards, lowest in shard {worst.ordinal} ({worst.canary['median']:.3f}); check its images, or use a "
            "milder policy"
        )
    return warnings
