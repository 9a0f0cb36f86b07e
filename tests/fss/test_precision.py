"""What is computed in bfloat16: only what nothing is learned of, and only where the processor has it."""

import pytest
import torch
from torch import nn

from fss import precision
from fss.precision import coarse

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
