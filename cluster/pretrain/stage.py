"""pretrain: the backbone learns from the corpus itself, without labels (backbone.weights=pretrain).

The same loop as `train`; rank 0's network, which is everybody's, is exported. Objects are told apart among those of the
whole batch, and normalised by its statistics, so that the number of workers changes the order of sums alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from cluster.config import ClusterConfig, Config
from cluster.engine import publish
from cluster.engine.settings import picked
from cluster.engine.stage import File, Stage, Work, read_file
from cluster.pretrain.collective import process_group
from cluster.storage import paths
from cluster.training import loop as training
from fss import shards
from fss.backbones.small import SmallNet
from fss.imaging import images
from fss.precision import warn_of_slow
from fss.pretraining import contrast as pretrain
from fss.pretraining.proposals import propose
from fss.pretraining.views import ViewConfig, make_views
from fss.tasks import task


@dataclass(frozen=True)
class CorpusFiles:
    """Corpus shards by number: images (n, 3, side, side) and their object proposals, uint8; the last few are kept."""

    folder: Path
    files: tuple[File, ...]
    side: int

    def __call__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The images of shard `number` and their proposals."""
        return _read_images(self.folder, self.files[number], self.side)


@functools.lru_cache(maxsize=8)
def _read_images(folder: Path, file: File, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    pictures = (images.decode(members["jpg"]) for _, members in shards.unpack(read_file(folder, file)))
    rows = [np.asarray(p.resize((side, side), Image.Resampling.BILINEAR)) for p in pictures]
    pixels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.cat([propose(block.float() / 255) for block in pixels.split(64)])


@dataclass(frozen=True)
class PretrainSettings:
    """What shapes the weights."""

    seed: int
    backbone: str
    side: int
    """Pixels of the images that crops are taken from."""
    steps: int
    batch: int
    size: int
    """Pixels of a crop's side."""
    lr: float
    weight_decay: float
    warmup: int
    precision: str


@dataclass
class PretrainRecipe:
    """How the backbone is pre-trained; a `cluster.training.loop.Recipe`."""

    corpus: CorpusFiles
    settings: PretrainSettings

    def module(self, device: torch.device) -> nn.Module:
        """The network with what its objective needs."""
        warn_of_slow(self.settings.precision, device)
        module = pretrain.PretrainModel(
            SmallNet(seed=self.settings.seed),
            pretrain.ContrastConfig(bfloat16=self.settings.precision == "bf16"),
            seed=self.settings.seed,
            group=process_group(),
        )
        return module.to(memory_format=torch.contiguous_format)  # DeepSpeed broadcasts weights as plain bytes

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """AdamW over everything; norms and biases are not decayed."""
        decayed = [p for p in module.parameters() if p.ndim > 1]
        kept = [p for p in module.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.settings.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.settings.lr, betas=(0.9, 0.98))

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[tuple[Any, ...]]:
        """Two views of each of this rank's images."""
        schedule = task.Schedule(tuple(file.count for file in self.corpus.files), self.settings.seed)
        views = ViewConfig(crop=self.settings.size, grid=self.settings.size // SmallNet.stride)
        for number in range(start, stop):
            episodes = range(number * self.settings.batch + rank, (number + 1) * self.settings.batch, world)
            places = [schedule.locate(episode)[1:] for episode in episodes]
            pixels = torch.stack([self.corpus(shard)[0][position] for shard, position in places]).float().div_(255)
            proposals = torch.stack([self.corpus(shard)[1][position] for shard, position in places])
            yield (make_views(pixels, proposals, torch.tensor(list(episodes)), seed=self.settings.seed, config=views),)

    def after_step(self, module: nn.Module) -> None:
        """Nothing to do."""

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Nothing: there is no label, and the loss itself is logged."""
        return {}

    def identity(self) -> dict[str, str]:
        """Nothing: checkpoints hold all of the network."""
        return {}

    def examples(self, module: nn.Module) -> bytes | None:
        """None: there is nothing to see."""
        return None

    def candidate(self, module: nn.Module, folder: Path, step: int, figures: dict[str, float]) -> None:
        """Nothing: the last weights are exported."""

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write the network alone, as a weights file that `fss.backbones.build` reads."""
        state = {name: value.detach().float().cpu() for name, value in module.backbone.state_dict().items()}  # type: ignore[union-attr]
        publish.write_bytes(folder / "backbone.safetensors", save(state))


@dataclass(frozen=True)
class PretrainMeans:
    """How pre-training is carried out and watched."""

    cluster: ClusterConfig
    log_every: int
    checkpoint_every: int
    max_failures: int


PretrainWork: TypeAlias = Work[PretrainSettings, PretrainMeans]


def _settings(config: Config) -> PretrainSettings:
    own = {"seed": config.seed, "backbone": config.backbone.name, "side": config.backbone.size}
    return picked(PretrainSettings, config.pretrain, **own)


def _means(config: Config) -> PretrainMeans:
    return picked(PretrainMeans, config.pretrain, cluster=config.cluster, max_failures=config.train.max_failures)


def job(work: PretrainWork) -> training.Job:
    """The pre-training that the work is."""
    corpus = work.inputs["shard"]
    files = tuple(file for file in corpus.named(".tar") if file.count)
    recipe = PretrainRecipe(CorpusFiles(corpus.folder, files, work.settings.side), work.settings)
    # the objective computes in its precision by itself; the weights are stepped in float32
    return training.Job.of("pretrain", work, recipe, precision="fp32", keep_checkpoints=1)


def _work(work: PretrainWork) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen = work.settings
    work.session()
    training.train(job(work), work.means.cluster, work.means.max_failures)
    data = paths.read_bytes(work.folder / "backbone.safetensors")
    file = File("backbone.safetensors", 0, len(data), shards.sha256(data))
    return [file], {"steps": chosen.steps, "images": chosen.steps * chosen.batch}


STAGE = Stage(
    "pretrain",
    lambda config: ("shard",),
    _settings,
    _work,
    means=_means,
    size=lambda settings: {"steps": settings("pretrain").steps},
    by_path=True,
    starts_training=True,
)
