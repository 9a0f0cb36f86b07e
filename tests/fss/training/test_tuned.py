"""A backbone that is trained in part: the named parameters and nothing else, from pixels."""

import copy

import pytest
import torch

from fss import backbones, heads
from fss.heads.parts import losses
from fss.training.step import MetaModule
from fss.training.tuned import Tuned, TunedModule

PART = "layer4.1"


@pytest.fixture(scope="module")
def backbone():
    return backbones.build("resnet18", "random", seed=0)


@pytest.fixture(scope="module")
def batch():
    g = torch.Generator().manual_seed(0)
    query, support = torch.randn(2, 3, 65, 65, generator=g), torch.randn(2, 3, 3, 65, 65, generator=g)
    return query, support, torch.rand(2, 3, 2, 5, 5, generator=g), torch.rand(2, 2, 9, 9, generator=g).softmax(1)


def module(backbone, recompute=False):
    head = heads.build("correlation", {}, backbone.channels, corners=True, seed=1)
    tuned = Tuned(copy.deepcopy(backbone), [PART], recompute)
    return TunedModule(head.eval(), losses.cross_entropy_dice, backbone.corners, tuned)


def gradients(own, batch):
    own.zero_grad()
    own(*batch)["loss"].backward()
    return {name: p.grad for name, p in own.named_parameters() if p.grad is not None}


def test_before_any_step_it_is_the_frozen_backbones_module(backbone, batch):
    own = module(backbone)
    query, support, masks, truth = batch
    flat = {level: v.unflatten(0, (2, 3)) for level, v in backbone(support.flatten(0, 1)).items()}
    frozen = MetaModule(own.head, losses.cross_entropy_dice, backbone.corners)(backbone(query), flat, masks, truth)
    assert own(*batch)["loss"].item() == pytest.approx(frozen["loss"].item(), rel=1e-4)


def test_only_what_is_named_gets_gradients_and_statistics_stay(backbone, batch):
    own = module(backbone)
    own.backbone.train()
    before = {name: buffer.clone() for name, buffer in own.backbone.named_buffers()}
    found = {name.removeprefix("backbone.") for name in gradients(own, batch) if name.startswith("backbone.")}
    expected = {name for name, _ in backbone.named_parameters() if name.startswith(f"net.{PART}")}
    assert found == expected == set(own.tuned())
    assert len(expected) == 6
    assert all(torch.equal(buffer, before[name]) for name, buffer in own.backbone.named_buffers())
    assert all(p.stride() == torch.empty(p.shape).stride() for p in own.backbone.parameters()), "DeepSpeed sends bytes"
    assert not any(parameter.requires_grad for parameter in backbone.parameters()), "the caller's is left alone"


def test_recomputing_gives_the_same_gradients_and_keeps_less(backbone, batch):
    kept, found, pixels = {}, {}, torch.cat([batch[0], batch[1].flatten(0, 1)])
    for recompute in (False, True):
        sizes: list[int] = []
        own = module(backbone, recompute).backbone
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            features = own(pixels)
        kept[recompute] = sum(sizes)
        (features["high"] * features["high"].detach().cos()).mean().backward()
        found[recompute] = {name: p.grad for name, p in own.named_parameters() if p.grad is not None}
    assert kept[True] < kept[False] / 3
    assert found[True].keys() == found[False].keys()
    for name, value in found[False].items():
        torch.testing.assert_close(found[True][name], value, rtol=1e-3, atol=1e-3 * float(value.abs().max()))


def test_a_part_that_is_none_is_an_error_that_names_the_parts(backbone):
    with pytest.raises(ValueError, match=r"names of resnet18's parameters, got 'layer9'; they begin with .*layer4.1"):
        Tuned(copy.deepcopy(backbone), ["layer9"])


@pytest.mark.parametrize("kept", [True, False])
def test_weights_in_bfloat16_with_statistics_of_either_type(backbone, batch, kept):
    """DeepSpeed rounds weights, and statistics or not."""
    exact, rounded = (Tuned(copy.deepcopy(backbone), [PART]) for _ in range(2))
    statistics = dict(backbone.named_buffers())
    rounded.bfloat16()
    if kept:
        for name, buffer in rounded.named_buffers():
            buffer.data = statistics[name].clone()
    expected, found = exact(batch[0]), rounded(batch[0])
    for level, values in expected.items():
        assert found[level].dtype == torch.float32
        assert (found[level] - values).norm() < 0.05 * values.norm()
