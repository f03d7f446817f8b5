"""What tests of sweeps share."""

import pytest

from query.evaluation.running import pictures, prepare
from tests.kit.small_sweep import few_threads


@pytest.fixture
def few_of_all(monkeypatch):
    """Few threads and pictures for sweeps in this process, until the end of the test."""
    monkeypatch.setattr(prepare, "use_all_cores", prepare.use_all_cores)  # restored after the test
    for name in ("NUM_IMAGES", "NUM_CONDITIONS"):
        monkeypatch.setattr(pictures, name, getattr(pictures, name))
    few_threads()
