"""A small sweep in a folder of its own."""

import pytest

from tests.kit.small_sweep import SmallSweep


@pytest.fixture
def sweep(tmp_path, photos, tiny_model, few_of_all):
    """A sweep that has not run yet."""
    return SmallSweep(tmp_path, photos, tiny_model)
