"""Steps of the loop's own engine under every ZeRO stage and precision; prints what came of them as JSON.

Run by test_gradients in a process of its own: a process group and DeepSpeed's choice of accelerator cannot be undone.
"""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn

from cluster.training import loop
from cluster.training.gradients import Gradients
from cluster.training.job import Job
from fss.training.optimizers import Mixed
from tests.cluster.training.plain import Cliff

WAYS = [("fp32", stage) for stage in range(4)] + [("bf16", stage) for stage in (1, 2, 3)]


class Net(nn.Module):
    """A weight whose gradient is the mean of its inputs, one that is used at times, and one that never is."""

    def __init__(self):
        super().__init__()
        self.used, self.never = nn.Parameter(torch.zeros(1, 4)), nn.Parameter(torch.ones(3, 3))
        self.now_and_then = nn.Parameter(torch.ones(2, 2))

    def forward(self, x, often=False, cliff=False):
        loss = (self.used * x).mean() + (self.now_and_then.sum() if often else 0.0)
        return (Cliff.apply(loss) if cliff else loss).float()


def made(precision, stage, parts, rule="sgd", decay=0.0):
    net = Net()
    job = Job(
        "test", None, Path(), Path(), "test", "test", {}, 1, batch=8, accumulate=parts, precision=precision,
        zero_stage=stage,
    )  # fmt: skip
    groups = [{"params": list(net.parameters()), "rule": rule, "lr": 1.0, "weight_decay": decay, "momentum": 0.0}]
    engine = loop._engine(job, net, Mixed(groups), 1)
    return engine, Gradients(engine, job.moments)


def step(engine, gradients, inputs, **how):
    """One step whose parts are the rows of `inputs`."""
    kind = next(engine.module.parameters()).dtype
    for index, row in enumerate(inputs):
        engine.backward(engine(row.to(kind), **how))
        (gradients if index == len(inputs) - 1 else engine).step()


def weights(engine, name):
    from cluster.training import checkpoint

    (value,) = checkpoint.values(engine, [dict(engine.module.named_parameters())[name]], ("exp_avg", "exp_avg_sq"))
    return value["parameter"].float().flatten().tolist()


def main():
    """Print for each precision and stage what adding up, idle parameters and infinite gradients came to."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
    found = {}
    for precision, stage in WAYS:
        told = found[f"{precision} {stage}"] = {}
        engine, gradients = made(precision, stage, 8)
        step(engine, gradients, torch.tensor([256.0] + 7 * [1.0])[:, None].expand(8, 4) * 4)
        told["summed"] = weights(engine, "used")
        told["norm"] = gradients.figures()

        engine, gradients = made(precision, stage, 1, rule="adamw", decay=0.5)
        for number in range(3):
            step(engine, gradients, torch.ones(1, 4), often=number == 1)
            told.setdefault("now and then", []).append(weights(engine, "now_and_then"))
        told["never"] = weights(engine, "never")

        engine, gradients = made(precision, stage, 1)
        for cliff in (True, True, False, True):
            step(engine, gradients, torch.ones(1, 4), cliff=cliff)
            told.setdefault("cliffs", []).append(weights(engine, "used")[0])
            told.setdefault("figures", []).append(gradients.figures())
    torch.distributed.destroy_process_group()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
