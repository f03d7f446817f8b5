"""The one progress line of a run, on a terminal or in a log. Home of `rich` in the pipeline."""

import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TextIO

from rich import progress as bars
from rich.console import Console

from pipeline.store.records import CommitMarker

EVERY_S = 30.0
"""Seconds between two lines of a log."""


@dataclass(frozen=True, slots=True)
class Tick:
    """State of a run: images counted over committed and active shards."""

    num_done: int
    num_total: int | None
    """None while tars are not counted yet."""
    num_failed: int
    images_per_second: float
    """Or steps."""
    is_of_images: bool = True
    """If not, steps are counted: there are only parts done, their total, and the time left."""


class ProgressLine:
    """Images done and total, images per second, failures and time left, on standard error.

    On a terminal, one line is refreshed in place. Anywhere else, such as in a log file, whole lines with a time stamp
    are written: one whenever a tenth is done, and one every `EVERY_S` seconds.
    """

    def __init__(self, title: str) -> None:
        """Create a line. It is shown only inside the `with` block."""
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._form = _Bar(title) if is_terminal else _Log(title, sys.stderr)

    def __enter__(self) -> "ProgressLine":
        self._form.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._form.stop()

    def __call__(self, tick: Tick) -> None:
        """Show a new tick."""
        self._form.show(tick)


class _Bar:
    """A bar on a terminal. It appears with the first tick, so that an early error stands alone."""

    def __init__(self, title: str) -> None:
        self._bar = bars.Progress(
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(bar_width=24),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[text]}"),
            bars.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(title, total=None, text="")

    def start(self) -> None:
        pass

    def show(self, tick: Tick) -> None:
        self._bar.start()  # does nothing from the second call on
        self._bar.update(
            self._task,
            completed=tick.num_done,
            total=tick.num_total,
            text=f"images - {tick.images_per_second:.1f} images/s - {tick.num_failed} failed -"
            if tick.is_of_images
            else "",
        )

    def stop(self) -> None:
        if self._bar.live.is_started:
            self._bar.stop()


class _Log:
    """Lines of a log. A thread writes them, so that a step that takes long does not look like a dead run."""

    def __init__(self, title: str, stream: TextIO | None) -> None:
        self._title, self._stream = title, stream
        self._tick: Tick | None = None
        self._shown: Tick | None = None
        self._tenths = -1
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="progress-log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def show(self, tick: Tick) -> None:
        with self._lock:
            self._tick = tick
            tenths = 10 * tick.num_done // tick.num_total if tick.num_total else -1
            if tenths > self._tenths:
                self._tenths = tenths
                self._write()

    def stop(self) -> None:
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._tick and self._tick != self._shown:
            self._write()

    def _repeat(self) -> None:
        while not self._is_over.wait(EVERY_S):
            with self._lock:
                self._write()

    def _write(self) -> None:
        self._shown = self._tick
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        title = "".join(letter if letter.isprintable() else " " for letter in self._title)
        with suppress(OSError, ValueError, AttributeError):  # nobody reads it any more, or there is no standard error
            self._stream.write(f"{stamp} {title}: {_described(self._tick)}\n")
            self._stream.flush()


def _described(tick: Tick | None) -> str:
    if tick is None:
        return "starting"
    share = f" of {tick.num_total} ({100 * tick.num_done // tick.num_total} %)" if tick.num_total else ""
    text = f"{tick.num_done}{share}"
    if tick.is_of_images:
        text += f" images, {tick.images_per_second:.1f} images/s, {tick.num_failed} failed"
    if not tick.num_total or not tick.images_per_second > 0 or tick.num_done >= tick.num_total:
        return text
    left_s = (tick.num_total - tick.num_done) / tick.images_per_second
    return f"{text}, {timedelta(seconds=round(left_s))} left"


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
