"""What tests of small towers share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Towers so small take far longer on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
