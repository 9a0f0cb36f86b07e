"""Keys of meta-training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.config.backbone import PRECISIONS
from fss.keys import FROM_ZERO, POSITIVE, SHARE, at_least, key, one_of, ranged
from fss.tasks.views import Augment

OPTIMIZERS = ("adamw", "sgd", "mixed")
_ADAMW, _SGD = ("adamw", "mixed"), ("sgd", "mixed")
LOSSES = ("cross_entropy", "dice", "cross_entropy_dice")


@dataclass
class TrainConfig:
    """Meta-training with DeepSpeed under Ray Train."""

    tasks: str = key("shards", one_of("shards", "stream", "labelled"))
    """Where tasks come from: `shards` = the pair stage's, the same in every epoch; `stream` = paired while training,
    by the rules of `pair`, anew in every epoch, nothing is written; `labelled` = episodes of labelled images of the
    classes that `fold` does not test."""
    images: str | None = None
    """The labelled images (tasks=labelled): a text file below dataset.root or any path; none = the set's train list."""
    ratio: float = key(1.0, SHARE)
    """Share of the labelled images that is used (tasks=labelled): 0.05, 0.1, 0.2, 1."""
    unlabelled: int = key(0, FROM_ZERO)
    """Unlabelled images beside each task, of which only a head's losses on single images learn (model=mining)."""
    unlabelled_run: str | None = key(None, when={"unlabelled": True}, path=True)
    """Folder of a run whose corpus they come from; none = this run's."""
    mix: dict[str, float] = key({}, path=True)
    """Shares of the episodes that are tasks of other runs, in thousandths, by a run's folder (its pair stage that
    finished last) or a pair stage's: {runs/splits: 0.5}; what they leave is of `tasks`. Held-out tasks mix alike."""
    seed: int | None = None
    """Of the head's first weights, the order of tasks and their augmentation; none = the run's seed."""
    init_from: str | None = key(None, path=True)
    """Exported model, or run's folder, whose head training starts from; steps and optimiser start anew."""
    steps: int = key(800, at_least(1))
    """Optimiser steps."""
    batch: int = key(16, at_least(1))
    """Episodes a step, over all workers."""
    accumulate: int = key(1, at_least(1))
    """Parts in which each worker computes its share of a batch, one after the other, to save memory."""
    optimizer: str = key("adamw", one_of(*OPTIMIZERS))
    """`adamw`, `sgd`, or `mixed` = AdamW for the head's transformers and SGD for the rest, in one step."""
    lr: float = key(1e-3, POSITIVE, when={"optimizer": _ADAMW})
    """Learning rate of AdamW."""
    sgd_lr: float = key(1e-2, POSITIVE, when={"optimizer": _SGD})
    """Learning rate of SGD (momentum 0.9)."""
    weight_decay: float = key(1e-2, FROM_ZERO, when={"optimizer": _ADAMW})
    """Of AdamW; gains, markers, biases and norms are not decayed."""
    sgd_weight_decay: float = key(1e-4, FROM_ZERO, when={"optimizer": _SGD})
    """Of SGD, all parameters alike."""
    schedule: str = key("cosine", one_of("cosine", "poly", "step", "constant"))
    """How the learning rate falls after the warm-up: `cosine`, `poly` (power 0.9), `step` (a tenth after
    each third of the steps) or `constant`."""
    warmup: int = key(50, FROM_ZERO)
    """Steps in which the learning rate rises."""
    clip: float = key(1.0, FROM_ZERO)
    """Largest norm of a step's gradient; 0 = not clipped."""
    loss: str = key("cross_entropy_dice", one_of(*LOSSES))
    """What is minimised on the query, see fss.heads.parts.losses."""
    ema: float = key(0.99, ranged("a decay in [0, 1)", lambda value: 0 <= value < 1))
    """Decay of the averaged weights, which are what is measured and exported; 0 = no averaging."""
    tune: list[str] = key([])
    """Parts of the backbone that are trained as well, by the beginning of their parameters' names; needs
    features=fresh. Its normalisation statistics stay as they are."""
    tune_factor: float = key(0.1, POSITIVE, when={"tune": True})
    """Learning rate of tuned parts, as a share of lr."""
    gradient_checkpointing: bool = False
    """Whether a tuned backbone keeps no activations but computes them again for the backward pass."""
    compile: bool = False
    """Whether the head is compiled by torch.compile; needs a C++ compiler on CPUs."""
    precision: str = key("fp32", one_of(*PRECISIONS))
    """bf16 where the processor computes in it (GPUs, AMX, AVX-512 BF16)."""
    zero_stage: int = key(1, one_of(0, 1, 2, 3))
    """What DeepSpeed's ZeRO divides among the workers: 1 the optimiser's state, 2 gradients too, 3 weights too."""
    features: str = key("cached", one_of("cached", "fresh"))
    """`cached` = features of a fixed number of views of each image are computed once and reused; `fresh` = a new view
    for every use, through the backbone every time."""
    views: int = key(2, at_least(1), when={"features": ("cached",)})
    """Fixed views of each image (features=cached)."""
    augment: Augment = key(Augment)
    """How views are changed."""
    cache_gib: float = key(4.0, FROM_ZERO)
    """Memory for cached features of each worker, GiB; what does not fit is computed again."""
    checkpoint_every: int = key(200, at_least(1))
    """Steps between two checkpoints."""
    keep_checkpoints: int = key(2, at_least(1))
    """Checkpoints that are kept, the last ones."""
    log_every: int = key(20, at_least(1))
    """Steps between two entries of the journal."""
    loader_workers: int = key(0, FROM_ZERO)
    """Processes of each worker that read, decode and augment ahead; 0 = a thread of the worker itself."""
    holdout: int = key(64, FROM_ZERO)
    """Pseudo-tasks kept out of training, on which candidates are measured without any label; 0 = none."""
    candidates: int = key(8, at_least(1))
    """Times that the averaged weights are measured and kept during training, evenly spaced, the last step included."""
    select: str = key("holdout", one_of("holdout", "last"))
    """Which candidate is exported: `holdout` = the one of the best IoU on the held-out pseudo-tasks, `last`."""
    examples: int = key(6, FROM_ZERO, when={"holdout": True})
    """Held-out tasks whose predictions are drawn at every such time, always the same ones; 0 = none."""
    register: str | None = None
    """Name in MLflow's model registry under which the exported model becomes a new version; none = not registered."""
    alias: str | None = None
    """Alias that the registered version is given, e.g. champion."""
    max_failures: int = key(2, FROM_ZERO)
    """Times that Ray Train restarts the workers after a crash, from the last checkpoint."""

    def problems(self) -> list[str]:
        """What does not go together."""
        wrong = [*self._mix_problems(), *self._tuning_problems(), *self._registry_problems()]
        if self.precision == "bf16" and self.zero_stage == 0:  # moments would be out of reach
            wrong.append("zero_stage: expected 1, 2 or 3 with train.precision=bf16, got 0; set train.zero_stage=1")
        return wrong

    def _mix_problems(self) -> list[str]:
        wrong = [
            f"mix: expected a share in thousandths from 0.001 to 1 for {run}, got {share}"
            for run, share in self.mix.items()
            if not (0 < share <= 1 and abs(share * SHARES - units(share)) < 1e-6)
        ]
        if not wrong and own_units(self.mix) < 0:
            wrong.append(f"mix: expected shares of at most 1 together, got {sum(self.mix.values()):g}")
        return wrong

    def _tuning_problems(self) -> list[str]:
        wrong = []
        if self.tune and self.features != "fresh":
            wrong.append(
                "features: expected fresh with train.tune, because features of a backbone that changes cannot be kept, "
                f"got {self.features}; set train.features=fresh"
            )
        if self.gradient_checkpointing and not self.tune:
            wrong.append(
                "gradient_checkpointing: expected false without train.tune, because a frozen backbone keeps no "
                "activations, got true; set train.tune=[PREFIX,...]"
            )
        return wrong

    def _registry_problems(self) -> list[str]:
        wrong, name, alias = [], self.register, self.alias
        if name is not None and (not name.strip() or set(name) & set("/:")):
            wrong.append(f"register: expected a name without / and :, got {name!r}")
        if alias is not None and name is None:
            wrong.append(f"alias: expected train.register beside it, got {alias!r} alone; set train.register=NAME")
        if alias is not None and (
            not re.fullmatch(r"[\w-]+", alias, re.ASCII) or re.fullmatch(r"latest|v\d+", alias, re.I)
        ):
            wrong.append(
                f"alias: expected letters, digits, _ and -, and neither latest nor a v with a number, got {alias!r}"
            )
        return wrong


#: The parts of 1 in which the shares of train.mix are counted, so that they are exact.
SHARES = 1000


def units(share: float) -> int:
    """A share of train.mix in `SHARES`."""
    return round(share * SHARES)


def own_units(mix: Mapping[str, float]) -> int:
    """What of `SHARES` train.mix leaves to a run's own tasks."""
    return SHARES - sum(map(units, mix.values()))
