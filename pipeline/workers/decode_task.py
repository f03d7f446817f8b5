"""Decoding in Ray tasks on the CPUs of every node, for one encode worker."""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import ray

from pipeline.model.spec import Preprocess
from pipeline.pixels.batch import DecodedBatch
from pipeline.pixels.decode import decode_all_but_jpegs
from pipeline.pixels.read_ahead import read_ahead
from pipeline.source.access.credentials import KEYRING
from pipeline.source.entry import ImageEntry, ImageResult, Status
from pipeline.workers.session import get

IMAGES_PER_TASK = 32
"""A larger batch is decoded by several tasks: it is ready sooner, and at the end of a shard fewer cores wait."""

TASKS_AHEAD = 3
CRASHES_PER_IMAGE = 3
"""An image that crashes its decoder this many times is treated as the cause, not as a bystander."""

_DECODER_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
)


# Ray must not retry: it would retry a batch that needs too much memory forever; see DecodeTasks._one_by_one
@ray.remote(max_retries=0)
def _decode_task(
    entries: Sequence[ImageEntry],
    preprocess: Preprocess,
    max_pixels: int,
    timeout_s: float | None,
    credentials: Mapping[str, str],
) -> DecodedBatch:
    KEYRING.clear()
    KEYRING.add(credentials)
    batch = decode_all_but_jpegs(entries, preprocess, max_pixels, timeout_s)
    return replace(batch, entries=())  # the worker has them already, and they may contain the images' bytes


@ray.remote
def _warm_up() -> None:
    time.sleep(0.5)  # long enough that the next task starts its own process


class DecodeTasks:
    """Decodes a few batches ahead; an image that crashes its decoder fails alone, not with its batch."""

    def __init__(
        self,
        *,
        preprocess: Preprocess,
        max_pixels: int,
        timeout_s: float | None,
        num_cpus: float,
        num_ahead: int = TASKS_AHEAD,
        task: Any = _decode_task,
    ) -> None:
        """Store the options; no task starts yet.

        Args:
            preprocess: Target size, resize method and decoder.
            max_pixels: Larger images are refused.
            timeout_s: Time limit for decoding one image; None for no limit.
            num_cpus: Cores that Ray reserves per task.
            num_ahead: Number of tasks to start ahead, at least; whole batches are started.
            task: The Ray function that decodes a batch, or a piece of one.
        """
        self._preprocess, self._max_pixels, self._timeout_s = preprocess, max_pixels, timeout_s
        self._options, self._num_ahead, self._task = {"num_cpus": num_cpus}, num_ahead, task

    def warm_up(self) -> list[Any]:
        """Start decode processes, which takes seconds. Wait for the results; they have no content."""
        return [_warm_up.options(**self._options).remote() for _ in range(self._num_ahead)]

    def ahead(self, batches: Iterable[Sequence[ImageEntry]]) -> Iterator[DecodedBatch]:
        """Yield decoded batches in order, decoding a few ahead."""
        pending: deque[tuple[Sequence[ImageEntry], list[Any]]] = deque()
        for batch in read_ahead(batches):
            pending.append((batch, [self._start(piece) for piece in _pieces(batch)]))
            while sum(len(refs) for _, refs in pending) - len(pending[0][1]) >= self._num_ahead:
                yield self._decoded(*pending.popleft())
        while pending:
            yield self._decoded(*pending.popleft())

    def alone_by_pillow(self, entry: ImageEntry) -> DecodedBatch:
        """Decode one image with Pillow, whatever the configured decoder."""
        return self._alone(entry, self._preprocess.model_copy(update={"decoder": "pillow"}))

    def limited_to(self, max_pixels: int) -> "DecodeTasks":
        """The same tasks with another limit on pixels."""
        limited = copy(self)
        limited._max_pixels = max_pixels
        return limited

    def all_by_pillow(self) -> "DecodeTasks":
        """The same tasks, which leave no image to the device."""
        whole = copy(self)
        whole._preprocess = self._preprocess.model_copy(update={"decoder": "pillow"})
        return whole

    def _start(self, batch: Sequence[ImageEntry], preprocess: Preprocess | None = None) -> Any:
        task = self._task.options(**self._options)
        credentials = KEYRING.of(entry.uri for entry in batch if entry.data is None)
        return task.remote(batch, preprocess or self._preprocess, self._max_pixels, self._timeout_s, credentials)

    def _decoded(self, batch: Sequence[ImageEntry], refs: list[Any]) -> DecodedBatch:
        pieces = [self._piece(piece, ref) for piece, ref in zip(_pieces(batch), refs, strict=True)]
        return _with_entries(DecodedBatch.joined(pieces), batch)

    def _piece(self, piece: Sequence[ImageEntry], ref: Any) -> DecodedBatch:
        try:
            return get(ref)
        except _DECODER_LOST:
            # decode each image in its own task, because one of them crashes its decoder
            return DecodedBatch.joined([self._alone(entry) for entry in piece])

    def _alone(self, entry: ImageEntry, preprocess: Preprocess | None = None) -> DecodedBatch:
        num_timeouts = 0
        for _ in range(CRASHES_PER_IMAGE):
            started = time.perf_counter()
            try:
                return _with_entries(get(self._start([entry], preprocess)), [entry])
            except _DECODER_LOST:
                elapsed_s = time.perf_counter() - started
                num_timeouts += bool(self._timeout_s and elapsed_s >= self._timeout_s)
                if num_timeouts == 2:  # the first may be a crash after a long wait for a core
                    return self._failed(entry, Status.TIMEOUT, f"decoding did not finish within {self._timeout_s:g} s")
        return self._failed(entry, Status.CRASHED, f"crashed its decoder {CRASHES_PER_IMAGE} times")

    def _failed(self, entry: ImageEntry, status: Status, reason: str) -> DecodedBatch:
        pixels = np.zeros((1, self._preprocess.height, self._preprocess.width, 3), np.uint8)
        return DecodedBatch(pixels=pixels, results=[ImageResult.of(entry, status, reason)])


def _with_entries(decoded: DecodedBatch, entries: Sequence[ImageEntry]) -> DecodedBatch:
    """The batch with its entries, if it still needs them: those of tars hold the bytes of their files."""
    return replace(decoded, entries=entries) if decoded.jpegs else decoded


def _pieces(batch: Sequence[ImageEntry]) -> list[Sequence[ImageEntry]]:
    return [batch[start : start + IMAGES_PER_TASK] for start in range(0, len(batch), IMAGES_PER_TASK)]


def tasks_ahead(num_cpus: int, num_workers: int) -> int:
    """Number of tasks to start ahead per worker: two for each of its cores, but bounded, as their results take memory.

    With one per core, cores would wait whenever the tasks of the next batch are not the first to finish.
    """
    return min(256, max(TASKS_AHEAD, 2 * math.ceil(num_cpus / num_workers)))
