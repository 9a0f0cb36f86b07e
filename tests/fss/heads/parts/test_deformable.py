"""Deformable attention against averages that are known and bilinear sampling by loops."""

import math

import torch
from torch import nn

from fss.heads.parts.deformable import DeformableAttention, centres, rays, sample


def bilinear(values: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """The value of (C, h, w) at column x and row y, zero outside."""
    total = torch.zeros(len(values))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < values.shape[1] and 0 <= column < values.shape[2]:
                total += values[:, row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


def test_sampling_equals_loops():
    g = torch.Generator().manual_seed(0)
    values, points = torch.randn(2, 3, 4, 6, generator=g), torch.rand(2, 5, 2, 2, generator=g) * 9 - 1.5
    found = sample(values, points)
    assert found.shape == (2, 3, 5, 2)
    for b in range(2):
        for n in range(5):
            for p in range(2):
                assert torch.allclose(found[b, :, n, p], bilinear(values[b], *points[b, n, p].tolist()), atol=1e-5)


def plain(dim: int, heads: int, points: int) -> DeformableAttention:
    """Attention whose values and output are its input."""
    torch.manual_seed(0)
    module = DeformableAttention(dim, heads, points).eval()
    for layer in (module.values, module.out):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    return module


def test_without_offsets_it_is_the_identity():
    with torch.random.fork_rng(devices=[]):
        module = plain(8, 2, 3)
        x = torch.randn(2, 12, 8)
    nn.init.zeros_(module.offsets.bias)
    assert torch.allclose(module(x, x, (3, 4)), x, atol=1e-5)


def test_at_first_each_head_averages_along_its_ray():
    """Head 0 looks to the right, head 1 of two to the left; outside there is zero."""
    with torch.random.fork_rng(devices=[]):
        module = plain(4, 2, 2)
        x = torch.randn(1, 12, 4)
    found, grid = module(x, x, (3, 4)).detach().unflatten(1, (3, 4))[0], x.unflatten(1, (3, 4))[0]
    padded = torch.cat([torch.zeros(3, 2, 4), grid, torch.zeros(3, 2, 4)], dim=1)
    right, left = (padded[:, 3:7] + padded[:, 4:8]) / 2, (padded[:, 1:5] + padded[:, :4]) / 2
    assert torch.allclose(found[..., :2], right[..., :2], atol=1e-4)
    assert torch.allclose(found[..., 2:], left[..., 2:], atol=1e-4)


@torch.no_grad()
def test_trained_attention_equals_loops():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = DeformableAttention(8, 2, 3).eval()
        for layer in (module.offsets, module.weights):
            nn.init.normal_(layer.weight, std=0.3)
        x, places = torch.randn(2, 12, 8), torch.randn(2, 12, 8)
    found = module(x, places, (3, 4))
    values = module.values(x).transpose(1, 2).unflatten(2, (3, 4)).unflatten(1, (2, 4))  # of maps and heads
    for b in range(2):
        for n in range(12):
            points = module.offsets(places[b, n]).view(2, 3, 2) + torch.tensor([n % 4, n // 4])
            weights = module.weights(places[b, n]).view(2, 3).softmax(1)
            heads = [
                sum(weights[h, p] * bilinear(values[b, h], *points[h, p].tolist()) for p in range(3)) for h in (0, 1)
            ]
            assert torch.allclose(found[b, n], module.out(torch.cat(heads)), atol=1e-4)


def test_eight_rays_are_the_eight_neighbours():
    first = rays(8, 3)[:, 0].round()
    assert {tuple(p) for p in first.int().tolist()} == {(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)} - {(0, 0)}
    assert torch.allclose(rays(8, 3)[:, 2], 3 * rays(8, 3)[:, 0])


def test_centres_by_hand():
    assert centres((2, 3)).tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]
