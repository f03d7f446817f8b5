"""The one progress line of a run. Home of `rich` in the pipeline."""

from dataclasses import dataclass, field

from rich import progress as bars
from rich.console import Console

from pipeline.store.records import CommitMarker


@dataclass(frozen=True, slots=True)
class Tick:
    """State of a run: images counted over committed and active shards."""

    num_done: int
    num_total: int | None
    """None while tars are not counted yet."""
    num_failed: int
    images_per_second: float


class ProgressLine:
    """Images done and total, images per second, failures and time left, refreshed in place on standard error."""

    def __init__(self, title: str, enabled: bool = True) -> None:
        """Create a line. It is shown only inside the `with` block, and only if `enabled`."""
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
        """Show a new tick."""
        self._bar.update(
            self._task,
            completed=tick.num_done,
            total=tick.num_total,
            rate=tick.images_per_second,
            failed=tick.num_failed,
        )


@dataclass
class Progress:
    """Progress of a run: images done and failed in active shards, and finished shards."""

    num_workers: int = 0
    """Maximum number of workers that were busy at the same time."""

    num_under_way: int = 0
    num_failed_under_way: int = 0
    finished: list[CommitMarker] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)
    """Shards whose source cannot be read: the reasons, by ordinal."""
