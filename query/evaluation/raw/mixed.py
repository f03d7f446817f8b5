"""The answers of one gallery whose images two conditions share, half each.

Shapes: N images.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.raw.head import RawHead, holds, read_raw, write_raw
from query.evaluation.raw.heads import head_of
from query.evaluation.raw.ranks import read_ranks, write_ranks
from query.evaluation.record import ConditionRecord, DataRecord, SweepRecord

DRAWN, SWAPPED = "drawn", "swapped"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedAnswers:
    """Answers to the queries of image retrieval. Each image was once in the half of each condition."""

    is_first_N: np.ndarray
    """bool: whether an image's vector was of the first condition in `drawn`; in `swapped`, it is the other way."""
    drawn: Answers
    swapped: Answers


def head_of_mixed(record: SweepRecord, first: ConditionRecord, second: ConditionRecord, data: DataRecord) -> RawHead:
    """The head of both files: everything that the answers depend on."""
    head = head_of(record, first, data, "ranks")
    return head.model_copy(
        update={
            "kind": "mixed",
            "condition": f"{first.key}+{second.key}",
            "fingerprint": f"{first.fingerprint}+{second.fingerprint}",
        }
    )


def holds_mixed(folder: SweepFolder, head: RawHead) -> bool:
    """Whether both files are there, complete and of this head."""
    return all(holds(path, head) for path in _paths(folder, head))


def write_mixed(folder: SweepFolder, answers: MixedAnswers, head: RawHead) -> None:
    """Write the answers, and which half each image was in.

    Raises:
        StoreError: If a file cannot be written.
    """
    halves, ranks = _paths(folder, head)
    images = np.arange(len(answers.is_first_N), dtype=np.int32)
    write_raw(halves, pa.table({"image": images, "is_first": answers.is_first_N}), head)
    write_ranks(ranks, {DRAWN: answers.drawn, SWAPPED: answers.swapped}, head)


def read_mixed(folder: SweepFolder, head: RawHead) -> MixedAnswers:
    """Read the answers of a head that `head_of_mixed` made.

    Raises:
        StoreError: If a file is missing, damaged, or was measured on something else.
    """
    halves, ranks = _paths(folder, head)
    is_first_N = read_raw(halves, head)[0]["is_first"].to_numpy()
    by_half = read_ranks(ranks, head)
    return MixedAnswers(is_first_N=is_first_N, drawn=by_half[DRAWN], swapped=by_half[SWAPPED])


def _paths(folder: SweepFolder, head: RawHead) -> tuple[Path, Path]:
    parent = folder.mixed / head.data
    return parent / f"{head.condition}.halves.parquet", parent / f"{head.condition}.ranks.parquet"
