"""Otsu's threshold by brute force."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fss.clustering.otsu import otsu


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=12))
def test_otsu_equals_brute_force(numbers):
    values = torch.tensor(numbers, dtype=torch.float64)

    def between(threshold: float) -> float:
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * float(low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    best = max(between(v) for v in numbers)
    assert between(otsu(values[None]).item()) == pytest.approx(best)


def test_each_row_is_divided_by_itself():
    values = torch.tensor([[1.0, 9.0, 1.2, 8.5, 0.9, 9.5], [0.0, 0.0, 0.0, 5.0, 5.0, 5.0]])
    assert torch.allclose(otsu(values), torch.tensor([4.85, 2.5]))


def test_equal_values_are_their_own_threshold():
    assert otsu(torch.full((2, 4), 0.5)).tolist() == [0.5, 0.5]
