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


@pytest.fixture(scope="session")
def float_sums_vary() -> bool:
    """Whether float32 layers of this CPU depend on the number of threads. 8-bit products never do."""
    threads = torch.get_num_threads()
    generator = torch.Generator().manual_seed(0)
    x_RK, weight_NK = (torch.randn(rows, 192, generator=generator) for rows in (5, 768))
    found = []
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        found.append(torch.nn.functional.linear(x_RK, weight_NK))
    torch.set_num_threads(threads)
    return not torch.equal(*found)
