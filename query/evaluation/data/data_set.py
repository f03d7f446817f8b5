"""A data set: images, queries in words, and which image answers which query.

Shapes: N images, Q queries, P pairs of a query and an image that answers it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.source.entry import ImageEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """One data set. Images that no query asks for are distractors; those added by `distractors` come last."""

    name: str
    kind: Literal["captions", "classes"]
    """`captions`: each query is one text. `classes`: each query is a class, the mean of its prompts."""
    location: str
    entries: Sequence[ImageEntry]
    """The gallery [N]; the data set's own images first."""
    num_own: int
    """How many are the data set's own; the rest was added from elsewhere, to make the gallery larger."""
    titles: Sequence[str]
    """What each query is called [Q]: the caption, or the name of the class."""
    prompts: Sequence[Sequence[str]]
    """The texts of each query [Q]; its vector is the mean of theirs."""
    pairs_P2: np.ndarray
    """int64 [P, 2]: (query, image), ascending, each once."""
    grades_P: np.ndarray
    """float32 [P]: how well the image answers; 1 unless relevance is graded."""
    counts: dict[str, int]
    """What it holds: num_images, num_own, num_distractors, num_without_query (its own images that no query asks for),
    num_queries. What it leaves out: num_left_out (captions beyond the first five), and where there are any
    num_not_sampled, num_repeated (distractors that the gallery has already), num_ungraded (captions that the grades
    do not name), num_unanswered (captions whose grades are all 0), num_without_class, num_without_embedding."""

    @property
    def clusters_Q(self) -> np.ndarray:
        """What each query belongs to when queries are resampled, int64 [Q]: its image, if only one answers it."""
        num_right_Q = np.bincount(self.pairs_P2[:, 0], minlength=len(self.titles))
        clusters_Q = len(self.entries) + np.arange(len(self.titles))
        single_P = num_right_Q[self.pairs_P2[:, 0]] == 1
        clusters_Q[self.pairs_P2[single_P, 0]] = self.pairs_P2[single_P, 1]
        return clusters_Q

    @property
    def sha256(self) -> str:
        r"""Hash of the split (hex): which images, which queries, and which image answers which.

        It depends on no path, machine or format: keys are relative to the source. It hashes five JSON texts, each with
        a line feed: the keys of the data set's own images, in ascending order; the list of prompts of each query; the
        pairs [query, image], ascending, by places in these two lists; their grades; the keys of the distractors. To
        compute it again from those lists:

            lines = [own_keys, prompts, pairs, grades, distractor_keys]
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            hashlib.sha256(text.encode()).hexdigest()

        A caption is a query with one prompt, itself without blanks around it. Grades are floats, such as 1.0, with the
        precision of float32. In the folder of a sweep, the lists are the columns of `images.parquet`, `queries.parquet`
        and `pairs.parquet` of the data set.
        """
        digest = hashlib.sha256()
        for value in (
            [entry.key for entry in self.entries[: self.num_own]],
            [list(texts) for texts in self.prompts],
            self.pairs_P2.tolist(),
            self.grades_P.tolist(),
            [entry.key for entry in self.entries[self.num_own :]],
        ):
            digest.update(json.dumps(value, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()
