"""The smallest training: four weights whose gradient is known, in the loop's own processes."""

import dataclasses
import json

import torch
from torch import nn

from fss.training.optimizers import Mixed


class Cliff(torch.autograd.Function):
    """The identity, whose slope is infinite."""

    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, grad):
        return grad * float("inf")


class Net(nn.Module):
    """Weights from zero whose gradient is the mean of the inputs, a quarter for each."""

    def __init__(self, cliff):
        super().__init__()
        self.cliff = cliff
        self.weights = nn.Parameter(torch.zeros(1, 4))

    def forward(self, x):
        loss = (self.weights * x.to(self.weights.dtype)).mean()
        return {"loss": (Cliff.apply(loss) if self.cliff else loss).float()}


@dataclasses.dataclass
class Plain:
    """A recipe: SGD of rate 1; each rank's share of a batch are its `rows`."""

    rows: tuple[tuple[float, ...], ...]
    cliff: bool = False

    def module(self, device):
        return Net(self.cliff)

    def identity(self):
        return {}

    def optimizer(self, module):
        groups = [{"params": [module.weights], "rule": "sgd", "lr": 1.0, "weight_decay": 0.0, "momentum": 0.0}]
        return Mixed(groups)

    def batches(self, start, stop, rank, world):
        for _ in range(start, stop):
            yield (torch.tensor(self.rows[rank])[:, None].expand(-1, 4) * 4,)

    def after_step(self, module):
        pass

    def validate(self, module):
        return {}

    def examples(self, module):
        return None

    def candidate(self, module, folder, step, figures):
        pass

    def export(self, module, folder):
        (folder / "weights.json").write_text(json.dumps(module.weights.detach().float().flatten().tolist()))
