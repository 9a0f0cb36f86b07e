"""A head added to a read-out: where it starts, that all of it learns, and that nothing is computed twice."""

import numpy as np
import pytest
import torch
from torch import nn

from fss import heads
from fss.backbones import Features
from fss.heads.parts.head import Auxiliary, Head
from fss.heads.parts.residual import Residual, wrapped
from fss.segmenter import Segmenter
from tests.fss.heads.test_heads import CHANNELS, LEARNED, TRAINED, episode, head, on_grid, train_step, without_gradient
from tests.fss.test_segmenter import MASKS, SUPPORTS, noise_image, write


class Learned(Head):
    """One weight a channel of the query, with a further prediction of its own."""

    transformers = ("mix",)

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(CHANNELS["high"], 2, 1)

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        return self.mix(query["high"])

    def learn(self, query: Features, support: Features, masks: torch.Tensor):
        return self(query, support, masks) + 1, (Auxiliary("more", query["high"][:, :2]),)


class Silent(Learned):
    """The same with a last layer that can be zero."""

    def silence(self) -> None:
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)


def seeded(kind: type[Head]) -> Head:
    with torch.random.fork_rng(devices=[]):
        return kind()


@pytest.mark.parametrize("readout", ["prototype", "smoothed"])
@pytest.mark.parametrize("name", LEARNED)
def test_the_untrained_residual_head_decides_as_its_readout(name, readout):
    """Whatever its random weights are; and without the read-out it would decide otherwise."""
    inputs = episode(shots=2)
    for seed in range(2):
        found = head(name, seed=seed, residual=readout)(*inputs)
        expected = on_grid(heads.build(readout, CHANNELS)(*inputs), found).argmax(dim=1)
        assert torch.equal(found.argmax(dim=1), expected)
        assert torch.allclose(found[:, 0], -found[:, 1])
    assert not torch.equal(head(name)(*inputs).argmax(dim=1), expected)


@pytest.mark.parametrize("readout", ["prototype", "smoothed"])
@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_gets_a_gradient_after_one_step(name, readout):
    """The last layer starts at zero, so that those before it get none in the first step."""
    module = head(name, residual=readout)
    train_step(module)
    assert len(without_gradient(module)) > 0
    train_step(module)
    assert without_gradient(module) == []


@pytest.mark.parametrize("readout", ["prototype", "smoothed"])
@pytest.mark.parametrize("name", LEARNED)
def test_the_logits_are_the_heads_plus_the_gained_readouts(name, readout):
    """Image by image as evaluation calls it, and of the trained head."""
    module, (query, support, masks) = head(name, residual=readout), episode(shots=2)
    for step in range(3):
        train_step(module, seed=step)
    shots = module.embed({k: v.flatten(0, 1) for k, v in support.items()})
    focused = module.focus(module.embed(query))
    found = module.match(focused, {k: v.unflatten(0, masks.shape[:2]) for k, v in shots.items()}, masks)
    plain = on_grid(heads.build(readout, CHANNELS, scale=1.0)(query, support, masks), found)
    half = module.gain * (plain[:, 1] - plain[:, 0]) / 2
    expected = module.head(query, support, masks) + torch.stack([-half, half], 1)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(module(query, support, masks), expected, atol=1e-5)
    assert module.gain.item() != 15


def test_what_a_head_embeds_for_itself_is_lent_to_the_smoothed_readout():
    query = episode()[0]
    for name, options in (("correlation", {}), ("umtfss", {"maps": True})):
        module = head(name, residual="smoothed", **options)
        assert not any(key.startswith("readout.") for key in module.focus(module.embed(query)))
    for module in (head("umtfss", residual="smoothed", maps=False), head("correlation", residual="prototype")):
        assert any(key.startswith("readout.") for key in module.focus(module.embed(query)))


def test_training_scores_the_sum_and_the_heads_further_predictions():
    query, support, masks = episode()
    module = wrapped(seeded(Silent), "prototype", CHANNELS)
    logits, (more,) = module.learn(query, support, masks)
    assert torch.allclose(logits, module(query, support, masks) + 1)
    assert more.name == "more"
    assert torch.equal(more.logits, query["high"][:, :2])
    assert module.transformers == ("head.mix",)
    assert isinstance(module.get_submodule(module.transformers[0]), nn.Conv2d)


@pytest.mark.parametrize("name", LEARNED)
def test_exported_and_loaded_it_gives_the_same_masks(name, tmp_path):
    original, extractor = write(tmp_path, name, residual="smoothed")
    query = noise_image(0, (70, 45))
    expected = Segmenter(original, extractor, {}).probabilities(query, SUPPORTS, MASKS)
    assert np.array_equal(Segmenter.load(tmp_path, "cpu").probabilities(query, SUPPORTS, MASKS), expected)


def test_residuals_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"expected model.options.residual of none, prototype, smoothed, got True"):
        heads.build("correlation", CHANNELS, residual=True)
    with pytest.raises(ValueError, match=r"got SmoothedReadout, which needs no training: set model.options.residual="):
        heads.build("smoothed", CHANNELS, residual="prototype")
    with pytest.raises(ValueError, match=r"expected a head that can start silent, got Learned: set .*residual=none"):
        wrapped(seeded(Learned), "smoothed", CHANNELS)
    assert isinstance(wrapped(seeded(Silent), "smoothed", CHANNELS), Residual)
