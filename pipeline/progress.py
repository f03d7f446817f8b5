"""The one progress line of a run. Home of `rich` in the pipeline."""

from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("images - {task.fields[rate]:.1f} images/s - {task.fields[failed]} failed -"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not enabled,
        )
        self._task = self._progress.add_task(title, total=None, rate=0.0, failed=0)

    def __enter__(self) -> "ProgressLine":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, tick: Tick) -> None:
        """Show a new state."""
        self._progress.update(
            self._task,
            completed=tick.num_done,
            total=tick.num_total,
            rate=tick.images_per_second,
            failed=tick.num_failed,
        )
