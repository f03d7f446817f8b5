"""A small sweep in a folder of its own."""

import pytest

from query.evaluation.running import pictures, prepare
from tests.kit.small_sweep import SmallSweep, few_threads


@pytest.fixture
def sweep(tmp_path, photos, tiny_model, monkeypatch):
    """A sweep that has not run yet."""
    monkeypatch.setattr(prepare, "use_all_cores", prepare.use_all_cores)  # restored after the test
    for name in ("NUM_IMAGES", "NUM_CONDITIONS"):
        monkeypatch.setattr(pictures, name, getattr(pictures, name))
    few_threads()
    return SmallSweep(tmp_path, photos, tiny_model)
