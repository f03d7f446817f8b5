"""A sweep small enough to compute by hand: two conditions on one data set, with raw files."""

import pytest

from tests.kit.finished_sweep import FinishedSweep


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The sweep and its results. Two keys of its images need encoding."""
    sweep = FinishedSweep(tmp_path_factory.mktemp("sweep"), {"whole": 0, "pruned": 0.2})
    return sweep, sweep.results


@pytest.fixture
def sweep(finished):
    """The sweep."""
    return finished[0]


@pytest.fixture
def results(finished):
    """Its results."""
    return finished[1]


@pytest.fixture
def recall(results):
    """Recall of a condition by CLIP_benchmark's names, which our results use."""

    def of(name):
        found = next(one for one in results.conditions if one.condition.name == name).on["small"].metrics
        return {metric: one.value for metric, one in found.items() if metric.rpartition("recall@")[2].isdecimal()}

    return of
