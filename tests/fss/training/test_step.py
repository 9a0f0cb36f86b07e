"""One step of meta-training: the loss at the truth's resolution and the figures by hand."""

import pytest
import torch
from torch import nn

from fss.grid import enlarge
from fss.heads.parts import losses
from fss.heads.parts.head import Auxiliary, Head
from fss.training.step import MetaModule

MASKS = torch.ones(2, 1, 2, 3, 3)


class Scripted(Head):
    """A head that answers with its parameter and remembers what it was given."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def match(self, query, support, masks):
        return self.logits

    def forward(self, query, support, masks):
        self.given = (query, support, masks)
        return self.match(query, support, masks)


def test_the_loss_is_taken_of_the_enlarged_logits():
    g = torch.Generator().manual_seed(0)
    head = Scripted(torch.randn(2, 2, 3, 3, generator=g))
    truth = torch.rand(2, 2, 9, 9, generator=g).softmax(1)
    for corners in (False, True):
        module = MetaModule(head, losses.cross_entropy_dice, corners)
        found = module({"high": 1}, {"high": 2}, MASKS, truth)
        assert head.given == ({"high": 1}, {"high": 2}, MASKS)
        assert torch.equal(found["loss"], losses.cross_entropy_dice(enlarge(head.logits, (9, 9), corners), truth))
        found["loss"].backward()
        assert head.logits.grad.abs().sum() > 0
        assert not found["iou"].requires_grad
        assert not found["area_ratio"].requires_grad


def test_figures_by_hand():
    """Episode 0: predicted cells 0 and 1, real 1 and half of 2, cell 3 void. Episode 1: all right."""
    logits = torch.zeros(2, 2, 1, 4)
    logits[0, 1, 0] = torch.tensor([1.0, 1.0, -1.0, 1.0])
    logits[1, 1, 0] = torch.tensor([1.0, -1.0, -1.0, -1.0])
    truth = torch.zeros(2, 2, 1, 4)
    truth[0, :, 0] = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.5, 0.0]])
    truth[1, :, 0] = torch.tensor([[0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    found = MetaModule(Scripted(logits), losses.dice, corners=True)({}, {}, MASKS, truth)
    assert found["iou"].item() == pytest.approx((1 / 2.5 + 1) / 2)
    assert found["area_ratio"].item() == pytest.approx(3 / 2.5)
    assert found["predicted_share"].item() == pytest.approx(3 / 7)


def test_an_episode_is_empty_if_the_query_or_all_supports_show_nothing():
    """Of four: all there; one of two supports empty; both empty; the query empty."""
    masks, truth = torch.ones(4, 2, 2, 3, 3), torch.ones(4, 2, 2, 2)
    masks[1, 0, 1] = 0
    masks[2, :, 1] = 0
    truth[3, 1] = 0
    found = MetaModule(Scripted(torch.zeros(4, 2, 2, 2)), losses.dice, corners=True)({}, {}, masks, truth)
    assert found["empty_share"].item() == 0.5


def test_nothing_but_void_is_finite():
    found = MetaModule(Scripted(torch.zeros(1, 2, 2, 2)), losses.cross_entropy, True)(
        {}, {}, MASKS[:1], torch.zeros(1, 2, 2, 2)
    )
    assert all(torch.isfinite(value) for value in found.values())


class Helped(Scripted):
    """Scores its own logits once more: against the query's truth and against another target."""

    def learn(self, query, support, masks):
        target = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(2, 2, 5, 5)
        return self.logits, (
            Auxiliary("again", 2 * self.logits, 0.5),
            Auxiliary("other", self.logits, 0.25, target),
        )


def test_auxiliary_predictions_add_their_weighted_loss_against_their_own_target():
    g = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(2, 2, 3, 3, generator=g), torch.rand(2, 2, 9, 9, generator=g).softmax(1)
    found = MetaModule(Helped(logits), losses.cross_entropy, corners=False)({}, {}, MASKS, truth)
    alone = MetaModule(Scripted(logits), losses.cross_entropy, corners=False)({}, {}, MASKS, truth)["loss"]
    again = losses.cross_entropy(enlarge(2 * logits, (9, 9), False), truth)
    background = torch.stack([torch.ones(2, 5, 5), torch.zeros(2, 5, 5)], dim=1)
    other = losses.cross_entropy(enlarge(logits, (5, 5), False), background)
    assert torch.allclose(found["loss"], alone + 0.5 * again + 0.25 * other)
    assert torch.allclose(torch.stack([found["loss_again"], found["loss_other"]]), torch.stack([again, other]))
