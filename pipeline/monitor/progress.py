"""The one progress line of a run. Home of `rich` in the pipeline."""

from dataclasses import dataclass, field

from rich import progress as bars
from rich.console import Console

from pipeline.store.records import CommitMarker


@dataclass(frozen=True, slots=True)
class Tick:
    """Where a run stands: images, counted over committed shards and those under way."""

    num_done: int
    num_total: int | None
    """None where tars are still to be counted."""
    num_failed: int
    images_per_second: float


class ProgressLine:
    """Images done / total, images per second, failed, time left; refreshed in place, on standard error."""

    def __init__(self, title: str, enabled: bool = True) -> None:
        """Nothing is shown before the block is entered, or if not `enabled`."""
        self._bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=24),
            bars.MofNCompleteColumn(),
            bars.TextColumn("images - {task.fields[rate]:.1f} images/s - {task.fields[failed]} failed -"),
            bars.TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not enabled,
        )
        self._task = self._bar.add_task(title, total=None, rate=0.0, failed=0)

    def __enter__(self) -> "ProgressLine":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, tick: Tick) -> None:
        """Show a new state."""
        self._bar.update(
            self._task,
            completed=tick.num_done,
            total=tick.num_total,
            rate=tick.images_per_second,
            failed=tick.num_failed,
        )


@dataclass
class Progress:
    """How far a run is: images done and failed in shards under way, and what finished."""

    num_workers: int = 0
    """Most that were busy at a time."""

    num_under_way: int = 0
    num_failed_under_way: int = 0
    finished: list[CommitMarker] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)
    """Why shards were set aside, by ordinal: their source cannot be read."""
