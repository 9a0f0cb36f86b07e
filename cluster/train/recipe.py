"""How a head is meta-trained: its optimiser, its batches, its label-free validation and its export."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_weights
from torch import nn

from cluster.engine import publish
from cluster.features.backbone import BackboneSpec
from cluster.train import candidates, examples, start
from cluster.train.candidates import Candidate
from cluster.train.settings import TrainMeans, TrainSettings
from cluster.train.tasks import Tasks, mixed
from cluster.training import optimizers
from cluster.training.feed import Feed, load
from fss import backbones, segmenter
from fss.backbones.extractor import Extractor
from fss.heads.parts import losses
from fss.heads.parts.capabilities import Settles, Studies
from fss.heads.parts.head import Head
from fss.precision import warn_of_slow
from fss.segmenter import presence
from fss.segmenter.presence import Presence
from fss.tasks import task
from fss.training import study
from fss.training.bank import FeatureBank, batch_features, batch_pixels
from fss.training.step import MetaModule
from fss.training.tuned import Tuned, TunedModule

#: Cells a side in which the loss compares logits with masks.
LOSS_CELLS = 65
#: What `train.select=holdout` compares.
HOLDOUT = "holdout_iou"


@dataclass
class MetaRecipe:
    """How a head is meta-trained; a `cluster.training.loop.Recipe`."""

    train: Tasks
    holdout: Tasks | None
    spec: BackboneSpec
    settings: TrainSettings
    means: TrainMeans
    facts: Mapping[str, Any]

    @functools.cached_property
    def bank(self) -> FeatureBank:
        """This worker's features."""
        return FeatureBank(self.spec.load(), int(self.means.cache_gib * 2**30))

    def module(self, device: torch.device) -> nn.Module:
        """The head with its loss."""
        warn_of_slow(self.settings.precision, device)
        backbone, chosen = self.bank.extractor.backbone, self.settings
        head = chosen.head.build(backbone, chosen.seed)
        if self.means.init_from:
            start.fill(head, self.means.init_from, chosen.head.about, backbones.fingerprint(backbone))
        elif isinstance(head, Studies) and head.studies:
            self._study(head.to(device), head)
        module = MetaModule(head, losses.by_name(chosen.loss), backbone.corners)
        if chosen.tune:
            tuned = Tuned(copy.deepcopy(backbone), chosen.tune, self.means.gradient_checkpointing, self.spec.precision)
            module = TunedModule(head, module.loss, backbone.corners, tuned)
        if self.means.compile:
            module.compile()
        return module

    def _study(self, module: nn.Module, head: Studies) -> None:
        """Show the head training images, the same ones in every worker: the first ones of the first epoch."""
        total, size = mixed.order(self.train, self.settings.seed).size, self.settings.batch
        batches = self._load(self.train, 0, math.ceil(total / size), 0, 1, size, 1)
        head.study(study.Album(study.distinct(batches, head.studies), self.bank), self.settings.seed)
        if torch.distributed.is_initialized():
            for buffer in module.buffers():  # other processors may round otherwise
                torch.distributed.broadcast(buffer, 0)

    def identity(self) -> dict[str, str]:
        """What a checkpoint does not hold and must fit: the backbone as it was before anything of it was tuned."""
        return {"backbone": backbones.fingerprint(self.bank.extractor.backbone)}

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """As `train.optimizer` says, see `optimizers.build`."""
        return optimizers.build(module, self.settings, _meta(module).head.transformers)

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[tuple[Any, ...]]:
        """What the module takes of this rank's share of each batch; see `Feed` for what counts as waiting."""
        views = self.settings.views if self.settings.features == "cached" else 0
        return Feed(self._load(self.train, start, stop, rank, world, self.settings.batch, views), self._inputs)

    def _inputs(self, batch: task.Batch) -> tuple[Any, ...]:
        """Query, support, masks and truth for the module: features, or pixels if the backbone is trained with it."""
        device = self.bank.extractor.device
        if self.settings.tune:
            pixels = batch_pixels(batch, self.bank.extractor, device)
            query: Any = pixels[:, 0]
            support: Any = pixels[:, 1:]
        else:
            query, support = batch_features(self.bank, batch)
        return query, support, batch.support.to(device), batch.truth.to(device)

    def _load(
        self, files: Tasks, start: int, stop: int, rank: int, world: int, size: int, views: int
    ) -> Iterator[task.Batch]:
        """Batches of `views` fixed views or, with 0, of fresh ones, read ahead."""
        extractor, chosen = self.bank.extractor, self.settings
        layout = task.BatchLayout(
            loss=LOSS_CELLS,
            grid=extractor.grid,
            corners=extractor.backbone.corners,
            size=extractor.size,
            interpolation=extractor.backbone.interpolation,
            pixels=views == 0,
            changed=extractor.device.type == "cpu",
        )
        data = task.Batches(
            mixed.order(files, chosen.seed), files, size, chosen.seed, views, layout, chosen.augment, rank, world
        )
        return load(data, range(start, stop), 0 if stop - start == 1 else self.means.loader_workers)

    def after_step(self, module: nn.Module) -> None:
        """What the head noted of a step is added up over the workers, and settled by each alike."""
        head = _meta(module).head
        if not isinstance(head, Settles) or (noted := head.noted()) is None:
            return
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(noted)
        head.settle(noted)

    @torch.no_grad()  # not inference_mode: under ZeRO-3 training goes on with the weights that are gathered here
    def validate(self, module: nn.Module) -> dict[str, float]:
        """Loss, IoU and area ratio on held-out pseudo-tasks, unaugmented: no label is looked at."""
        if self.holdout is None:
            return {}
        module.eval()
        _, (query, support, masks, truth) = self._held(self.settings.holdout)
        figures = module(query, support, masks, truth)
        about = _meta(module).head.diagnose(*_meta(module).features(query, support), masks)
        module.train()
        return {f"holdout_{name}": float(value) for name, value in {**figures, **about}.items()}

    @torch.no_grad()
    def examples(self, module: nn.Module) -> bytes | None:
        """The first `train.examples` held-out tasks and what the head makes of them, as a PNG."""
        if self.holdout is None or not self.means.examples:
            return None
        module.eval()
        batch, (query, support, masks, truth) = self._held(self.means.examples)
        logits = _meta(module).head(*_meta(module).features(query, support), masks)
        module.train()
        pixels = batch_pixels(batch, self.bank.extractor, torch.device("cpu"))
        return examples.picture(pixels, masks, truth, logits, self.bank.extractor.backbone.corners)

    def _held(self, count: int) -> tuple[task.Batch, tuple[Any, ...]]:
        """The first `count` held-out tasks, as they are stored and as the module takes them."""
        assert self.holdout is not None
        distinct = mixed.order(self.holdout, self.settings.seed).size
        (batch,) = self._load(self.holdout, 0, 1, 0, 1, min(distinct, count), 1)
        return batch, self._inputs(batch)

    def candidate(self, module: nn.Module, folder: Path, step: int, figures: dict[str, float]) -> None:
        """Keep the head, and what is tuned of the backbone, as it is now, with its figures."""
        own = _meta(module)
        candidates.write(folder, step, segmenter.weights_bytes(own.head, own.tuned()), figures)

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write the folder of the selected candidate's model, model.json last.

        Its head is made anew: a forward pass of the one that was trained is collective under ZeRO-3.
        """
        chosen, how = select(candidates.read(folder), self.settings.select)
        extractor = self.bank.extractor
        own, tuned = segmenter.parts(load_weights(chosen.path.read_bytes()))
        head = self.settings.head.build(extractor.backbone, self.settings.seed).to(extractor.device)
        head.load_state_dict(own)
        if tuned:  # the others keep the very values they had, also after a training in bf16
            network = copy.deepcopy(extractor.backbone)
            network.load_state_dict(tuned, strict=False)
            extractor = dataclasses.replace(extractor, backbone=network)
        facts = {**self.facts, "selection": {"by": how, "step": chosen.step, HOLDOUT: chosen.figures.get(HOLDOUT)}}
        files = segmenter.export(head, extractor, self.settings.head.about, facts, self._presence(head, extractor))
        *others, (about, vouches) = files.items()
        publish.write_each({folder / "model" / name: data for name, data in others})
        publish.write_bytes(folder / "model" / about, vouches)

    def _presence(self, head: Head, extractor: Extractor) -> Presence | None:
        """How the head's answers tell that a query does not hold the thing, from the held-out tasks."""
        if self.holdout is None:
            return None
        batch, (query, support, masks, _) = self._held(self.settings.holdout)
        if self.settings.tune:
            shots = extractor.features(support.flatten(0, 1))
            query, support = extractor.features(query), {k: v.unflatten(0, masks.shape[:2]) for k, v in shots.items()}
        return presence.calibrated(
            head.eval(), query, support, masks, [{key for key, _ in row} for row in batch.images]
        )


def _meta(module: nn.Module) -> MetaModule:
    assert isinstance(module, MetaModule)
    return module


def select(kept: Sequence[Candidate], by: str) -> tuple[Candidate, str]:
    """The candidate to export, and how it was selected in the end: `holdout` or `last`.

    By `holdout` it is the one of the best IoU on held-out pseudo-tasks, the earliest of equals; where nothing was held
    out, or no figure is a number, the last one.
    """
    measured = [one for one in kept if math.isfinite(one.figures.get(HOLDOUT, math.nan))]
    if by == "holdout" and measured:
        return max(measured, key=lambda one: (one.figures[HOLDOUT], -one.step)), "holdout"
    return max(kept, key=lambda one: one.step), "last"
