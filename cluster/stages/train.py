"""train: meta-train the head on pseudo-tasks, the backbone frozen, under Ray Train and DeepSpeed; export the model.

Tasks are those that the pair stage wrote, or (train.tasks=stream) made while training: then pair is not run.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import nn
from torch.utils.data import DataLoader

from cluster import backbone, publish
from cluster.backbone import BackboneSpec
from cluster.run import Run
from cluster.stage import File, Stage, read_file
from cluster.tasks.groups import groups
from cluster.tasks.stream import Streams, TaskStream
from cluster.training import candidates
from cluster.training import loop as training
from cluster.training.candidates import Candidate
from fss import losses, models, segmenter, shards, tasks
from fss.bank import FeatureBank, batch_features
from fss.meta import MetaModule

logger = logging.getLogger(__name__)

#: Cells a side in which the loss compares logits with masks.
LOSS_CELLS = 65
#: What `train.select=holdout` compares.
HOLDOUT = "holdout_iou"
_NO_DECAY = ("gain", "marker", "bias", "norm")


@dataclass(frozen=True)
class TaskFiles:
    """Shards of tasks, as a function of the shard's number; the last few stay in memory."""

    folder: Path
    files: tuple[File, ...]

    def __call__(self, number: int, epoch: int) -> Sequence[tasks.Task]:
        """The tasks of shard `number`, the same in every epoch."""
        return _read_tasks(self.folder, self.files[number])

    @property
    def counts(self) -> tuple[int, ...]:
        """Tasks in each shard."""
        return tuple(file.count for file in self.files)


Tasks = TaskFiles | TaskStream


@functools.lru_cache(maxsize=4)
def _read_tasks(folder: Path, file: File) -> list[tasks.Task]:
    found = [tasks.decode(sample) for sample in shards.unpack(read_file(folder, file))]
    if len(found) != file.count:
        raise ValueError(
            f"{folder / file.path}: expected {file.count} tasks, got {len(found)}; run the pair stage again"
        )
    return found


@dataclass
class MetaRecipe:
    """How a head is meta-trained; a `cluster.training.loop.Recipe`."""

    train: Tasks
    holdout: Tasks | None
    spec: BackboneSpec
    model: Mapping[str, Any]
    settings: Any
    seed: int
    facts: Mapping[str, Any]

    @functools.cached_property
    def bank(self) -> FeatureBank:
        """This worker's features."""
        return FeatureBank(self.spec.load(), int(self.settings.cache_gib * 2**30))

    def module(self, device: torch.device) -> nn.Module:
        """The head with its loss."""
        training.warn_of_slow(self.settings.precision, device)
        channels = self.bank.extractor.backbone.channels
        head = models.build(self.model["name"], channels, seed=self.seed, **self.model["options"])
        return MetaModule(head, losses.by_name(self.settings.loss), self.bank.extractor.backbone.corners)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """AdamW; gains, markers, biases and norms are not decayed."""
        kept: list[nn.Parameter] = []
        decayed: list[nn.Parameter] = []
        for name, parameter in module.named_parameters():
            (kept if parameter.ndim < 2 or any(n in name for n in _NO_DECAY) else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.settings.weight_decay},
            {"params": kept, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.settings.lr)

    def batches(self, start: int, stop: int, rank: int, world: int) -> Iterator[tuple[Any, ...]]:
        """Features and masks of this rank's share of each batch."""
        views = self.settings.views
        for batch in self._load(self.train, start, stop, rank, world, self.settings.batch, views):
            query, support = batch_features(self.bank, batch)
            device = self.bank.extractor.device
            yield query, support, batch.support.to(device), batch.truth.to(device)

    def _load(
        self, files: Tasks, start: int, stop: int, rank: int, world: int, size: int, views: int
    ) -> Iterator[tasks.Batch]:
        schedule = tasks.Schedule(files.counts, self.seed)
        extractor = self.bank.extractor
        data = tasks.Batches(
            schedule, files, size, self.seed, views, LOSS_CELLS, extractor.grid, extractor.backbone.corners, rank, world
        )
        numbers = range(start, stop)
        workers = self.settings.loader_workers
        return iter(DataLoader(data, batch_size=None, sampler=numbers, num_workers=workers))  # type: ignore[arg-type]

    def after_step(self, module: nn.Module) -> None:
        """Nothing to do."""

    @torch.inference_mode()
    def validate(self, module: nn.Module) -> dict[str, float]:
        """Loss, IoU and area ratio on held-out pseudo-tasks, unaugmented: no label is looked at."""
        if self.holdout is None:
            return {}
        size = min(sum(self.holdout.counts), self.settings.holdout)
        module.eval()
        (batch,) = self._load(self.holdout, 0, 1, 0, 1, size, 1)
        query, support = batch_features(self.bank, batch)
        device = self.bank.extractor.device
        figures = module(query, support, batch.support.to(device), batch.truth.to(device))
        module.train()
        sums = {f"holdout_{name}": float(value) for name, value in figures.items()}
        if sums["holdout_area_ratio"] < 0.05:
            logger.warning("the model predicts almost only background; lower train.lr or use train.loss=dice")
        return sums

    def candidate(self, module: nn.Module, folder: Path, step: int, figures: dict[str, float]) -> None:
        """Keep the head as it is now, with its figures."""
        candidates.write(folder, step, segmenter.weights_bytes(_head(module)), figures)

    def export(self, module: nn.Module, folder: Path) -> None:
        """Write the folder of the selected candidate's model, model.json last."""
        chosen, how = select(candidates.read(folder), self.settings.select)
        head = _head(module)
        head.load_state_dict(load(chosen.path.read_bytes()))
        facts = {**self.facts, "selection": {"by": how, "step": chosen.step, HOLDOUT: chosen.figures.get(HOLDOUT)}}
        for name, data in segmenter.export(head, self.bank.extractor, self.model, facts).items():
            publish.write_bytes(folder / "model" / name, data)


def _head(module: nn.Module) -> nn.Module:
    return module.head if isinstance(module, MetaModule) else module


def select(found: Sequence[Candidate], by: str) -> tuple[Candidate, str]:
    """The candidate to export, and how it was selected in the end: `holdout` or `last`.

    By `holdout` it is the one of the best IoU on held-out pseudo-tasks, the earliest of equals; where nothing was held
    out, or no figure is a number, the last one.
    """
    measured = [one for one in found if math.isfinite(one.figures.get(HOLDOUT, math.nan))]
    if by == "holdout" and measured:
        return max(measured, key=lambda one: (one.figures[HOLDOUT], -one.step)), "holdout"
    return max(found, key=lambda one: one.step), "last"


def model_options(run: Run) -> dict[str, Any]:
    """Name and options of the head, as `fss.models.build` takes them."""
    return {"name": run.config.model.name, "options": dict(run.config.model.options)}


def _settings(run: Run) -> dict[str, Any]:
    keys = (
        *("steps", "batch", "lr", "weight_decay", "warmup", "clip", "loss", "ema", "precision", "views"),
        *("holdout", "candidates", "select"),
    )
    chosen = {key: getattr(run.config.train, key) for key in keys}
    if _streams(run):
        rules = {key: value for key, value in vars(run.config.pair).items() if key != "tasks_per_shard"}
        chosen |= {"tasks": "stream", "pair": rules}
    return {"seed": run.config.seed, "model": model_options(run), "backbone": backbone.settings(run), **chosen}


def _streams(run: Run) -> bool:
    return run.config.train.tasks == "stream"


def _tasks(run: Run) -> tuple[Tasks, Tasks]:
    """Those for training and those for validation."""
    config = run.config
    if _streams(run):
        corpus, labels = run.manifest("shard"), run.manifest("label")
        found = tuple(groups(corpus, labels, config.pair.group_shards))
        return Streams(corpus.folder, labels.folder, found, config.pair, config.seed).open(run.pool)
    pair = run.manifest("pair")
    files = [file for file in pair.named(".tar") if file.count]
    train, held = (tuple(f for f in files if f.path.startswith(kind)) for kind in ("tasks", "holdout"))
    return TaskFiles(pair.folder, train), TaskFiles(pair.folder, held)


def job(run: Run, folder: Path) -> training.Job:
    """The training of this run, which writes into `folder`."""
    config = run.config
    if config.model.name in (*models.TRAINING_FREE, "trained"):
        raise ValueError(f"model={config.model.name} has nothing to train; choose another head, or run jobs.evaluate")
    train, holdout = _tasks(run)
    recipe = MetaRecipe(
        train=train,
        holdout=holdout if config.train.holdout and sum(holdout.counts) else None,
        spec=backbone.spec(run),
        model=model_options(run),
        settings=dataclasses.replace(config.train),
        seed=config.seed,
        facts={"run": config.name, "fingerprint": folder.name, "steps": config.train.steps},
    )
    return training.Job(
        name="train",
        recipe=recipe,
        folder=folder,
        tracking=run.tracking_folder,
        journal=run.journal_name("train"),
        parent=run.pipeline_name,
        identity={"run": folder.name},
        steps=config.train.steps,
        batch=config.train.batch,
        warmup=config.train.warmup,
        clip=config.train.clip,
        ema=config.train.ema,
        precision=config.train.precision,
        zero_stage=config.train.zero_stage,
        log_every=config.train.log_every,
        validate_every=math.ceil(config.train.steps / config.train.candidates),
        checkpoint_every=config.train.checkpoint_every,
        keep_checkpoints=config.train.keep_checkpoints,
        threads=config.cluster.cpus_per_train_worker,
    )


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, training_job = run.config.train, job(run, folder)
    candidates.make_good(folder, training_job.validations())
    run.ray()
    run.release_pool()
    training.train(training_job, run.config.cluster, chosen.max_failures)
    _tell(run, folder)
    return exported_files(folder), {"steps": chosen.steps, "episodes": chosen.steps * chosen.batch}


def _tell(run: Run, folder: Path) -> None:
    """Say which candidate was exported and why, and journal it."""
    selection = segmenter.read_about(folder / "model")["facts"]["selection"]
    asked, how, step, value = run.config.train.select, selection["by"], selection["step"], selection[HOLDOUT]
    if asked != how:
        logger.warning(
            "train.select=%s: no pseudo-task was held out, so step %d, the last one, is exported; set train.holdout "
            "above 0, or give more images", asked, step,
        )  # fmt: skip
    measured = "" if value is None else f", IoU {100 * value:.1f} % on held-out pseudo-tasks"
    logger.info("train: the model of step %d of %d, selected by %s%s", step, run.config.train.steps, how, measured)
    with run.journal("train") as journal:
        journal.tags({"selected_by": how})
        journal.metrics({"train/selected_step": step} | ({} if value is None else {f"train/selected_{HOLDOUT}": value}))
        journal.artifact(folder / "model", "model")


def exported_files(folder: Path) -> list[File]:
    """The files of the model that a training worker exported into `folder`, and of the candidates."""
    kept = [one.path.relative_to(folder).parent for one in candidates.read(folder)]
    names = ["model/model.safetensors", "model/backbone.safetensors", "model/model.json"]
    names += [str(path / name) for path in kept for name in (candidates.WEIGHTS, candidates.FIGURES)]
    found = []
    for name in names:
        data = (folder / name).read_bytes()
        found.append(File(name, 0, len(data), shards.sha256(data)))
    return found


def _inputs(run: Run) -> tuple[str, ...]:
    return (*(("shard", "label") if _streams(run) else ("pair",)), *backbone.needed(run))


STAGE = Stage("train", _inputs, _settings, _work)
