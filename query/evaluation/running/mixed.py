"""Galleries whose images are of two conditions, half each: does one index over them rank fairly?

Shapes: N images.
"""

from collections.abc import Sequence

import numpy as np

from query.evaluation.grid.read import Grid
from query.evaluation.ranking.answers import Answers
from query.evaluation.ranking.rank import answers
from query.evaluation.raw.mixed import MixedAnswers, head_of_mixed, holds_mixed, write_mixed
from query.evaluation.record import SweepRecord
from query.evaluation.running.galleries import Gallery
from query.evaluation.running.kept.work import Work
from query.evaluation.running.ranked import NUM_HITS, near_duplicates
from query.evaluation.running.texts import query_vectors
from query.evaluation.running.towers import Tower

KIND = "mixed galleries"
_SEED = 0


def check_mixed(grid: Grid, towers: Sequence[Tower]) -> None:
    """Check that one query vector can search both halves of each mixed gallery.

    Raises:
        ConfigError: If two conditions read texts differently; names the line of the grid.
    """
    spaces = {tower.condition.name: tower.encoder.text_space for tower in towers}
    for number, (first, second) in enumerate(grid.keys.mixed):
        if spaces[first] != spaces[second]:
            raise grid.error(
                ("mixed", number),
                f"{first!r} and {second!r} read texts differently, so their images cannot share a gallery; name two "
                "conditions of one model and one adapter",
            )


def rank_mixed(
    work: Work, grid: Grid, record: SweepRecord, towers: Sequence[Tower], galleries: Sequence[Gallery]
) -> None:
    """Rank each data set with the images of each pair of conditions that a grid mixes, where files are missing.

    Half of the images, drawn at random, have the vectors of the first condition, the others those of the second; and
    then the other way, so that what is special about one half of the images evens out.
    """
    by_name = {tower.condition.name: tower for tower in towers}
    for gallery in galleries:
        if len(gallery.parts) == 1:  # without distractors
            for first, second in grid.keys.mixed:
                _rank(work, record, by_name[first], by_name[second], gallery)


def halves(num_images: int) -> np.ndarray:
    """A random half of the images (bool [N]), the same in every run."""
    is_first_N = np.zeros(num_images, bool)
    is_first_N[np.random.default_rng(_SEED).permutation(num_images)[: num_images // 2]] = True
    return is_first_N


def _rank(work: Work, record: SweepRecord, first: Tower, second: Tower, gallery: Gallery) -> None:
    keys = first.condition.key, second.condition.key
    data = next(found for found in record.data if found.name == gallery.data.name)
    head = head_of_mixed(record, *(record.condition(key) for key in keys), data)
    if holds_mixed(work.folder, head):
        work.tally.kept[KIND] += 1
        return
    first_NE, second_NE = (gallery.vectors(work.folder, key) for key in keys)
    queries_QE = query_vectors(work, first.encoder.text_space, gallery.data)
    is_first_N, alike_N = halves(len(first_NE)), near_duplicates(work, record, gallery)

    def ranked(is_of_first_N: np.ndarray) -> Answers:
        mixed_NE = np.where(is_of_first_N[:, None], first_NE, second_NE)
        return answers(
            queries_QE,
            mixed_NE,
            gallery.data.pairs_P2,
            k=NUM_HITS,
            epsilon=record.grid["epsilon"],
            alike_N=alike_N,
        )

    found = MixedAnswers(is_first_N=is_first_N, drawn=ranked(is_first_N), swapped=ranked(~is_first_N))
    write_mixed(work.folder, found, head)
    work.tally.measured[KIND] += 1
