"""What is computed in bfloat16: only what nothing is learned of, and only where the processor has it."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from fss import precision
from fss.precision import Rounding, coarse, multiplies, products_apart

VALUES = torch.tensor([1.0, 0.333])


@pytest.mark.parametrize(("able", "kind"), [(True, torch.bfloat16), (False, torch.float32), (None, torch.float32)])
def test_values_are_coarse_where_the_processor_multiplies_them(monkeypatch, able, kind):
    monkeypatch.setattr(precision, "_MULTIPLIES", able)
    assert coarse(VALUES).dtype == kind
    assert torch.allclose(coarse(VALUES).float(), VALUES, rtol=2**-8)


def test_what_a_gradient_passes_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(precision, "_MULTIPLIES", True)
    learned = nn.Parameter(VALUES)
    assert coarse(learned) is learned
    with torch.no_grad():
        assert coarse(learned).dtype == torch.bfloat16


def test_programs_for_other_machines_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(precision, "_MULTIPLIES", True)

    class Double(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return 2 * coarse(values)

    made = torch.export.export(Double(), (VALUES,)).module()
    assert torch.equal(made(VALUES), 2 * VALUES)


def rows_of(kind: str, number: int, dims: int, scale: float, seed: int) -> torch.Tensor:
    """Rows that bfloat16 rounds by chance, that lie midway between two of its numbers, or that are all of one sign."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "midway":
        steps = torch.randint(128, 256, (number, dims), generator=generator) + 0.5
        return scale * steps / 128 * (2.0 * torch.randint(2, (number, dims), generator=generator) - 1)
    rows = torch.randn(number, dims, generator=generator)
    return scale * (rows.abs() if kind == "one sign" else rows)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["chance", "midway", "one sign"]),
    st.integers(1, 700),
    st.sampled_from([1e-30, 1e-12, 1.0, 1e9]),
    st.sampled_from([1e-20, 1e-3, 1.0, 1e6]),
    st.integers(0, 9999),
)
@example("midway", 1, 1.0, 1.0, 0)
def test_products_of_rounded_rows_are_no_further_off_than_their_bound(kind, dims, scale, other, seed):
    """As the definition has them, and as this processor makes them."""
    rows, others = rows_of(kind, 20, dims, scale, seed), rows_of(kind, 30, dims, other, seed + 1)
    ours, theirs = rows.bfloat16(), others.bfloat16()
    bound = products_apart(Rounding.of(rows, ours), Rounding.of(others, theirs), dims).double()
    exact = rows.double() @ others.double().T
    made = [(ours.double() @ theirs.double().T).bfloat16()]
    if multiplies(rows.device):
        made.append(torch.mm(ours, theirs.T))
    for products in made:
        assert ((products.double() - exact).abs() <= bound[:, None]).all()
    lengths = rows.double().norm(dim=1) * others.double().norm(dim=1).max()
    assert (bound <= 0.02 * lengths + 1e-15 * (1 + scale + other)).all()


def test_what_bfloat16_does_not_hold_has_no_bound():
    rows = torch.tensor([[3.4e38, 1.0], [float("nan"), 1.0], [1.0, 1.0]])
    bound = products_apart(Rounding.of(rows, rows.bfloat16()), Rounding.of(rows[2:], rows[2:].bfloat16()), 2)
    assert bound.isfinite().tolist() == [False, False, True]
