"""The head by the formulas it is made of."""

import torch
import torch.nn.functional as F

from fss import heads
from fss.heads.parts.agglomeration import agglomerate
from fss.heads.segments import averages
from tests.fss.heads.test_heads import CHANNELS, episode


def margin(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 1] - logits[:, 0]


def test_averages_by_hand():
    found = averages(torch.tensor([[1, 0, 1]])) @ torch.tensor([2.0, 7.0, 4.0])
    assert found.tolist() == [[3, 7, 3]]


def test_without_segments_and_seeds_it_is_the_smoothed_readout():
    inputs = episode(shots=2)
    found = heads.build("segments", {"tau": 1.0, "seeds": 0}, CHANNELS, corners=True)(*inputs)
    assert torch.allclose(
        margin(found), margin(heads.build("smoothed", {}, CHANNELS, corners=True)(*inputs)), atol=1e-4
    )


def test_without_walk_and_seeds_it_is_the_mean_of_segments():
    query, support, masks = episode()
    levels = ["high"]
    chosen = {"levels": levels, "tau": 0.2, "steps": 0, "seeds": 0}
    found = margin(heads.build("segments", chosen, CHANNELS, corners=True)(query, support, masks)).flatten(1)
    plain = margin(heads.build("prototype", {"levels": levels}, CHANNELS, corners=True)(query, support, masks)).flatten(
        1
    )
    for b in range(3):
        labels = agglomerate(F.normalize(query["high"][b].flatten(1), dim=0).T.numpy(), 0.2)
        assert 1 < labels.max() + 1 < 25
        for cell in range(25):
            expected = plain[b, torch.from_numpy(labels == labels[cell])].mean()
            assert torch.allclose(found[b, cell], expected, atol=1e-5)


def _mean(tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return F.normalize((tokens * weights).sum((1, 2)), dim=0)


def test_seeds_add_the_likeness_to_the_querys_own_best_and_worst():
    query, support, masks = episode()
    chosen = {"levels": ["high"], "tau": 1.0, "steps": 0, "scale": 1.0}
    first, both = (
        margin(heads.build("segments", chosen | {"seeds": s}, CHANNELS, corners=True)(query, support, masks))
        for s in (0, 0.5)
    )
    tokens = F.normalize(query["high"], dim=1)
    for b in range(3):
        best, worst = (_mean(tokens[b], (sign * (first[b] - sign * 0.5) / 0.02).exp()) for sign in (1, -1))
        own = torch.einsum("c,chw->hw", best - worst, tokens[b])
        assert torch.allclose(both[b], first[b] + 0.5 * (own - own.mean()), atol=1e-4)
