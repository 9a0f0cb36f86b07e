"""A head added to a read-out: where it starts, that all of it learns, and that nothing is computed twice."""

import numpy as np
import pytest
import torch
from torch import nn

from fss import heads
from fss.backbones import Features
from fss.heads.parts import threshold
from fss.heads.parts.capabilities import Fits, Settles, Silences, Studies, Ways, margins
from fss.heads.parts.head import Auxiliary, Head
from fss.heads.parts.residual import Residual
from fss.segmenter import Segmenter
from tests.fss.heads.test_heads import (
    CAPABILITIES,
    CHANNELS,
    LEARNED,
    episode,
    head,
    on_grid,
    studied,
    train_step,
    without_gradient,
)
from tests.fss.segmenter.test_segmenter import MASKS, SUPPORTS, noise_image, write

#: Heads that can start silent.
ADDED = [name for name in LEARNED if isinstance(head(name), Silences)]


class Learned(Head):
    """One weight a channel of the query, with a further prediction of its own."""

    transformers = ("mix",)

    corners = True

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


def readout(name: str = "prototype") -> Head:
    return heads.build(name, {"scale": 1.0}, CHANNELS, corners=True)


def seeded(kind: type[Head]) -> Head:
    with torch.random.fork_rng(devices=[]):
        return kind()


@pytest.mark.parametrize("readout", ["prototype", "smoothed"])
@pytest.mark.parametrize("name", ADDED)
def test_the_untrained_residual_head_decides_as_its_readout(name, readout):
    """Whatever its random weights are; and without the read-out it would decide otherwise."""
    inputs = episode(shots=2)
    for seed in range(2):
        found = head(name, seed=seed, residual=readout)(*inputs)
        expected = on_grid(heads.build(readout, {}, CHANNELS, corners=True)(*inputs), found).argmax(dim=1)
        assert torch.equal(found.argmax(dim=1), expected)
        assert torch.allclose(found[:, 0], -found[:, 1])
    assert not torch.equal(head(name)(*inputs).argmax(dim=1), expected)


@pytest.mark.parametrize("readout", ["prototype", "smoothed"])
@pytest.mark.parametrize("name", ["correlation", "umtfss"])
def test_every_parameter_gets_a_gradient_after_one_step(name, readout):
    """The last layer starts at zero, so that those before it get none in the first step."""
    module = head(name, residual=readout)
    train_step(module)
    assert len(without_gradient(module)) > 0
    train_step(module)
    assert without_gradient(module) == []


@pytest.mark.parametrize("readout", ["prototype", "smoothed"])
@pytest.mark.parametrize("name", ADDED)
def test_the_logits_are_the_heads_plus_the_gained_readouts(name, readout):
    """Image by image as evaluation calls it, and of the trained head."""
    module, (query, support, masks) = head(name, residual=readout), episode(shots=2)
    for step in range(3):
        train_step(module, seed=step)
    shots = module.embed({k: v.flatten(0, 1) for k, v in support.items()})
    focused = module.focus(module.embed(query))
    shown = module.show({k: v.unflatten(0, masks.shape[:2]) for k, v in shots.items()}, masks)
    found = module.match(focused, shown, masks)
    plain = on_grid(heads.build(readout, {"scale": 1.0}, CHANNELS, corners=True)(query, support, masks), found)
    half = module.gain * (plain[:, 1] - plain[:, 0]) / 2
    expected = module.head(query, support, masks) + torch.stack([-half, half], 1)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(module(query, support, masks), expected, atol=1e-5)
    assert module.gain.item() != 15


@pytest.mark.parametrize(
    ("by_shots", "training", "shares"),
    [(True, False, {1: 1 / 2, 3: 1 / 4}), (True, True, {1: 1.0, 3: 1 / 3}), (False, False, {1: 1.0, 3: 1.0})],
)
def test_what_is_learned_counts_less_the_more_supports_there_are(by_shots, training, shares):
    """And in answers as if there were one more."""
    module, (query, support, masks) = head("correlation", residual="smoothed", by_shots=by_shots), episode(shots=3)
    train_step(module)
    module.training = training  # of the sum alone: the head's dropout would draw
    for number, share in shares.items():
        some = {level: values[:, :number] for level, values in support.items()}
        cosines = module.readout(query, some, masks[:, :number])
        learned = module(query, some, masks[:, :number])[:, 1] - module.gain * (cosines[:, 1] - cosines[:, 0]) / 2
        alone = module.head(query, some, masks[:, :number])[:, 1]
        assert alone.abs().max() > 1e-3
        assert torch.allclose(learned, alone * share, atol=1e-5)


@pytest.mark.parametrize("name", ["correlation", "pixel_meta"])
def test_the_sums_own_threshold_counts_less_the_more_supports_there_are(name):
    """With the margins of several ways too, and for a head that answers them together."""
    plain, moving = head(name, steps=2, residual="smoothed"), head(name, steps=2, residual="smoothed", otsu=0.6)
    moving.load_state_dict(plain.state_dict())
    for shots in (1, 3):
        query, support, masks = episode(4, shots)
        before, after = plain(query, support, masks), moving(query, support, masks)
        margin = before[:, 1] - before[:, 0]
        assert torch.allclose(after[:, 1] - after[:, 0], margin - threshold.own(margin, 0.6, shots), atol=1e-5)
        assert not torch.allclose(after, before, atol=1e-3)
        before, after = (margins(one, *one.prepare(query, support, masks), masks, 2) for one in (plain, moving))
        assert torch.allclose(after, before - threshold.own(before, 0.6, shots), atol=1e-5)


@pytest.mark.parametrize("name", ["smoothed", "corpus_readout"])
def test_so_does_a_read_outs(name):
    for shots in (1, 3):
        inputs = episode(shots=shots)
        before, after = head(name)(*inputs), head(name, otsu=0.6)(*inputs)
        margin = before[:, 1] - before[:, 0]
        assert torch.allclose(after[:, 1] - after[:, 0], margin - threshold.own(margin, 0.6, shots), atol=1e-5)


@pytest.mark.parametrize("readout", ["prototype", "smoothed", "corpus_readout"])
@pytest.mark.parametrize("name", ["correlation", "pixel_meta"])
def test_the_answered_query_is_a_support_too_the_less_the_more_there_are(name, readout):
    """Its cells by how sure they are; with the margins of several ways too; not while the head learns."""
    plain, asking = (head(name, steps=2, residual=readout, own=own) for own in (0.0, 0.5))
    asking.load_state_dict(plain.state_dict())
    for shots in (1, 3):
        query, support, masks = episode(4, shots)

        def added(margin: torch.Tensor, query: Features = query, shots: int = shots) -> torch.Tensor:
            shares = torch.stack([-margin, margin], dim=1).clamp_min(0)[:, None]
            cosines = plain.readout(query, {level: values[:, None] for level, values in query.items()}, shares)
            return 0.5 / shots**2 * plain.gain * (cosines[:, 1] - cosines[:, 0])

        before, after = plain(query, support, masks), asking(query, support, masks)
        margin = before[:, 1] - before[:, 0]
        assert added(margin).abs().max() > 1e-2
        assert torch.allclose(after[:, 1] - after[:, 0], margin + added(margin), atol=1e-4)
        before, after = (margins(one, *one.prepare(query, support, masks), masks, 2) for one in (plain, asking))
        assert torch.allclose(after.flatten(0, 1), before.flatten(0, 1) + added(before.flatten(0, 1)), atol=1e-4)
    asking.training = plain.training = True  # of the sum alone: the head's dropout would draw
    assert torch.equal(asking(query, support, masks), plain(query, support, masks))


def test_what_a_head_embeds_for_itself_is_lent_to_the_smoothed_readout():
    query = episode()[0]
    for name, options in (("correlation", {}), ("umtfss", {"maps": True})):
        module = head(name, residual="smoothed", **options)
        assert not any(key.startswith("readout.") for key in module.focus(module.embed(query)))
    for module in (head("umtfss", residual="smoothed", maps=False), head("correlation", residual="prototype")):
        assert any(key.startswith("readout.") for key in module.focus(module.embed(query)))


def test_training_scores_the_sum_and_the_heads_further_predictions():
    query, support, masks = episode()
    module = Residual(seeded(Silent), readout())
    logits, (more,) = module.learn(query, support, masks)
    assert torch.allclose(logits, module(query, support, masks) + 1)
    assert more.name == "more"
    assert torch.equal(more.logits, query["high"][:, :2])
    assert module.transformers == ("head.mix",)
    assert isinstance(module.get_submodule(module.transformers[0]), nn.Conv2d)


@pytest.mark.parametrize("name", ADDED)
def test_exported_and_loaded_it_gives_the_same_masks(name, tmp_path):
    original, extractor = write(tmp_path, name, residual="smoothed")
    query = noise_image(0, (70, 45))
    expected = Segmenter(original, extractor, {}).probabilities(query, SUPPORTS, MASKS)
    assert np.array_equal(Segmenter.load(tmp_path, "cpu").probabilities(query, SUPPORTS, MASKS), expected)


def test_a_head_that_cannot_start_silent_is_refused():
    with pytest.raises(ValueError, match=r"model.options.residual: expected none for Learned, which cannot start"):
        Residual(seeded(Learned), readout())


class Able(Silent):
    """Can do all that a head may be able to do, and tells what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.studies, self.seen = 3, []

    def describe(self, embedded: Features) -> torch.Tensor:
        return embedded["high"].mean((2, 3))

    def fit(self, rows: np.ndarray, seed: int) -> None:
        self.seen.append(("fit", len(rows), seed))

    def study(self, images, seed: int) -> None:
        self.seen.append(("study", len(list(images)), seed))

    def noted(self) -> torch.Tensor:
        return torch.tensor([2.0])

    def settle(self, noted: torch.Tensor) -> None:
        self.seen.append(("settle", noted.item()))

    def margins(self, query: Features, support: Features, masks: torch.Tensor, ways: int) -> torch.Tensor:
        return query["high"][::ways, :1].expand(-1, ways, -1, -1)


@pytest.mark.parametrize("name", LEARNED)
def test_a_residual_can_do_what_its_head_can(name):
    """Whatever capabilities there are, but for starting silent, which it does already."""
    plain = head(name)
    if not isinstance(plain, Silences):
        return
    added = head(name, residual="prototype")
    for kind in set(CAPABILITIES) - {Silences}:
        assert isinstance(added, kind) == isinstance(plain, kind)
    assert getattr(added, "studies", 0) == getattr(plain, "studies", 0)


def test_what_is_asked_of_a_residual_reaches_its_head():
    own, query = seeded(Able), episode(4)[0]
    module = Residual(own, readout())
    assert all(isinstance(module, kind) for kind in (Fits, Studies, Settles, Ways))
    assert torch.equal(module.describe(module.embed(query)), own.describe(query))
    module.fit(np.zeros((5, 2)), seed=7)
    assert module.studies == 3
    module.study(studied(), seed=8)
    module.settle(module.noted())
    assert own.seen == [("fit", 5, 7), ("study", 2, 8), ("settle", 2.0)]


def test_a_read_out_that_looks_up_regions_studies_too():
    """With the head if that studies, else alone; and it is lent what it shares with the smoothed one."""
    looking = heads.build("corpus_readout", {"index_size": 5, "neighbours": 2, "scale": 1.0}, CHANNELS, corners=True)
    for own, number in ((seeded(Able), 5), (seeded(Silent), 5)):
        module = Residual(own, looking)
        assert isinstance(module, Studies)
        assert module.studies == number
        looking.index.zero_()
        module.study(studied(), seed=8)
        assert looking.index.any(dim=2).all()
    alone = heads.build("correlation", {"residual": "corpus_readout"}, CHANNELS, corners=True)
    assert not any(key.startswith("readout.") for key in alone.embed(episode()[0]))


def test_what_a_residual_looked_up_is_exported(tmp_path):
    original, extractor = write(tmp_path, "panet", residual="corpus_readout")
    query = noise_image(0, (70, 45))
    expected = Segmenter(original, extractor, {}).probabilities(query, SUPPORTS, MASKS)
    assert original.readout.index.any()
    assert np.array_equal(Segmenter.load(tmp_path, "cpu").probabilities(query, SUPPORTS, MASKS), expected)


@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("own", [Able, Silent])
@pytest.mark.parametrize("name", ["prototype", "smoothed"])
def test_margins_are_the_heads_and_the_gained_readouts(own, ways, name):
    """Of a head that answers all ways together, and of one that is asked for each alone."""
    head_, plain, (query, support, masks) = seeded(own), readout(name), episode(4)
    module = Residual(head_, plain)
    nn.init.constant_(head_.mix.bias[1:], 0.5)
    found = margins(module, *module.prepare(query, support, masks), masks, ways)
    cosines = plain(query, support, masks)
    expected = margins(head_, *head_.prepare(query, support, masks), masks, ways)
    expected = expected + 15 * (cosines[:, 1] - cosines[:, 0]).unflatten(0, (-1, ways))
    assert found.shape == (4 // ways, ways, 5, 5)
    assert torch.allclose(found, expected, atol=1e-5)


def test_margins_of_the_published_vote_survive_a_residual():
    """Sides of several ways share their neighbours: each way alone would be another answer."""
    module, (query, support, masks) = head("pixel_meta", residual="prototype"), episode(4)
    nn.init.ones_(module.head.gain.share)
    together = margins(module, *module.prepare(query, support, masks), masks, 2)
    logits = module(query, support, masks)
    assert not torch.allclose(together, (logits[:, 1] - logits[:, 0]).unflatten(0, (-1, 2)), atol=1e-2)
