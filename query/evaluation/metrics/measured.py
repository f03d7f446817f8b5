"""A data set with what its conditions were measured at, one condition in memory at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from query.evaluation.metrics.fidelity import fidelity
from query.evaluation.metrics.per_query import PerQuery, accuracies_of, metrics_of
from query.evaluation.metrics.right import Right, right_images, right_texts
from query.evaluation.ranking.answers import Answers
from query.evaluation.raw.data import DataTables
from query.evaluation.results import Estimate, OnData
from query.evaluation.statistics.bootstrap import Draws, difference, mean, percentile

TEXT_TO_IMAGE = "image_retrieval"
IMAGE_TO_TEXT = "text_retrieval"
_SHARES = {"median": 0.5, "p5": 0.05}


@dataclass(frozen=True)
class Task:
    """The queries of one task of a data set, and the draws that all conditions share."""

    right: Right

    @cached_property
    def draws(self) -> Draws:
        """Of all its queries."""
        return Draws(self.right.clusters_Q)

    @cached_property
    def draws_of_several(self) -> Draws:
        """Of its queries with several right answers."""
        several_Q = self.right.several_Q
        return self.draws if several_Q.all() else Draws(self.right.clusters_Q[several_Q])
