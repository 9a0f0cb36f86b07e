"""MaskSplit's model: its parts by hand, the published size, shots, and that training it helps."""

import pytest
import torch
import torch.nn.functional as F

from fss import heads
from fss.heads.masksplit import MixingModule, doubled
from tests.fss.heads.learning import learns
from tests.fss.heads.test_heads import CHANNELS, episode, head


def test_it_has_the_released_number_of_weights():
    """5,454,224 on ResNet-101's block2 to block4, counted in the released code."""
    module = heads.build("masksplit", {}, {"low": 512, "mid": 1024, "high": 2048}, corners=True)
    assert sum(p.numel() for p in module.parameters()) == 5_454_224


def mixture_of(channels: int, dim: int) -> MixingModule:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MixingModule(channels, dim)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (2, 2), (1, 1)])
def test_the_mixture_is_one_convolution_of_query_and_broadcast_prototypes(height, width):
    g = torch.Generator().manual_seed(0)
    mixture, levels = mixture_of(3, 8), torch.randn(2, 3, height, width, generator=g)
    vector = torch.randn(2, 3, generator=g)
    kernel = torch.cat([mixture.own.weight, mixture.vector.weight.view(8, 9, 3).mT.reshape(8, 3, 3, 3)], dim=1)
    broadcast = vector[:, :, None, None].expand_as(levels)
    joint = F.conv2d(torch.cat([levels, broadcast], dim=1), kernel, mixture.own.bias, padding=1)
    torch.testing.assert_close(mixture(mixture.own(levels), vector), F.relu(mixture.norm(joint)))


def test_its_first_weights_are_those_of_the_one_convolution():
    """Uniform within 1 / sqrt(fan-in), the fan-in of both parts together."""
    mixture, bound = mixture_of(30, 64), (60 * 9) ** -0.5
    for weight in (mixture.own.weight, mixture.vector.weight):
        assert 0.99 * bound < weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_the_prototype_is_the_masked_average_of_the_projected_support():
    module, (query, support, masks) = head("masksplit"), episode(shots=1)
    seen, shots = module.prepare(query, support, masks)
    share = masks[:, 0, 1]
    average = (shots["levels"][:, 0] * share[:, None]).sum((2, 3)) / share.sum((1, 2))[:, None]
    torch.testing.assert_close(module(query, support, masks), module._answer(seen["own"], average))


def test_doubling_keeps_places():
    """A ramp stays the same ramp: from 0 to 1 over the centres, or over the cells that tile the image."""
    ramp = torch.linspace(0, 1, 4).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    assert doubled(ramp, True)[0, 0, 0].tolist() == pytest.approx([i / 6 for i in range(7)])
    tiles = (torch.arange(4) + 0.5).view(1, 1, 1, 4).expand(1, 1, 4, 4) / 4
    assert doubled(tiles, False)[0, 0, 0, 1:-1].tolist() == pytest.approx([(i + 0.5) / 8 for i in range(1, 7)])


@pytest.mark.parametrize(("corners", "side"), [(True, 33), (False, 40)])
def test_the_grid_is_that_of_the_backbones_geometry(corners, side):
    module = heads.build("masksplit", {"dim": 32}, CHANNELS, corners=corners).eval()
    assert module(*episode()).shape == (3, 2, side, side)
    residual = heads.build("masksplit", {"dim": 32, "residual": "smoothed"}, CHANNELS, corners=corners).eval()
    assert residual(*episode()).shape == (3, 2, side, side)


def test_logits_of_shots_are_averaged_over_those_that_show_the_thing():
    module, (query, support, masks) = head("masksplit", shots="logits", steps=2), episode(shots=3)
    masks[0, 1, 1] = 0
    alone = [module(query, {n: v[:, k : k + 1] for n, v in support.items()}, masks[:, k : k + 1]) for k in range(3)]
    found = module(query, support, masks)
    torch.testing.assert_close(found[0], (alone[0][0] + alone[2][0]) / 2)
    torch.testing.assert_close(found[1], torch.stack(alone)[:, 1].mean(0))
    together = head("masksplit", steps=2)(query, support, masks)
    assert (together[1] - found[1]).abs().max() > 1e-3


def test_training_learns_to_look_at_the_support():
    before, after = learns("masksplit", steps=170, dim=32)
    assert after.loss < 0.6 * before.loss
    assert after.iou > before.iou + 0.3
    assert after.iou > 0.5  # without the support 1/4 is the best
