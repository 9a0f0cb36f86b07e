"""PFENet's parts against the published form of one convolution, its K-shot rule, and that it learns."""

import pytest
import torch
import torch.nn.functional as F

from fss import heads
from fss.heads.parts.shots import shot_means, shot_priors
from fss.heads.parts.tokens import middle_features
from tests.fss.heads.learning import learns
from tests.fss.heads.test_heads import CHANNELS, episode, head


def test_a_join_is_one_convolution_of_all_side_by_side():
    join = heads.build("pfenet", {"dim": 6}, CHANNELS, corners=True).scales[0].join
    g = torch.Generator().manual_seed(0)
    x, vector, prior = (
        torch.randn(2, 6, 3, 4, generator=g),
        torch.randn(2, 6, generator=g),
        torch.rand(2, 1, 3, 4, generator=g),
    )
    kernel = torch.cat([join.own.weight, join.vector.weight[..., None, None], join.maps.weight], dim=1)
    beside = torch.cat([x, vector[..., None, None].expand_as(x), prior], dim=1)
    assert torch.allclose(join(join.own(x), vector, prior), F.conv2d(beside, kernel, join.own.bias), atol=1e-5)
    assert kernel.abs().max() <= 13**-0.5


def test_the_enrichment_equals_the_published_steps():
    """Merge, inter-scale interaction from fine to coarse, and concentration, written out."""
    module, (query, support, masks) = head("pfenet", steps=2, bins=[1.0, 0.6]), episode(shots=2)
    q = module.reduce_query(middle_features(query))
    s = module.embed({k: v.flatten(0, 1) for k, v in support.items()})["support"].unflatten(0, (3, 2))
    vector = shot_means(s, masks[:, :, 1])
    prior = shot_priors(query["high"], support["high"], masks[:, :, 1])

    def bilinear(x: torch.Tensor, side: int) -> torch.Tensor:
        return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=True)

    found: list[torch.Tensor] = []
    for scale, side in zip(module.scales, (5, 3), strict=True):
        x = F.adaptive_avg_pool2d(q, side)
        x = F.relu(scale.join(scale.join.own(x), vector, bilinear(prior, side)))
        if found:
            x = x + scale.from_finer(torch.cat([x, bilinear(found[-1], side)], 1))
        found.append(x + scale.convolve(x))
    x = module.concentrate(torch.cat([found[0], bilinear(found[1], 5)], 1))
    expected = module.classify(x + module.residual(x))
    logits, auxiliary = module.learn(query, support, masks)
    assert torch.allclose(logits, expected, atol=1e-5)
    for part, classify, x in zip(auxiliary, module.inner, found, strict=True):
        assert torch.allclose(part.logits, classify(x), atol=1e-5)
        assert part.target is None


def test_the_scales_losses_have_a_mean_of_weight_one():
    _, auxiliary = head("pfenet").learn(*episode())
    assert [part.name for part in auxiliary] == ["inner0", "inner1", "inner2"]
    assert [part.logits.shape[-1] for part in auxiliary] == [5, 2, 1]
    assert sum(part.weight for part in auxiliary) == pytest.approx(1)
    assert head("pfenet", inner=0).learn(*episode())[1] == ()


def test_a_distractor_changes_nothing():
    """Only what supports show of the thing is used at all."""
    module, (query, support, masks) = head("pfenet", steps=2), episode(shots=2)
    masks[:, 1, 0], masks[:, 1, 1] = 1, 0
    alone = module(query, {k: v[:, :1] for k, v in support.items()}, masks[:, :1])
    assert torch.allclose(module(query, support, masks), alone, atol=1e-5)


def test_it_learns():
    before, after = learns("pfenet", dim=16, bins=[1.0, 0.5], dropout=0.1)
    assert after.loss < 0.3 * before.loss
    assert after.iou > 0.8 > 0.3 > before.iou
