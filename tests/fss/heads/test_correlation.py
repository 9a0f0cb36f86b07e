"""The correlation maps by loops, and the read-out that the head starts from."""

import torch

from fss.heads.parts.correlations import compared, correlation_maps
from fss.heads.parts.tokens import flat_masks, flat_tokens, prototype_cosines, unit_grid
from fss.heads.parts.walk import affinity_walk
from tests.fss.heads.test_heads import episode, head


def parts(shots: int = 2):
    query, support, masks = episode(shots=shots)
    levels = ("mid", "high")
    q = unit_grid(query, levels).flatten(2)
    shots = unit_grid({k: v.flatten(0, 1) for k, v in support.items()}, levels).unflatten(0, masks.shape[:2])
    s = flat_tokens(shots)
    return q, s, flat_masks(masks), affinity_walk(q)


def test_maps_equal_loops():
    q, s, weights, walk = parts()
    maps = correlation_maps(q, compared(s, weights), walk)
    assert maps.shape == (3, 8, 25)
    means = prototype_cosines(q, s, weights)
    for b in range(3):
        sides = [[m for m in range(50) if weights[b, 1, m] >= 0.5], [m for m in range(50) if weights[b, 0, m] > 0.5]]
        near = [torch.stack([max(q[b, :, n] @ s[b, :, m] for m in side) for n in range(25)]) for side in sides]
        contrast = means[b, 1] - means[b, 0]
        thrice = walk[b] @ walk[b] @ walk[b]
        expected = [means[b, 1], means[b, 0], *near]
        expected += [3 * contrast, 3 * walk[b] @ contrast, 3 * thrice @ contrast, 3 * thrice @ (near[0] - near[1])]
        assert torch.allclose(maps[b], torch.stack(expected), atol=1e-5)


def test_a_side_without_cells_falls_back_to_its_mean():
    q, s, weights, walk = parts()
    weights = weights.clone()
    weights[:, 1] = weights[:, 1].clamp(max=0.4)
    maps = correlation_maps(q, compared(s, weights), walk)
    assert torch.equal(maps[:, 2], maps[:, 0])


def test_the_untrained_head_is_the_smoothed_contrast():
    q, s, weights, walk = parts()
    contrast = prototype_cosines(q, s, weights)[:, 1] - prototype_cosines(q, s, weights)[:, 0]
    smoothed = (walk @ walk @ walk @ contrast[..., None])[..., 0].unflatten(1, (5, 5))
    found = head("correlation", residual="smoothed")(*episode(shots=2))
    assert torch.allclose(found[:, 1] - found[:, 0], 15 * smoothed, atol=1e-4)
