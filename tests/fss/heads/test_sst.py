"""SST's equations by hand, by loops and by finite differences; where its inner gradient flows; and that it learns."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F

from fss.heads.parts import losses
from fss.heads.sst import averaged, inner_loss, prototypes, self_iou, shot_weights, strongest
from fss.training.step import MetaModule
from tests.fss.heads.learning import episodes, learns, measured
from tests.fss.heads.learning import trained as half_trained
from tests.fss.heads.test_heads import episode, head


def sides(background, foreground):
    """(1, 2, 1, cells) of two rows."""
    return torch.tensor([background, foreground]).view(1, 2, 1, -1)


def test_the_inner_loss_by_hand():
    """Cells of probability 1/2 and 3/4, the third void: log 2 and log 4/3, their sum or mean over what is known."""
    logits = sides([0.0, 0.0, 9.0], [0.0, 3**0.5, 9.0]).log_softmax(1)
    logits[:, 1, :, 1] = logits[:, 0, :, 1] + torch.tensor(3.0).log()
    masks = sides([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    expected = torch.log(torch.tensor([2.0, 4 / 3])).sum()
    assert inner_loss(logits, masks, "sum").item() == pytest.approx(expected.item())
    assert inner_loss(logits, masks, "mean").item() == pytest.approx(expected.item() / 2)
    twice = (torch.cat([logits, logits]), torch.cat([masks, masks]))
    assert inner_loss(*twice, "mean").item() == pytest.approx(expected.item())  # a support's gradient is its own


def test_the_iou_by_hand():
    """Predicted cells 0, 1 and 3, of shares 1, 1/2 and void; missed: cell 2 of share 1/4."""
    logits = sides([0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -1.0, 1.0])
    masks = sides([0.0, 0.5, 0.75, 0.0], [1.0, 0.5, 0.25, 0.0])
    assert self_iou(logits, masks).item() == pytest.approx(1.5 / (1 + 1 + 0.25))
    assert self_iou(-logits.abs(), 0 * masks).item() == 0


def test_the_weights_of_shots_by_hand():
    scores = torch.tensor([[0.6, 0.2, 0.9], [0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.1, 0.2, 0.3]])
    shown = torch.tensor([[1.0, 1, 0], [1, 0, 1], [1, 1, 1], [0, 0, 0]])
    expected = torch.tensor([[0.75, 0.25, 0], [0.5, 0, 0.5], [1, 0, 0], [0, 0, 0]])
    assert torch.allclose(shot_weights(scores, shown), expected, atol=1e-5)


def test_the_fusions_by_hand():
    logits = torch.tensor([[0.0, 1.0], [2.0, -2.0], [5.0, 9.0]]).view(1, 3, 2, 1, 1)
    weights = torch.tensor([[0.25, 0.75, 0.0]])
    assert averaged(logits, weights).flatten().tolist() == [1.5, -1.25]
    assert strongest(logits, torch.ones(1, 3)).flatten().tolist() == [5, 9]
    assert strongest(logits, torch.tensor([[1.0, 1, 0]])).flatten().tolist() == [0, 1]
    assert strongest(logits, torch.zeros(1, 3)).isfinite().all()


@functools.cache
def trained(**options):
    """A head and its tokens, prototypes and shares of four supports."""
    module, (_, support, masks) = head("sst", steps=3, dim=6, **options), episode(2, shots=2)
    tokens = module.embed({k: v.flatten(0, 1) for k, v in support.items()})["tokens"].detach()
    return module, tokens, masks.flatten(0, 1)


def test_the_comparison_equals_two_convolutions_of_features_and_tiled_prototype():
    """Eqs. 12 and 13 as the paper draws them: side by side, not as a sum."""
    module, tokens, masks = trained()
    compare, decode = module.relation.compare, module.relation.decode
    share = masks[:, 1:]
    prototype = (tokens * share).sum((2, 3)) / share.sum((2, 3))
    assert torch.allclose(prototypes(tokens, masks), prototype, atol=1e-5)
    both = torch.cat([tokens, prototype[:, :, None, None].expand_as(tokens)], 1)
    x = F.relu(F.conv2d(both, torch.cat([compare.own.weight, compare.other.weight], 1), compare.own.bias))
    x = F.relu(F.conv2d(x, compare.relate.weight, compare.relate.bias, padding=1))
    y = F.relu(F.conv2d(x, decode.first.weight, decode.first.bias, padding=1))
    y = F.relu(F.conv2d(y, decode.second.weight, decode.second.bias, padding=1))
    expected = F.conv2d(x + y, decode.out.weight, decode.out.bias)
    found = module.relation.segment(tokens, prototypes(tokens, masks))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("reduction", "step"), [("sum", 1.0), ("mean", 1.0), ("sum", 0.3), ("sum", 0.0)])
def test_the_step_is_that_of_finite_differences(reduction, step):
    """Eq. 11: the loss moves with each of some elements as the gradient says, also through the prototype."""
    module, tokens, masks = trained(reduction=reduction, step=step)
    relation, tokens, masks = copy.deepcopy(module.relation).double(), tokens[:1].double(), masks[:1].double()

    def loss(of: torch.Tensor) -> float:
        logits = relation.decode(relation.compare(relation.compare.own(of), prototypes(of, masks)))
        summed = -(masks * logits.log_softmax(1)).sum()
        return float(summed / (masks.sum() if reduction == "mean" else 1))

    moved = (tokens - relation.tune(tokens, masks)[0]).detach()
    assert (moved.abs().max() > 1e-3) == (step > 0)
    with torch.no_grad():
        for place in range(0, tokens.numel(), 7):
            change = torch.zeros_like(tokens)
            change.view(-1)[place] = 1e-6
            slope = (loss(tokens + change) - loss(tokens - change)) / 2e-6
            assert float(moved.flatten()[place]) == pytest.approx(step * slope, rel=1e-3, abs=1e-6)


def test_the_gradient_of_a_support_is_its_own():
    module, tokens, masks = trained()
    together = module.relation.tune(tokens, masks)[0]
    for i in range(4):
        assert torch.allclose(module.relation.tune(tokens[[i]], masks[[i]])[0], together[[i]], atol=1e-5)


@pytest.mark.parametrize("fusion", ["iou", "mean", "max"])
def test_shots_are_tuned_compared_and_fused_as_in_loops(fusion):
    """Eq. 14 in loops over episodes and shots; the second episode has a distractor."""
    module, (query, support, masks) = head("sst", steps=3, fusion=fusion), episode(2, shots=3)
    masks[1, 0, 1] = 0
    found, relation = module(query, support, masks), module.relation
    for b in range(2):
        own = relation.compare.own(module.embed({k: v[[b]] for k, v in query.items()})["tokens"])
        responses, scores = [], []
        for k in range(3) if b == 0 else (1, 2):
            tokens = module.embed({name: v[[b], k] for name, v in support.items()})["tokens"]
            tuned, itself = relation.tune(tokens, masks[b, [k]])
            responses.append(relation.compare(own, prototypes(tuned, masks[b, [k]])))
            scores.append(float(self_iou(itself, masks[b, [k]])) + 1e-6)
        alone = [relation.decode(response)[0] for response in responses]
        if fusion == "iou":
            weighted = sum(s * r for s, r in zip(scores, responses, strict=True)) / sum(scores)
            expected = relation.decode(weighted)[0]
        elif fusion == "mean":
            expected = sum(alone) / len(alone)
        else:
            margins = torch.stack([one[1] - one[0] for one in alone]).argmax(0)
            stacked = torch.stack(alone, -1)
            expected = stacked.gather(3, margins[None, :, :, None].expand(2, -1, -1, 1))[..., 0]
        assert torch.allclose(found[b], expected, atol=1e-4)


def objective(module, inputs, truth):
    return MetaModule(module, losses.cross_entropy_dice, corners=True)(*inputs, truth)["loss"]


def test_only_the_second_order_variant_has_the_whole_gradient():
    """The derivative along a direction of the weights, by finite differences of the whole loss."""
    first, second = head("sst", steps=3, dim=6), head("sst", dim=6, order="second")
    second.load_state_dict(first.state_dict())
    inputs, truth = episode(2, shots=2), episode(2, seed=50, grid=9)[2][:, 0]
    found = []
    for module in (first, second):
        weight = module.relation.compare.own.weight
        assert objective(module, inputs, truth).item() == pytest.approx(objective(first, inputs, truth).item())
        module.zero_grad()
        objective(module, inputs, truth).backward()
        found.append(weight.grad.clone())
    direction = (found[1] - found[0]) / (found[1] - found[0]).norm()
    assert (found[1] - found[0]).norm() > 1e-2 * found[1].norm()
    weight, values = second.relation.compare.own.weight, []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-3 * direction)
        values.append(objective(second, inputs, truth).item())
        with torch.no_grad():
            weight.sub_(sign * 1e-3 * direction)
    slope = (values[0] - values[1]) / 2e-3
    errors = [abs(float((gradient * direction).sum()) - slope) for gradient in found]
    assert errors[1] < 0.1 * errors[0]


def test_the_inner_gradient_stays_with_the_features():
    """It gives no weight a gradient, and asks none of its caller's tensors to keep one."""
    module, tokens, masks = trained()
    module.zero_grad()
    module.relation.tune(tokens, masks)
    assert all(p.grad is None for p in module.parameters())
    assert not tokens.requires_grad
    assert tokens.grad is None


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_recording_the_prediction_is_the_same_and_carries_no_graph(context):
    module, inputs = head("sst", steps=3), episode(shots=2)
    expected = module(*inputs)
    with context():
        copies = [{k: v.clone() for k, v in part.items()} for part in inputs[:2]]  # made in that mode, as features are
        found = module(*copies, inputs[2].clone())
    assert not found.requires_grad
    assert torch.equal(found, expected.detach())
    still = head("sst", step=0.0)
    still.load_state_dict(module.state_dict())
    assert (expected - still(*inputs)).abs().max() > 1e-4  # it did take the step


def test_the_step_is_taken_in_float32_whatever_the_weights_and_autocast_are():
    module, tokens, masks = trained()
    exact, logits = module.relation.tune(tokens, masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module.relation.tune(tokens, masks)[0], exact)
    rounded = copy.deepcopy(module.relation).bfloat16()
    tuned, _ = rounded.tune(tokens, masks)
    assert tuned.dtype == torch.float32
    widened = rounded.float()
    assert torch.equal(widened.tune(tokens, masks)[0], tuned)
    assert logits.dtype == torch.float32


def test_a_silenced_head_takes_no_step_until_it_has_learned():
    module, inputs = head("sst"), episode(2, shots=2)
    module.silence()
    assert module.diagnose(*inputs)["step_length"] == 0
    for _ in range(2):
        module.zero_grad()
        objective(module, inputs, episode(2, seed=50, grid=9)[2][:, 0]).backward()
        with torch.no_grad():
            for p in module.parameters():
                p.sub_(1e-2 * p.grad.sign())
    assert module.diagnose(*inputs)["step_length"] > 0
    assert all(p.grad.abs().max() > 0 for p in module.parameters())


@pytest.mark.parametrize("order", ["first", "second"])
def test_it_learns(order):
    before, after = learns("sst", steps=100, dim=32, order=order)
    assert after.loss < 0.1 * before.loss
    assert before.iou < 0.3
    assert after.iou > 0.9


def test_the_step_and_the_auxiliary_loss_both_help_while_it_learns():
    """As in Table 1 and Fig. 6: the same weights segment queries, and supports, worse without the step."""
    _, module = half_trained("sst", 20, 3e-3, 0.0, dim=32)
    tuned, (query, support, masks, _) = measured(module, 0.0), episodes(1000, 64, 0.0)
    inner = module.head.diagnose(query, support, masks)
    assert inner["tuned_iou"] > inner["self_iou"] + 0.05
    module.head.relation.step = 0.0
    assert tuned.iou > measured(module, 0.0).iou + 0.05
    assert tuned.iou > measured(half_trained("sst", 20, 3e-3, 0.0, dim=32, auxiliary=0)[1], 0.0).iou + 0.05
