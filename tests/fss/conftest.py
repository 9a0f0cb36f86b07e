"""What several tests of the library share."""

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _global_randomness_stays_untouched() -> Iterator[None]:
    """Every test here also checks that `fss` neither draws from nor seeds the generators of the process."""
    draws: tuple[Callable[[], object], ...] = (
        random.getstate,
        lambda: [np.asarray(part).tobytes() for part in np.random.get_state()],  # noqa: NPY002
        lambda: torch.get_rng_state().numpy().tobytes(),
    )
    before = [draw() for draw in draws]
    yield
    assert [draw() for draw in draws] == before, "the test moved a global generator"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors: threads cost more than they give, and results do not depend on their number."""
    torch.set_num_threads(1)
