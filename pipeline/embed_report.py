"""What a run of `clipsieve embed` did: the report, and its record in `stats.json`."""

from dataclasses import dataclass
from typing import Any

from pipeline.durable.seal import write_sealed_json
from pipeline.monitor.bottleneck import summarize
from pipeline.monitor.events import Reporting
from pipeline.monitor.meter import sum_failed
from pipeline.monitor.progress import Progress
from pipeline.source.left_out import Kind, LeftOut
from pipeline.source.listing import Listing
from pipeline.store.layout import Store
from pipeline.store.records import CommitMarker, StoreRecord
from pipeline.store.view import StoreView
from pipeline.workers.messages import WorkerReport


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    """What a run did. `num_embedded` counts the images of this run; the other counts cover the whole store."""

    view: StoreView
    """The store after the run."""

    left_out: LeftOut
    """What the source holds that became no row: found while listing, and in the files of the store's shards."""

    summary: dict[str, Any]
    """Where this run's time went; see `bottleneck.summarize`."""

    start_s: float
    device: str
    warnings: list[str]

    @property
    def store(self) -> Store:
        """The store."""
        return self.view.store

    @property
    def record(self) -> StoreRecord:
        """The store's record."""
        return self.view.record

    @property
    def markers(self) -> list[CommitMarker]:
        """The store's commit markers."""
        return list(self.view.committed.values())

    @property
    def num_images(self) -> int:
        """Number of rows, including failed ones."""
        return sum(marker.num_images for marker in self.markers)

    @property
    def num_ok(self) -> int:
        """Number of rows with an embedding."""
        return sum(marker.num_ok for marker in self.markers)

    @property
    def failed(self) -> dict[str, int]:
        """Number of rows without an embedding, by status."""
        return sum_failed(self.markers)

    @property
    def num_ignored_files(self) -> int:
        """Number of files without an image suffix."""
        return self.left_out.counts.get(Kind.OTHER_SUFFIX, 0)

    @property
    def num_embedded(self) -> int:
        """Number of images that this run embedded."""
        return self.summary["num_images"]

    @property
    def images_per_second_end_to_end(self) -> float | None:
        """Rate from the first shard handed out to the last one committed. Ray and model start-up are not counted."""
        return self.summary["images_per_second"]["end_to_end"] if self.num_embedded else None


def left_out_of(listing: Listing, view: StoreView) -> LeftOut:
    """What the listing left out, and what the files of the store's committed shards hold that became no row."""
    left_out = LeftOut()
    for part in (listing, *view.committed.values()):
        left_out.add_all(part.left_out)
    return left_out


def summary_of(progress: Progress, view: StoreView, resources: dict[str, int], elapsed_s: float) -> dict[str, Any]:
    """Where the time of a run went. `resources` are the `cpus` and `gpus` of the cluster."""
    has_policy = view.record.encoder.policy is not None
    return summarize(
        progress.finished, elapsed_s, progress.num_workers, resources["cpus"], resources["gpus"], has_policy
    )


def warnings_of(loaded: WorkerReport, progress: Progress, canary_floor: float) -> list[str]:
    """What the user should know: about the model that was loaded, and about shards that pruning changed too much."""
    warnings = [loaded.warning] if loaded.warning else []
    low = [marker for marker in progress.finished if marker.canary and marker.canary["median"] < canary_floor]
    if low:
        worst = min(low, key=lambda marker: marker.canary["median"])
        warnings.append(
            f"the median cosine between pruned and unpruned embeddings is below {canary_floor} in {len(low)} shards, "
            f"lowest in shard {worst.ordinal} ({worst.canary['median']:.3f}); check its images, or use a milder policy"
        )
    return warnings


def write_report(report: EmbedReport, reporting: Reporting) -> None:
    """Write `stats.json`, and log the end of the run. A run that embedded nothing leaves them as they are.

    Raises:
        StoreError: If the store cannot be written.
    """
    if not report.num_embedded:
        return
    for warning in report.warnings:
        reporting.event("warning", text=warning)
    totals = {
        "num_images": report.num_images,
        "num_ok": report.num_ok,
        "failed": report.failed,
        "left_out": report.left_out.model_dump(),
    }
    last_run = {**report.summary, "start_s": report.start_s, "device": report.device, "warnings": report.warnings}
    write_sealed_json(report.store.summary_path, {"store": totals, "last_run": last_run})
    reporting.event("run_finished", num_images=report.num_embedded, elapsed_s=round(report.summary["elapsed_s"], 3))
