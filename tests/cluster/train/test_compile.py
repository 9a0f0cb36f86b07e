"""train.compile changes nothing but the speed."""

import shutil

import pytest
import torch

from cluster.features.backbone import BackboneSpec
from cluster.train.recipe import MetaRecipe
from cluster.train.settings import means, settings
from fss.heads.parts.head import Head
from jobs._config import load

SPEC = BackboneSpec("small", "random", 8, 32, 0)


class Small(Head):
    """As little as can be compiled: that takes most of the time."""

    def __init__(self, channels):
        super().__init__()
        self.weigh = torch.nn.Conv2d(channels["high"], 2, 1)
        torch.nn.init.constant_(self.weigh.weight, 0.1)
        torch.nn.init.zeros_(self.weigh.bias)

    def match(self, query, support, masks):
        return self.weigh(query["high"] * support["high"].mean(dim=1))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_a_compiled_head_scores_the_same(monkeypatch):
    monkeypatch.setattr("cluster.features.head.heads.build", lambda name, options, channels, **_: Small(channels))
    config = load(["experiment=tiny", "backbone.weights=random"])
    found, g = [], torch.Generator().manual_seed(0)
    channels = SPEC.load().backbone.channels
    query = {level: torch.randn(2, c, 4, 4, generator=g) for level, c in channels.items()}
    support = {level: torch.randn(2, 1, c, 4, 4, generator=g) for level, c in channels.items()}
    masks, truth = torch.rand(2, 1, 2, 4, 4, generator=g), torch.rand(2, 2, 9, 9, generator=g).softmax(1)
    for compiled in (False, True):
        config.train.compile = compiled
        recipe = MetaRecipe(None, None, SPEC, settings(config), means(config), {})
        module = recipe.module(torch.device("cpu")).eval()
        figures = module(query, support, masks, truth)
        figures["loss"].backward()
        gradients = {name: p.grad for name, p in module.named_parameters()}
        found.append((figures["loss"].item(), gradients, module._compiled_call_impl is not None))
    (loss, gradients, plain), (same, others, quick) = found
    assert (plain, quick) == (False, True)
    assert same == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == others.keys()
    for name, value in gradients.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-6)
