"""The threshold of a query: zero, its own, or a share of the way."""

import pytest
import torch

from fss.heads.parts.threshold import moved, own


def two_groups() -> torch.Tensor:
    """(2, 3, 4) margins: the upper row of a map is 4 above the others, which are -3 in one map and 5 in the other."""
    margins = torch.zeros(2, 3, 4)
    margins[:, 0] = 4
    return margins + torch.tensor([-3.0, 5.0])[:, None, None]


def test_the_threshold_is_where_the_groups_of_each_map_part():
    assert own(two_groups(), 1.0, 1).flatten().tolist() == [-1.0, 7.0]
    assert own(two_groups()[:, None], 0.5, 1).shape == (2, 1, 1, 1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_margin_is_lower_by_a_share_of_it_over_the_shots(share):
    margins = two_groups()
    logits = torch.stack([margins.flip(2), margins.flip(2) + margins], dim=1)
    found = moved(logits, share, shots=2)
    expected = margins - share / 2 * torch.tensor([-1.0, 7.0])[:, None, None]
    assert torch.allclose(found[:, 1] - found[:, 0], expected)
    assert torch.allclose(found.sum(1), logits.sum(1))


def test_at_its_own_threshold_the_upper_group_is_found_whatever_the_bias():
    logits = torch.stack([torch.zeros(2, 3, 4), two_groups()], dim=1)
    plain, own_threshold = (moved(logits, share, 1).argmax(1) for share in (0.0, 1.0))
    assert plain.flatten(1).sum(1).tolist() == [4, 12]
    assert own_threshold.flatten(1).sum(1).tolist() == [4, 4]


def test_learning_sees_no_gradient_of_the_threshold():
    logits = torch.stack([torch.zeros(2, 3, 4), two_groups()], dim=1).requires_grad_()
    moved(logits, 0.5, 1)[0, 1, 0, 0].backward()
    assert logits.grad.count_nonzero() == 1
