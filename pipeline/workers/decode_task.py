"""Decoding in Ray tasks, on the CPUs of every node, on behalf of one encode worker."""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray

from pipeline.model.spec import Preprocess
from pipeline.pixels.batch import DecodedBatch
from pipeline.pixels.decode import decode_all_but_jpegs
from pipeline.pixels.read_ahead import read_ahead
from pipeline.source.entry import ImageEntry, ImageResult, Status
from pipeline.workers.session import get

BATCHES_AHEAD = 3
CRASHES_PER_IMAGE = 3
"""An image that ends its decoder's process so often is treated as the cause, not as a bystander."""

_DECODER_LOST = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
)


# Ray must not retry: a batch that takes too much memory it would try for ever; see DecodeTasks._one_by_one
@ray.remote(max_retries=0)
def _decode_task(
    entries: Sequence[ImageEntry], preprocess: Preprocess, max_pixels: int, timeout_s: float | None
) -> DecodedBatch:
    batch = decode_all_but_jpegs(entries, preprocess, max_pixels, timeout_s)
    return replace(batch, entries=())  # the worker has them; they may hold the images' bytes


@ray.remote
def _warm_up() -> None:
    time.sleep(0.5)  # long enough that the next one needs, and starts, a process of its own


class DecodeTasks:
    """Decodes batches a few ahead of their use; an image that ends its decoder costs that image, not its batch."""

    def __init__(
        self,
        *,
        preprocess: Preprocess,
        max_pixels: int,
        timeout_s: float | None,
        num_cpus: float,
        num_ahead: int = BATCHES_AHEAD,
        task: Any = _decode_task,
    ) -> None:
        """Nothing is started yet.

        Args:
            preprocess: Target size, how to reach it, and by which decoder.
            max_pixels: Larger images are refused.
            timeout_s: An image whose decoding takes longer is a timeout; None never gives up.
            num_cpus: Cores that Ray reserves for a task.
            num_ahead: Batches decoded ahead.
            task: The Ray function that decodes a batch.
        """
        self._preprocess, self._max_pixels, self._timeout_s = preprocess, max_pixels, timeout_s
        self._options, self._num_ahead, self._task = {"num_cpus": num_cpus}, num_ahead, task

    def warm_up(self) -> list[Any]:
        """Start decode processes, which takes seconds; the results are worth waiting for, not reading."""
        return [_warm_up.options(**self._options).remote() for _ in range(BATCHES_AHEAD)]

    def ahead(self, batches: Iterable[Sequence[ImageEntry]]) -> Iterator[DecodedBatch]:
        """Batches in their order, decoded a few ahead of their use."""
        pending: deque[tuple[Sequence[ImageEntry], Any]] = deque()
        for batch in read_ahead(batches):
            pending.append((batch, self._start(batch)))
            if len(pending) > self._num_ahead:
                yield self._decoded(*pending.popleft())
        while pending:
            yield self._decoded(*pending.popleft())

    def alone_by_pillow(self, entry: ImageEntry) -> DecodedBatch:
        """One image, by Pillow whatever the decoder."""
        return self._alone(entry, self._preprocess.model_copy(update={"decoder": "pillow"}))

    def _start(self, batch: Sequence[ImageEntry], preprocess: Preprocess | None = None) -> Any:
        task = self._task.options(**self._options)
        return task.remote(batch, preprocess or self._preprocess, self._max_pixels, self._timeout_s)

    def _decoded(self, batch: Sequence[ImageEntry], ref: Any) -> DecodedBatch:
        try:
            return replace(get(ref), entries=batch)
        except _DECODER_LOST:
            return self._one_by_one(batch)

    def _one_by_one(self, batch: Sequence[ImageEntry]) -> DecodedBatch:
        """Decode each image in a process of its own: one of them ends the process that decodes it."""
        alone = [self._alone(entry) for entry in batch]
        return DecodedBatch(
            entries=batch,
            pixels=np.concatenate([one.pixels for one in alone]),
            results=[result for one in alone for result in one.results],
            jpegs={slot: one.jpegs[0] for slot, one in enumerate(alone) if one.jpegs},
            cpu_s=sum(one.cpu_s for one in alone),
        )

    def _alone(self, entry: ImageEntry, preprocess: Preprocess | None = None) -> DecodedBatch:
        num_timeouts = 0
        for _ in range(CRASHES_PER_IMAGE):
            started = time.perf_counter()
            try:
                return replace(get(self._start([entry], preprocess)), entries=[entry])
            except _DECODER_LOST:
                elapsed_s = time.perf_counter() - started
                num_timeouts += bool(self._timeout_s and elapsed_s >= self._timeout_s)
                if num_timeouts == 2:  # once may be the wait for a core, and a crash
                    return self._failed(entry, Status.TIMEOUT, f"decoding did not end within {self._timeout_s:g} s")
        return self._failed(entry, Status.CRASHED, f"ended its decoder's process {CRASHES_PER_IMAGE} times")

    def _failed(self, entry: ImageEntry, status: Status, reason: str) -> DecodedBatch:
        pixels = np.zeros((1, self._preprocess.height, self._preprocess.width, 3), np.uint8)
        return DecodedBatch(entries=[entry], pixels=pixels, results=[ImageResult.of(entry, status, reason)])


def batches_ahead(num_cpus: int, num_workers: int) -> int:
    """Batches that a worker has decoded ahead: enough to keep its share of the cores busy, and bounded."""
    return min(32, max(BATCHES_AHEAD, math.ceil(num_cpus / num_workers) + 1))
