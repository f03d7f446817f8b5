"""The vectors of images: a block is decoded once per preprocessing, and encoded under every condition that lacks it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import InputError
from pipeline.model.spec import Preprocess
from pipeline.monitor.progress import Tick
from pipeline.pixels.decode import decode_batch
from query.evaluation.running.galleries import Gallery, Part, blocks_of
from query.evaluation.running.kept.blocks import Blocks
from query.evaluation.running.kept.work import Work
from query.evaluation.running.towers import Tower

KIND = "image vectors"


@dataclass(frozen=True, slots=True)
class _Job:
    """Vectors to make: a part of a gallery under a condition."""

    tower: Tower
    part: Part
    blocks: Blocks


def embed_images(work: Work, towers: Sequence[Tower], galleries: Sequence[Gallery], batch_size: int) -> None:
    """Make the vectors that are missing, block by block.

    Raises:
        InputError: If an image can be decoded for one model and not for another.
    """
    jobs = list(_jobs(work, towers, galleries))
    todo = sum(_num_missing(job) for job in jobs)
    work.tally.kept[KIND] += sum(len(job.part.entries) for job in jobs) - todo
    num_done, started = 0, time.perf_counter()
    for together in _together(jobs):
        for number in sorted({number for job in together for number in job.blocks.missing()}):
            lacking = [job for job in together if number in job.blocks.missing()]
            pixels = pixels_of(together[0].part, together[0].blocks.rows(number), lacking[0].tower)
            for job in lacking:
                job.blocks.write(number, encode(job.tower, pixels, batch_size))
                work.tally.measured[KIND] += len(pixels)
                num_done += len(pixels)
                rate = num_done / (time.perf_counter() - started)
                work.on_tick("embed", Tick(num_done, todo, 0, rate))


def pixels_of(part: Part, rows: slice, tower: Tower) -> np.ndarray:
    """Some images of a part as uint8 pixels [n, H, W, 3] at a tower's input size.

    Raises:
        InputError: If one cannot be decoded, although it could when images were looked at.
    """
    preprocess = tower.encoder.spec.preprocess
    batch = decode_batch(part.entries[rows], preprocess)
    failed = batch.first_failed()
    if failed:
        raise InputError(
            f"cannot decode {failed.uri} at {preprocess.width} x {preprocess.height} for {tower.condition.name!r}: "
            f"{failed.error}; it could be decoded when the sweep began: restore it, or remove it from {part.name!r}"
        )
    return batch.pixels


def encode(tower: Tower, pixels_NHWC: np.ndarray, batch_size: int) -> np.ndarray:
    """Unit vectors, float32 [N, E]."""
    starts = range(0, len(pixels_NHWC), batch_size)
    return np.concatenate([tower.encoder.encode(pixels_NHWC[start : start + batch_size]) for start in starts])


def _jobs(work: Work, towers: Sequence[Tower], galleries: Sequence[Gallery]) -> Iterator[_Job]:
    parts = {part.name: (part, gallery) for gallery in reversed(galleries) for part in gallery.parts}
    for part, _ in parts.values():
        keys = {key for gallery in galleries if part in gallery.parts for key in gallery.keys}
        for tower in towers:
            key = tower.key
            if key in keys:
                blocks = blocks_of(work.folder, key, part)
                blocks.prepare(
                    {
                        "fingerprint": tower.fingerprint,
                        "images_sha256": part.images_sha256,
                        "environment_key": work.environment_key,
                    }
                )
                yield _Job(tower, part, blocks)


def _num_missing(job: _Job) -> int:
    rows = [job.blocks.rows(number) for number in job.blocks.missing()]
    return sum(found.stop - found.start for found in rows)


def _together(jobs: Sequence[_Job]) -> list[list[_Job]]:
    """Jobs that read the same pixels: of one part, and of one preprocessing."""
    groups: dict[tuple[str, Preprocess], list[_Job]] = {}
    for job in jobs:
        groups.setdefault((job.part.name, job.tower.encoder.spec.preprocess), []).append(job)
    return list(groups.values())
