"""Which parameters learn by which rule: named groups of a head with a tuned backbone."""

import dataclasses

import pytest
from torch import nn

from cluster.config.train import TrainConfig
from cluster.training import optimizers

SETTINGS = TrainConfig(lr=1e-3, sgd_lr=1e-2, weight_decay=0.1, sgd_weight_decay=0.2, tune_factor=0.5)


class Module(nn.Module):
    """A head with a transformer, on a backbone of which one part is trained."""

    def __init__(self):
        super().__init__()
        attention = nn.ModuleDict({"0": nn.Linear(3, 3), "norm": nn.LayerNorm(3)})
        self.head = nn.ModuleDict({"attend": attention, "attend_not": nn.Conv2d(3, 2, 1)})
        self.backbone = nn.ModuleDict({"first": nn.Conv2d(1, 1, 1), "last": nn.Conv2d(1, 1, 1)})
        self.backbone["first"].requires_grad_(False)


def groups(optimizer, **changes):
    """(group's name, whether it is the undecayed part) -> (names of parameters, rule, lr, decay)."""
    module = Module()
    names = {parameter: name for name, parameter in module.named_parameters()}
    built = optimizers.build(module, dataclasses.replace(SETTINGS, optimizer=optimizer, **changes), ("attend",))
    return [
        (group["name"], {names[p] for p in group["params"]}, group["rule"], group["lr"], group["weight_decay"])
        for group in built.param_groups
    ]


def test_mixed_gives_adamw_to_transformers_and_sgd_to_the_rest():
    assert groups("mixed") == [
        ("transformers", {"head.attend.0.weight"}, "adamw", 1e-3, 0.1),
        ("transformers", {"head.attend.0.bias", "head.attend.norm.weight", "head.attend.norm.bias"}, "adamw", 1e-3, 0),
        ("head", {"head.attend_not.weight"}, "sgd", 1e-2, 0.2),
        ("head", {"head.attend_not.bias"}, "sgd", 1e-2, 0.2),
        ("backbone", {"backbone.last.weight"}, "sgd", 5e-3, 0.2),
        ("backbone", {"backbone.last.bias"}, "sgd", 5e-3, 0.2),
    ]


@pytest.mark.parametrize(("rule", "rate"), [("adamw", 1e-3), ("sgd", 1e-2)])
def test_one_rule_for_all_makes_head_and_backbone(rule, rate):
    found = groups(rule)
    assert [(name, kind, lr) for name, _, kind, lr, _ in found] == [("head", rule, rate)] * 2 + [
        ("backbone", rule, rate / 2)
    ] * 2
    assert {name for _, names, *_ in found for name in names} == {
        name for name, parameter in Module().named_parameters() if parameter.requires_grad
    }
    assert [decay for *_, decay in found] == ([0.1, 0, 0.1, 0] if rule == "adamw" else [0.2] * 4)


@pytest.mark.parametrize(("parts", "rule"), [((), "sgd"), (("attend", "attend_not"), "adamw")])
def test_mixed_needs_both_kinds(parts, rule):
    with pytest.raises(ValueError, match=f"got one .*; set train.optimizer={rule}"):
        optimizers.build(Module(), dataclasses.replace(SETTINGS, optimizer="mixed"), parts)
