"""Several rules in one optimiser: each must do what torch's own optimiser of that rule does."""

import pytest
import torch

from fss.training.optimizers import Mixed


def parameters(seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=g)) for shape in [(3, 4), (5,), (2, 2, 3)]]


def run(optimizer, own, steps=7):
    """Steps down (p - 1)^4, whose gradients change in size and, with momentum, in sign."""
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 / (1 + step)
        optimizer.zero_grad()
        sum(((p - 1) ** 4).sum() for p in own).backward()
        optimizer.step()
    return own


def test_each_rule_is_torchs_own_to_the_bit():
    own = parameters()
    ours = run(Mixed([{"params": own, "weight_decay": 0.1}]), own)
    own = parameters()
    theirs = run(torch.optim.AdamW(own, weight_decay=0.1), own)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    own = parameters()
    ours = run(Mixed([{"params": own, "rule": "sgd", "weight_decay": 0.1}]), own)
    own = parameters()
    theirs = run(torch.optim.SGD(own, lr=1.0, momentum=0.9, weight_decay=0.1), own)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_both_in_one_step_are_both_apart():
    own = parameters()
    optimizer = Mixed([{"params": own[:1], "name": "a"}, {"params": own[1:], "rule": "sgd", "name": "b"}])
    together = run(optimizer, own)
    own = parameters()
    first = run(torch.optim.AdamW(own[:1], weight_decay=0.0), own)[:1]
    own = parameters()
    rest = run(torch.optim.SGD(own[1:], lr=1.0, momentum=0.9), own)[1:]
    assert all(torch.equal(a, b) for a, b in zip(together, [*first, *rest], strict=True))
    assert [group["name"] for group in optimizer.param_groups] == ["a", "b"]
    assert set(optimizer.state[together[0]]) == {"step", "exp_avg", "exp_avg_sq"}
    assert set(optimizer.state[together[1]]) == {"step", "exp_avg"}


def test_a_parameter_without_a_gradient_stays():
    own = parameters()
    before = own[0].detach().clone()
    optimizer = Mixed([{"params": own, "rule": "sgd"}])
    own[1].grad = torch.ones_like(own[1])
    optimizer.step()
    assert torch.equal(own[0], before)
    assert own[0] not in optimizer.state


def test_an_unknown_rule_is_an_error():
    with pytest.raises(ValueError, match="expected a rule of adamw, sgd for each group, got 'adam'"):
        Mixed([{"params": parameters(), "rule": "adam"}])
