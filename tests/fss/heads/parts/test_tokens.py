"""Tokens by hand: their order, their length, and cosines to means."""

import torch
import torch.nn.functional as F

from fss.heads.parts import tokens
from tests.fss.heads.test_heads import episode


def test_tokens_are_unit_levels_side_by_side():
    query, support, _ = episode(shots=2)
    unit = tokens.unit_grid(query, ("mid", "high"))
    assert unit.shape == (3, 17, 5, 5)
    joint = torch.cat([F.normalize(query[level][1, :, 2, 3], dim=0) for level in ("mid", "high")]) / 2**0.5
    assert torch.allclose(unit[1, :, 2, 3], joint, atol=1e-6)
    shots = tokens.flat_tokens(support["high"])
    assert shots.shape == (3, 9, 50)
    assert torch.equal(shots[2, :, 25 + 7], support["high"][2, 1, :, 1, 2])


def test_masks_are_in_the_order_of_the_tokens():
    _, _, masks = episode(shots=2)
    flat = tokens.flat_masks(masks)
    assert flat.shape == (3, 2, 50)
    assert flat[2, 1, 25 + 7] == masks[2, 1, 1, 1, 2]


def test_cosines_to_weighted_means_by_hand():
    support = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])  # three tokens: the axes
    weights = torch.tensor([[[0.0, 0.0, 1.0], [0.6, 0.8, 0.0]]])
    query = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])
    found = tokens.prototype_cosines(query, support, weights)
    assert torch.allclose(found, torch.tensor([[[0.0, 1.0], [0.6, 0.0]]]))
