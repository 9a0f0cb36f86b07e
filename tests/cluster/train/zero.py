"""Saves training state under every ZeRO stage and restores it under every other; prints what came of it as JSON.

Run by test_training in a process of its own: a process group and DeepSpeed's choice of accelerator cannot be undone.
"""

import json
import os
import sys

import torch
from torch import nn

from cluster.training import checkpoint, gradients
from cluster.training.loop import import_deepspeed, part_of
from fss.training.optimizers import Mixed

MOMENTS = ("exp_avg", "exp_avg_sq")
SAVED, ALL = 3, 5


class Net(nn.Module):
    """Two parameter groups of different rules, a buffer, and a frozen part that no checkpoint holds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 3, bias=False)
        self.gain = nn.Parameter(torch.tensor([1.5]))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen += 1
        return (self.last(self.first(x) * self.frozen).float() ** 2).mean() * self.gain.float()[0]


def engine(stage, bf16, parts=1):
    net = Net()
    matrices = [net.first.weight, net.last.weight]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": [net.first.bias, net.gain], "rule": "sgd", "lr": 0.01},
    ]
    config = {
        "train_batch_size": 4,
        "train_micro_batch_size_per_gpu": 4 // parts,
        "gradient_accumulation_steps": parts,
        **gradients.settings("bf16" if bf16 else "fp32", stage),
        "zero_allow_untested_optimizer": True,
        "gradient_clipping": 1.0,
        "steps_per_print": 10**9,
    }
    parameters = [p for p in net.parameters() if p.requires_grad]
    optimizer = Mixed(groups, lr=0.1)
    return import_deepspeed().initialize(
        model=net, optimizer=optimizer, model_parameters=parameters, config=config, dist_init_required=False
    )[0]


def steps(network, start, stop, bf16, parts=1):
    """Losses of some steps; batch n is a function of n, computed in so many parts."""
    losses = []
    for number in range(start, stop):
        batch = torch.randn(4, 5, generator=torch.Generator().manual_seed(number))
        batch, found = (batch.bfloat16() if bf16 else batch), []
        for index in range(parts):
            found.append(network(part_of(batch, index, parts)))
            network.backward(found[-1])
            network.step()
        losses.append(float(sum(found).detach()) / parts)
    return losses


def main():
    """Print for each "saved>restored precision" the losses undisturbed and resumed, and if the state is the same."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
    found = {}
    for bf16, stages in ((False, (0, 1, 2, 3)), (True, (1, 2, 3))):
        saved = {}
        for stage in stages:
            network = engine(stage, bf16)
            steps(network, 0, SAVED, bf16)
            saved[stage] = (checkpoint.collect(network, MOMENTS), steps(network, SAVED, ALL, bf16))
            if not bf16:
                found[f"{stage} in parts"] = steps(engine(stage, bf16, 2), 0, ALL, bf16, 2)
                found[f"{stage} whole"] = steps(engine(stage, bf16), 0, ALL, bf16)
        for target in stages:
            network = engine(target, bf16)  # one for all: what it held before must not matter
            for source, (state, undisturbed) in saved.items():
                checkpoint.restore(network, state, MOMENTS, SAVED)
                again = checkpoint.collect(network, MOMENTS)
                same = state.keys() == again.keys() and all(torch.equal(state[name], again[name]) for name in state)
                resumed = steps(network, SAVED, ALL, bf16)
                name = f"{source}>{target} {'bf16' if bf16 else 'fp32'}"
                found[name] = {"undisturbed": undisturbed, "resumed": resumed, "same": same, "names": sorted(state)}
    torch.distributed.destroy_process_group()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
