"""What every head promises: shapes, gradients, independence of the batch, and what changes nothing."""

import copy
from typing import Protocol

import pytest
import torch
from torch import nn

from fss import heads, precision
from fss.backbones import Features
from fss.grid import enlarge
from fss.heads.parts import capabilities, losses
from fss.heads.parts.capabilities import Fits, Recalls, SeesBlank, Studies
from fss.heads.umtfss import masked_average

CHANNELS = {"low": 6, "mid": 8, "high": 9}
OPTIONS = {
    "prototype": {},
    "nearest": {"k": 3},
    "cluster_match": {"clusters": 2},
    "corpus_readout": {"index_size": 8, "neighbours": 3, "corpus": 0.1},
    "correlation": {"dim": 16},
    "umtfss": {"dim": 16, "heads": 2, "foreground_prototypes": 4, "background_prototypes": 6},
    "panet": {"dim": 12},
    "mining": {"dim": 12, "width": 8, "clusters": 3, "images": 6, "rectify": 2},
    "pfenet": {"dim": 16, "bins": [1.0, 0.5, 0.2]},
    "masksplit": {"dim": 32},
    "sst": {"dim": 16},
    "pixel_meta": {"hidden": 16, "dim": 8, "cells": 12, "k": 3},
    "cyctr": {"dim": 16, "heads": 2, "points": 3, "foreground_tokens": 30, "background_tokens": 30},
}
#: All that a head may be able to do besides.
CAPABILITIES = [
    kind for kind in vars(capabilities).values() if getattr(kind, "_is_protocol", False) and kind is not Protocol
]
LEARNED = [name for name in heads.names() if heads.kind(name).trained]
#: Those whose rule has a support count once, however often it is shown.
FREE = ("cluster_match", "nearest", "prototype", "saliency", "segments", "smoothed")
ONCE = (*FREE, "correlation", "panet", "pfenet", "cyctr", "masksplit", "sst", "pixel_meta", "mining")


def is_on_grid(logits: torch.Tensor, *shape: int) -> bool:
    """Whether (B, 2, H, W) logits are on a grid of `shape`, or divide each of its steps by a whole number."""
    pairs = zip(logits.shape[-2:], shape, strict=True)
    return all(own >= side and (own - 1) % max(side - 1, 1) == 0 for own, side in pairs)


def on_grid(logits: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B, 2, h, w) logits on the grid of (..., h, w)."""
    return logits if logits.shape[-2:] == like.shape[-2:] else enlarge(logits, (*like.shape[-2:],), corners=True)


def episode(episodes: int = 3, shots: int = 1, grid: int = 5, seed: int = 0):
    """Random features, `low` on a finer grid, and masks with some void."""
    g = torch.Generator().manual_seed(seed)
    sides = {"low": 2 * grid, "mid": grid, "high": grid}

    def features(*lead: int) -> Features:
        return {k: torch.randn(*lead, c, sides[k], sides[k], generator=g) for k, c in CHANNELS.items()}

    masks = torch.rand(episodes, shots, 1, grid, grid, generator=g)
    known = (torch.rand(episodes, shots, 1, grid, grid, generator=g) < 0.9).float()
    return features(episodes), features(episodes, shots), torch.cat([1 - masks, masks], 2) * known


def head(name: str, *, steps: int = 0, seed: int = 0, **options: object) -> nn.Module:
    """A head in evaluation mode, fitted if need be; after `steps` of training no weight is at its special start."""
    module = heads.build(name, OPTIONS.get(name, {}) | options, CHANNELS, corners=True, seed=seed)
    if isinstance(module, Fits):
        module.fit(module.describe(module.embed(episode(8, seed=300)[0])).numpy(), seed=0)
    if isinstance(module, SeesBlank):
        module.see_blank(episode(1, seed=600)[0])
    if isinstance(module, Recalls):
        shown, _, masks = episode(8, seed=500)
        module.fill(module.prototypes(module.embed(shown), masks[:, 0]).numpy())
    if isinstance(module, Studies) and module.studies:
        module.study(studied(), seed=0)
    module.eval()  # no dropout: it would draw from the global generator
    for step in range(steps if name in LEARNED else 0):
        train_step(module, seed=step)
    return module


def studied(number: int = 6) -> list[tuple[Features, torch.Tensor]]:
    """Training images that a head may study, in two parts."""
    images, _, masks = episode(number, seed=400)
    return [({k: v[part] for k, v in images.items()}, masks[part, 0]) for part in (slice(0, 4), slice(4, None))]


def train_step(module: nn.Module, seed: int = 0, lr: float = 5e-3) -> float:
    """One step down by the signs of the gradients; `torch.optim` takes seconds to import."""
    query, support, masks = episode(seed=100 + seed)
    truth = episode(seed=200 + seed)[2][:, 0]
    module.zero_grad()
    loss = losses.cross_entropy_dice(on_grid(module(query, support, masks), truth), truth)
    loss.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.sub_(lr * parameter.grad.sign())
    return loss.item()


@pytest.mark.parametrize("name", heads.names())
@pytest.mark.parametrize("shots", [1, 3])
def test_logits_are_on_the_grid_for_any_number_of_shots(name, shots):
    found = head(name)(*episode(shots=shots))
    assert found.shape[:2] == (3, 2)
    assert is_on_grid(found, 5, 5)
    assert found.dtype == torch.float32
    assert found.isfinite().all()


@pytest.mark.parametrize("name", heads.names())
def test_a_batch_equals_one_by_one(name):
    module, (query, support, masks) = head(name, steps=3), episode(shots=2)
    whole = module(query, support, masks)
    for i in range(3):
        one = module(
            {k: v[i : i + 1] for k, v in query.items()}, {k: v[i : i + 1] for k, v in support.items()}, masks[i : i + 1]
        )
        assert torch.allclose(one[0], whole[i], atol=1e-4)


@pytest.mark.parametrize("name", heads.names())
def test_coarse_products_give_nearly_the_same_logits(name, monkeypatch):
    module, given = head(name, steps=3), episode(shots=2)
    exact = module(*given)
    monkeypatch.setattr(precision, "_MULTIPLIES", True)
    with torch.inference_mode():
        found = module(*given)
    assert found.dtype == torch.float32
    assert (found - exact).abs().mean() < 0.03 * exact.std()


@pytest.mark.parametrize("name", heads.names())
def test_the_same_support_twice_is_nearly_the_same_as_once(name):
    """Exactly so where the published rule is a mean; UMTFSS spreads its prototypes' first centroids over all shots."""
    module, (query, support, masks) = head(name, steps=3), episode()
    once = module(query, support, masks)
    twice = module(query, {k: v.repeat(1, 2, 1, 1, 1) for k, v in support.items()}, masks.repeat(1, 2, 1, 1, 1))
    assert (once - twice).abs().mean() < 0.1 * once.std()
    if name in ONCE:
        assert torch.allclose(once, twice, atol=1e-4)


@pytest.mark.parametrize("name", heads.names())
def test_the_order_of_supports_hardly_matters(name):
    module, (query, support, masks) = head(name, steps=3), episode(shots=2)
    forward = module(query, support, masks)
    backward = module(query, {k: v.flip(1) for k, v in support.items()}, masks.flip(1))
    assert (forward - backward).abs().mean() < (1e-4 if name in ONCE else 0.2) * forward.std()


@pytest.mark.parametrize("name", ["correlation", "umtfss"])
def test_every_parameter_gets_a_gradient(name):
    module = head(name)
    train_step(module)
    assert without_gradient(module) == []


def without_gradient(module: nn.Module) -> list[str]:
    """Names of the parameters that the last step gave none."""
    return [k for k, p in module.named_parameters() if p.grad is None or p.grad.abs().max() == 0]


@pytest.mark.parametrize("name", ["correlation", "umtfss"])
def test_training_lowers_the_loss(name):
    module = head(name)
    first, *_, last = [train_step(module, lr=3e-3) for _ in range(30)]
    assert last < 0.8 * first


@pytest.mark.parametrize("name", heads.names())
def test_bfloat16_weights_give_nearly_the_same_float32_logits(name):
    """Only the weights are rounded; features, masks and read-outs stay in float32."""
    module, inputs = head(name, steps=3), episode(shots=2)
    exact, rounded = module(*inputs), copy.deepcopy(module).bfloat16()(*inputs)
    assert rounded.dtype == torch.float32
    assert (exact - rounded).abs().mean() < 0.1 * exact.std()


@pytest.mark.parametrize("name", heads.names())
def test_autocast_runs(name):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(name, steps=1)(*episode(shots=2))
    assert found.isfinite().all()


@pytest.mark.parametrize("name", heads.names())
@pytest.mark.parametrize("value", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)], ids=["void", "background", "foreground"])
def test_plain_supports_give_finite_logits_and_gradients(name, value):
    query, support, masks = episode(shots=2)
    masks[:, 0, 0], masks[:, 0, 1] = value
    masks[0, 1, 0], masks[0, 1, 1] = value
    module = head(name, steps=1)
    found = module(query, support, masks)
    assert found.isfinite().all()
    if name in LEARNED:
        module.zero_grad()
        found.sum().backward()
        assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", heads.names())
def test_a_void_support_changes_nothing(name):
    module, (query, support, masks) = head(name, steps=3), episode(shots=2)
    alone = module(query, support, masks)
    other = episode(seed=9)[1]
    more = {k: torch.cat([v, other[k]], dim=1) for k, v in support.items()}
    found = module(query, more, torch.cat([masks, torch.zeros_like(masks[:, :1])], dim=1))
    assert torch.allclose(found, alone, atol=1e-4)


@pytest.mark.parametrize("name", ["prototype", "nearest", "cluster_match"])
def test_a_distractor_says_nothing_of_the_foreground(name):
    """Two supports and three without the thing; where both sides have logits of their own, only one moves."""
    module, (query, support, masks) = head(name), episode(shots=2)
    other = episode(shots=3, seed=9)[1]
    more = {k: torch.cat([other[k], v], dim=1) for k, v in support.items()}
    empty = torch.stack([torch.ones_like(masks[:, :1, 0]), torch.zeros_like(masks[:, :1, 0])], dim=2)
    alone, found = (
        module(query, support, masks),
        module(query, more, torch.cat([empty.expand(-1, 3, -1, -1, -1), masks], 1)),
    )
    assert torch.allclose(found[:, 1], alone[:, 1], atol=1e-4)
    assert torch.allclose(found[:, 0], alone[:, 0], atol=1e-4) == (name == "cluster_match")


def test_prototypes_of_the_foreground_are_averages_over_cells_not_over_supports():
    """UMTFSS: one full and two empty supports have the full one's average, not a third of it."""
    features, share = torch.full((1, 3, 4, 2, 2), 6.0), torch.zeros(1, 3, 2, 2)
    share[0, 1] = 1
    assert torch.allclose(masked_average(features, share), torch.full((1, 4), 6.0))
    bare = head("umtfss")
    points = torch.randn(1, 30, 16, generator=torch.Generator().manual_seed(0))
    shares = torch.zeros(1, 30, 2)
    shares[:, :10, 1], shares[:, 10:, 0] = 1, 1
    alone, used = bare.summary(points[:, :20], shares[:, :20])
    found, _ = bare.summary(points, shares)
    background = OPTIONS["umtfss"]["background_prototypes"]
    assert torch.allclose(found[:, background:], alone[:, background:], atol=1e-5)
    assert used[:, background:].any()


@pytest.mark.parametrize("name", LEARNED)
def test_the_seed_draws_the_weights(name):
    first, again, other = (head(name, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


@pytest.mark.parametrize("name", heads.training_free())
def test_what_needs_no_training_has_no_parameters(name):
    assert list(head(name).parameters()) == []


@pytest.mark.parametrize("name", heads.names())
def test_what_is_kept_of_images_leads_with_the_batch(name):
    """Evaluation keeps it per image, so each tensor must divide along its first dimension."""
    module, (query, _, _) = head(name), episode()
    embedded = module.embed(query)
    for found in (embedded, module.focus(embedded)):
        assert {len(values) for values in found.values()} == {3}


def test_capabilities_are_opted_into():
    """What a head does not do is no method of it, so that nobody takes it for something that it can."""
    able = {kind.__name__: [n for n in heads.names() if isinstance(head(n), kind)] for kind in CAPABILITIES}
    assert set(FREE) <= set(heads.training_free())
    some = {"Fits": "cluster_match", "Recalls": "corpus_readout", "Studies": "mining", "Settles": "mining"}
    for kind, name in {**some, "Ways": "pixel_meta", "SeesBlank": "insid3"}.items():
        assert name in able[kind]
        assert "correlation" not in able[kind]
    assert set(able["Silences"]) <= set(LEARNED)
    assert "correlation" in able["Silences"]
