"""Ranks and cosines from vectors on disk, condition by condition.

Shapes: N images, O own images, Q queries, P pairs, E embedding width.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.monitor.progress import Tick
from query.evaluation.ranking.alike import near_duplicate_groups
from query.evaluation.ranking.both_ways import both_ways
from query.evaluation.raw.head import RawHead, holds
from query.evaluation.raw.heads import head_of
from query.evaluation.raw.images import write_cosines
from query.evaluation.raw.ranks import write_ranks
from query.evaluation.record import SweepRecord
from query.evaluation.running.galleries import Gallery
from query.evaluation.running.kept.work import Work
from query.evaluation.running.texts import query_vectors
from query.evaluation.running.towers import Tower

KIND = "files of ranks"
NUM_HITS = 100
"""Best hits that are kept of each query."""


def rank(work: Work, record: SweepRecord, towers: Sequence[Tower], galleries: Sequence[Gallery]) -> None:
    """Rank every gallery under every condition that is measured on it, both ways, where its files are not there yet.

    Text retrieval asks for the queries of each own image; an image that answers none has no best right answer. All
    images have the same near-duplicates under all conditions: those under the baseline.
    """
    num_total = sum(len(gallery.keys) for gallery in galleries)
    num_done, started = 0, time.perf_counter()
    for gallery in galleries:
        alike_N = None
        for tower in towers:
            if tower.key not in gallery.keys:
                continue
            if _is_ranked(work, record, tower, gallery):
                work.tally.kept[KIND] += 1
            else:
                if alike_N is None:
                    alike_N = near_duplicates(work, record, gallery)
                _rank(work, record, tower, gallery, alike_N)
                work.tally.measured[KIND] += 1
            num_done += 1
            rate = num_done / (time.perf_counter() - started)
            work.on_tick("ranks", Tick(num_done, num_total, 0, rate, is_of_images=False))


def near_duplicates(work: Work, record: SweepRecord, gallery: Gallery) -> np.ndarray:
    """The group of near-duplicates of each image, int64 [N], under the baseline."""
    return near_duplicate_groups(gallery.vectors(work.folder, record.baseline.key), record.duplicate_cosine)


def _paths(work: Work, record: SweepRecord, tower: Tower, gallery: Gallery) -> list[tuple[Path, RawHead, str]]:
    """The files of a condition with their heads: its ranks, then its cosines; and the key that each is against."""
    condition, name = record.condition(tower.key), gallery.data.name
    data = next(found for found in record.data if found.name == name)
    baseline, in_float = record.baseline, record.in_float(condition)
    paths = [(work.folder.ranks(condition.key, name), head_of(record, condition, data, "ranks"), baseline.key)]
    if condition.shares_space_with(baseline):
        paths.append(
            (work.folder.images(condition.key, name), head_of(record, condition, data, "images"), baseline.key)
        )
    if in_float and in_float.key in gallery.keys:
        head = head_of(record, condition, data, "images", in_float)
        paths.append((work.folder.to_float(condition.key, name), head, in_float.key))
    return paths


def _is_ranked(work: Work, record: SweepRecord, tower: Tower, gallery: Gallery) -> bool:
    return all(holds(path, head) for path, head, _ in _paths(work, record, tower, gallery))


def _rank(work: Work, record: SweepRecord, tower: Tower, gallery: Gallery, alike_N: np.ndarray) -> None:
    data, (ranks, *cosines) = gallery.data, _paths(work, record, tower, gallery)
    images_NE = gallery.vectors(work.folder, tower.key)
    texts_QE = query_vectors(work, tower.encoder.text_space, data)
    epsilon = record.grid["epsilon"]
    by_task = both_ways(texts_QE, images_NE, data.pairs_P2, data.num_own, alike_N=alike_N, epsilon=epsilon, k=NUM_HITS)
    path, head, _ = ranks
    write_ranks(path, by_task, head)
    for path, head, key in cosines:
        write_cosines(path, np.einsum("ne,ne->n", images_NE, gallery.vectors(work.folder, key)), head)
