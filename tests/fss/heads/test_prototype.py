"""Training-free read-outs by hand and by loops."""

import pytest
import torch
import torch.nn.functional as F

from fss.heads import prototype
from fss.heads.prototype import PrototypeReadout
from tests.fss.heads.test_heads import CHANNELS, episode


def test_tokens_are_unit_levels_side_by_side():
    query, support, _ = episode(shots=2)
    tokens = prototype.unit_grid(query, ("mid", "high"))
    assert tokens.shape == (3, 17, 5, 5)
    joint = torch.cat([F.normalize(query[level][1, :, 2, 3], dim=0) for level in ("mid", "high")]) / 2**0.5
    assert torch.allclose(tokens[1, :, 2, 3], joint, atol=1e-6)
    shots = prototype.flat_tokens(support["high"])
    assert shots.shape == (3, 9, 50)
    assert torch.equal(shots[2, :, 25 + 7], support["high"][2, 1, :, 1, 2])


def test_masks_are_in_the_order_of_the_tokens():
    _, _, masks = episode(shots=2)
    flat = prototype.flat_masks(masks)
    assert flat.shape == (3, 2, 50)
    assert flat[2, 1, 25 + 7] == masks[2, 1, 1, 1, 2]


def test_cosines_to_weighted_means_by_hand():
    support = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])  # three tokens: the axes
    weights = torch.tensor([[[0.0, 0.0, 1.0], [0.6, 0.8, 0.0]]])
    query = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]])
    found = prototype.prototype_cosines(query, support, weights)
    assert torch.allclose(found, torch.tensor([[[0.0, 1.0], [0.6, 0.0]]]))


def test_the_readout_equals_a_loop():
    query, support, masks = episode(shots=2)
    head = PrototypeReadout(CHANNELS, levels=("high",), scale=10.0)
    found = head(query, support, masks)
    assert found.shape == (3, 2, 5, 5)
    for number in range(3):
        tokens = F.normalize(support["high"][number], dim=1)
        for side in range(2):
            mean = (tokens * masks[number, :, side][:, None]).sum((0, 2, 3))
            cosine = F.cosine_similarity(query["high"][number], mean[:, None, None], dim=0)
            assert torch.allclose(found[number, side], 10 * cosine, atol=1e-4)


def test_the_scale_does_not_move_the_border():
    inputs = episode()
    small, large = (PrototypeReadout(CHANNELS, scale=s)(*inputs).argmax(1) for s in (1.0, 50.0))
    assert torch.equal(small, large)


def test_a_walk_steps_to_those_that_look_alike():
    tokens = torch.tensor([[[1.0, 0.6, -1.0], [0.0, 0.8, 0.0]]])
    found = prototype.affinity_walk(tokens)
    expected = torch.tensor([[1, 0.6**4, 0], [0.6**4, 1, 0], [0, 0, 1.0]])
    assert torch.allclose(found[0], expected / expected.sum(1, keepdim=True), atol=1e-6)


def test_unknown_levels_are_refused():
    with pytest.raises(ValueError, match="expected levels of low, mid, high, got 'deep'"):
        PrototypeReadout(CHANNELS, levels=("high", "deep"))
    with pytest.raises(ValueError, match="expected levels of low, mid, high, got none"):
        PrototypeReadout(CHANNELS, levels=())


def test_one_walk_for_all_is_a_walk_for_each():
    g = torch.Generator().manual_seed(0)
    walk, maps = torch.rand(1, 6, 6, generator=g), torch.rand(4, 6, 3, generator=g)
    expected = torch.stack([walk[0] @ one for one in maps])
    assert torch.allclose(prototype.walked(walk.expand(4, 6, 6), maps), expected)
    assert torch.allclose(prototype.walked(walk.repeat(4, 1, 1), maps), expected)
