"""One thread and a random generator of their own for tests of backbones."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _own_randomness() -> Iterator[None]:
    """Tests here may draw from torch's global generator; what the library draws itself is tested on its own."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
