"""Make the queries of a data set from what its source holds: captions, judgements or classes.

Shapes: P pairs of a query and an image that answers it.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.errors import InputError
from query.evaluation.data.data_set import DataSet
from query.evaluation.data.found import Captioned, Classified
from query.evaluation.data.grades import Judgement
from query.evaluation.data.templates import prompts_of

Pair = tuple[int, int]


def of_captions(name: str, found: Captioned, captions_per_image: int | None) -> DataSet:
    """Each caption is a query that its own image answers.

    Args:
        name: Name of the data set.
        found: What the source holds.
        captions_per_image: The first so many captions of each image are queries; the others are counted. None takes
            all.

    Raises:
        InputError: If no image has a caption.
    """
    titles, images, num_left_out = [], [], 0
    for number, entry in enumerate(found.entries):
        texts = found.captions.get(entry.key, [])
        kept = texts[:captions_per_image]
        titles += kept
        images += [number] * len(kept)
        num_left_out += len(texts) - len(kept)
    if not titles:
        raise InputError(
            f"no image of {found.location} has a caption; give a file with `captions` (a TSV or Karpathy's JSON)"
        )
    return _data_set(
        name,
        found,
        titles=titles,
        prompts=[[title] for title in titles],
        grades=dict.fromkeys(enumerate(images), 1.0),
        counts={"num_left_out": num_left_out},
    )


def of_judgements(name: str, found: Captioned, judgements: Sequence[Judgement]) -> DataSet:
    """Each judged caption is one query, in the order of the judgements. Captions of the source itself are counted.

    A caption that no image answers with a grade above 0 is left out and counted.
    """
    answered = dict.fromkeys(judgement.caption for judgement in judgements if judgement.grade > 0)
    titles = list(answered)
    number_of = {title: number for number, title in enumerate(titles)}
    own = [text for texts in found.captions.values() for text in texts]
    return _data_set(
        name,
        found,
        titles=titles,
        prompts=[[title] for title in titles],
        grades={(number_of[one.caption], one.image): one.grade for one in judgements if one.grade > 0},
        counts={
            "num_left_out": 0,
            "num_unanswered": len({judgement.caption for judgement in judgements} - answered.keys()),
            "num_ungraded": sum(text not in answered for text in own),
        },
    )


def of_classes(name: str, found: Classified) -> DataSet:
    """Each class is a query that all its images answer."""
    return _data_set(
        name,
        found,
        titles=found.names,
        prompts=[prompts_of(title, found.templates) for title in found.names],
        grades={(label, number): 1.0 for number, label in enumerate(found.labels)},
        counts={"num_left_out": 0},
    )


def _data_set(
    name: str,
    found: Captioned | Classified,
    *,
    titles: list[str],
    prompts: list[list[str]],
    grades: dict[Pair, float],
    counts: dict[str, int],
) -> DataSet:
    pairs = sorted(grades)
    return DataSet(
        name=name,
        kind="captions" if isinstance(found, Captioned) else "classes",
        location=found.location,
        entries=found.entries,
        num_own=len(found.entries),
        titles=titles,
        prompts=prompts,
        pairs_P2=np.array(pairs, np.int64).reshape(-1, 2),
        grades_P=np.array([grades[pair] for pair in pairs], np.float32),
        counts=counts | {kind: count for kind, count in found.counts.items() if count},
    )
