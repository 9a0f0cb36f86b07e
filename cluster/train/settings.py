"""What shapes a meta-training, and what only says how it is carried out and watched."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.config import ClusterConfig, Config
from cluster.config.train import SHARES, own_units
from cluster.datasets import training
from cluster.datasets.training import TrainingPlace
from cluster.engine.settings import picked
from cluster.features import backbone
from cluster.features.backbone import BackboneSettings
from cluster.features.head import HeadSettings
from cluster.label import sources
from cluster.train import start
from cluster.train.tasks import labelled, mixed, unlabelled
from cluster.train.tasks.labelled import LabelledSettings
from cluster.train.tasks.unlabelled import UnlabelledSettings
from fss.tasks.pairing.parts.rules import Rules
from fss.tasks.views import Augment


@dataclass(frozen=True)
class StreamSettings:
    """How tasks are paired while training."""

    seed: int
    rules: Rules
    """The keys of the chosen pairing."""


@dataclass(frozen=True)
class Kept:
    """The fold whose classes no label or name told of: what the exported model says of itself."""

    dataset: str
    fold: Any


@dataclass(frozen=True)
class TrainSettings:
    """What shapes the exported model beside the stages that training reads."""

    head: HeadSettings
    backbone: BackboneSettings
    seed: int
    tasks: str
    stream: StreamSettings | None
    labelled: LabelledSettings | None
    unlabelled: UnlabelledSettings | None
    mix: Mapping[str, int]
    """Shares of other runs' tasks, in `SHARES`, by the fingerprints of their pair stages."""
    kept: Kept | None
    init_from: str | None
    """A hash of the weights that training starts from."""
    steps: int
    batch: int
    optimizer: str
    lr: float
    weight_decay: float
    sgd_lr: float
    sgd_weight_decay: float
    schedule: str
    warmup: int
    clip: float
    loss: str
    ema: float
    tune: tuple[str, ...]
    tune_factor: float
    precision: str
    features: str
    views: int
    augment: Augment
    holdout: int
    candidates: int
    select: str

    @property
    def own_units(self) -> int:
        """What of `SHARES` is of the run's own tasks."""
        return SHARES - sum(self.mix.values())


@dataclass(frozen=True)
class TrainMeans:
    """How training is carried out and watched, and where the files are whose content is hashed."""

    cluster: ClusterConfig
    weights: str | None
    """Of the backbone."""
    training: TrainingPlace
    unlabelled_run: str | None
    mix: Mapping[str, float]
    init_from: str | None
    zero_stage: int
    accumulate: int
    gradient_checkpointing: bool
    compile: bool
    cache_gib: float
    checkpoint_every: int
    keep_checkpoints: int
    log_every: int
    loader_workers: int
    examples: int
    register: str | None
    alias: str | None
    max_failures: int


def settings(config: Config) -> TrainSettings:
    """What shapes the training of this configuration.

    Raises:
        ValueError: for files that are missing or cannot be used.
    """
    keys = config.train
    return picked(
        TrainSettings,
        keys,
        head=HeadSettings(config.model.name, config.model.options).complete,
        backbone=backbone.settings(config),
        seed=config.seed if keys.seed is None else keys.seed,
        stream=_stream(config),
        labelled=labelled.settings(config) if keys.tasks == "labelled" else None,
        unlabelled=unlabelled.settings(config),
        mix=mixed.settings(keys.mix),
        kept=_kept(config),
        init_from=start.content(keys.init_from),
    )


def _stream(config: Config) -> StreamSettings | None:
    if config.train.tasks != "stream":
        return None
    rules = dataclasses.replace(config.pair, tasks_per_shard=type(config.pair)().tasks_per_shard)  # nothing is written
    return StreamSettings(config.seed, copy.deepcopy(rules))


def _kept(config: Config) -> Kept | None:
    """Where a source sees names, or another run's may have."""
    own = config.train.tasks != "labelled" and own_units(config.train.mix) > 0
    names = own and sources.chosen(config).named
    return Kept(config.dataset.name, config.fold) if config.train.mix or names else None


def means(config: Config) -> TrainMeans:
    """How this configuration is trained."""
    return picked(
        TrainMeans,
        config.train,
        cluster=config.cluster,
        weights=backbone.place(config),
        training=training.place(config),
        mix=dict(config.train.mix),
        init_from=start.located(config.train.init_from),
    )
