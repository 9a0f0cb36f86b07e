"""Losses by hand, and their gradients by finite differences."""

import math

import pytest
import torch

from fss.heads.parts import losses


def random_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, 2, 3, 3) logits and shares with partly and fully void cells."""
    g = torch.Generator().manual_seed(seed)
    shares = torch.rand(2, 2, 3, 3, generator=g).softmax(1) * torch.rand(2, 1, 3, 3, generator=g).round(decimals=1)
    shares[:, :, 0, 0] = 0
    return torch.randn(2, 2, 3, 3, generator=g), shares


def test_cross_entropy_by_hand():
    """Two cells: p = (1/4, 3/4) and (1/2, 1/2); the second is half void, half foreground."""
    logits = torch.tensor([[[[0.0, 0.0]], [[math.log(3), 0.0]]]])
    shares = torch.tensor([[[[0.25, 0.0]], [[0.75, 0.5]]]])
    expected = (-0.25 * math.log(1 / 4) - 0.75 * math.log(3 / 4) - 0.5 * math.log(1 / 2)) / 1.5
    assert float(losses.cross_entropy(logits, shares)) == pytest.approx(expected, rel=1e-6)


def test_dice_by_hand():
    """Two images; in the first p = (3/4, 1/2) against shares (1, 0), in the second everything is right."""
    logits = torch.zeros(2, 2, 1, 2)
    logits[0, 1, 0, 0] = math.log(3)
    logits[1, 1, 0] = torch.tensor([60.0, -60.0])
    shares = torch.tensor([[[[0.0, 1.0]], [[1.0, 0.0]]]] * 2)
    first = 1 - 2 * 0.75 / (0.75**2 + 0.5**2 + 1)
    assert float(losses.dice(logits, shares)) == pytest.approx(first / 2, rel=1e-6)


def test_the_sum_of_both():
    logits, shares = random_case()
    both = losses.cross_entropy(logits, shares) + losses.dice(logits, shares)
    assert torch.equal(losses.cross_entropy_dice(logits, shares), both)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_void_pulls_on_nothing(name):
    logits, shares = random_case()
    logits.requires_grad_()
    loss = losses.by_name(name)(logits, shares)
    loss.backward()
    assert logits.grad[:, :, 0, 0].abs().max() == 0
    assert logits.grad[:, :, 1, 1].abs().max() > 0
    moved = logits.detach().clone()
    moved[:, :, 0, 0] += 100
    assert torch.equal(losses.by_name(name)(moved, shares), loss.detach())


@pytest.mark.parametrize("name", losses.LOSSES)
def test_all_void_is_finite(name):
    logits = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = losses.by_name(name)(logits, torch.zeros(1, 2, 3, 3))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradients_agree_with_finite_differences(name):
    """The losses compute in float32, so the differences are wide and the tolerance is that of float32."""
    logits, shares = (x.double() for x in random_case(1))
    loss = losses.by_name(name)
    assert torch.autograd.gradcheck(
        lambda x: loss(x, shares).double(), logits.requires_grad_(), eps=2e-2, atol=2e-3, rtol=2e-2
    )


@pytest.mark.parametrize("name", losses.LOSSES)
def test_better_logits_cost_less(name):
    truth = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0)).round()
    shares = torch.stack([1 - truth, truth], 1)
    right = 4 * shares
    loss = losses.by_name(name)
    assert loss(right, shares) < loss(torch.zeros_like(right), shares) < loss(-right, shares)


def test_half_precision_logits_are_computed_in_float32():
    logits, shares = random_case()
    rounded = logits.bfloat16()
    for loss in losses.LOSSES.values():
        assert torch.equal(loss(rounded, shares), loss(rounded.float(), shares))


def test_an_unknown_loss_is_refused_with_a_hint():
    with pytest.raises(ValueError, match="cross_entropy_dice, got 'dise'; did you mean 'dice'"):
        losses.by_name("dise")
    with pytest.raises(ValueError, match=r"got 'focal'$"):
        losses.by_name("focal")


@pytest.mark.parametrize("loss", losses.LOSSES.values(), ids=losses.LOSSES)
def test_the_loss_of_a_batch_is_the_mean_of_its_parts_whatever_is_void(loss):
    logits, shares = random_case()
    shares[1, :, 1:] = 0
    parts = [loss(logits[i : i + 1], shares[i : i + 1]) for i in (0, 1)]
    assert float(loss(logits, shares)) == pytest.approx(float(sum(parts)) / 2, rel=1e-6)
