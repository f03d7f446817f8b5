"""The meter of a run: turns progress from the workers into ticks, and stops a run with too many failures."""

import time
from collections import Counter
from collections.abc import Callable

from pipeline.errors import InputError
from pipeline.monitor.progress import Progress, Tick
from pipeline.store.view import StoreView

FEW_IMAGES = 1000
"""While a run is active, the fraction of failures is taken of at least this many images."""


class Meter:
    """Turns progress into ticks, and stops a run if too many images fail. Counts images, not shards."""

    def __init__(self, view: StoreView, on_tick: Callable[[Tick], None], max_bad_fraction: float | None) -> None:
        """Start the clock. `view` is the store before the run."""
        self._before = view.counts
        num_rows = sum(marker.num_images + marker.num_removed for marker in view.committed.values())
        self._num_before = num_rows - view.num_passed_over
        self._num_total = view.num_planned
        self._on_tick = on_tick
        self._max_bad_fraction = max_bad_fraction
        self.started = time.perf_counter()

    def __call__(self, progress: Progress) -> None:
        """Report progress as a tick. Raises InputError if too many images failed."""
        num_done, _, num_failed = self._counts(progress)
        rate = (num_done - self._num_before) / (time.perf_counter() - self.started)
        self._on_tick(Tick(num_done, self._num_total, num_failed, rate))
        self.check_failures(progress)

    def check_failures(self, progress: Progress, is_over: bool = False) -> None:
        """Raise InputError if too many images failed."""
        if self._max_bad_fraction is None:
            return
        num_done, failed, num_failed = self._counts(progress)
        if num_failed > self._max_bad_fraction * (num_done if is_over else max(num_done, FEW_IMAGES)):
            kinds = ", ".join(f"{count} {status}" for status, count in failed.items()) or "in uncommitted shards"
            raise InputError(
                f"{num_failed} of {num_done} images failed ({kinds}), more than --max-bad-fraction "
                f"{self._max_bad_fraction}; see the error column of the failed rows. Committed shards are kept"
            )

    def _counts(self, progress: Progress) -> tuple[int, dict[str, int], int]:
        """Images done so far in the store, failed ones by status in committed shards, and failed ones in total."""
        num_done = self._num_before + progress.num_under_way + sum(marker.num_images for marker in progress.finished)
        failed = Counter(self._before.failed)
        for marker in progress.finished:
            failed.update(marker.failed)
        return num_done, failed, sum(failed.values()) + progress.num_failed_under_way
