"""train: meta-train the head on pseudo-tasks, the backbone frozen, under Ray Train and DeepSpeed; export the model.

Tasks are those that the pair stage wrote, or made while training: paired of label maps (train.tasks=stream; pair is not
run), or episodes of labelled images (train.tasks=labelled; no stage but those of the backbone is). With train.mix,
tasks of other runs join them.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.config import plain
from cluster.config.train import own_units
from cluster.engine import publish
from cluster.engine.run import Run
from cluster.engine.stage import File, Stage
from cluster.features import backbone
from cluster.label import sources
from cluster.pair.groups import groups
from cluster.pair.groups import settings as pairing_settings
from cluster.train import candidates, start
from cluster.train.recipe import HOLDOUT, MetaRecipe
from cluster.train.tasks import Tasks, labelled, mixed, unlabelled
from cluster.train.tasks.stream import Streams
from cluster.train.tasks.written import written
from cluster.training import loop as training
from fss import heads, segmenter, shards

logger = logging.getLogger(__name__)

#: What says how training is carried out and watched, not what comes out.
_OPERATIONAL = frozenset(
    {"zero_stage", "accumulate", "gradient_checkpointing", "compile", "cache_gib", "checkpoint_every"}
    | {"keep_checkpoints", "log_every", "loader_workers", "examples", "register", "alias", "max_failures"}
)


def model_options(run: Run) -> dict[str, Any]:
    """Name and options of the head, as `fss.heads.build` takes them."""
    return {"name": run.config.model.name, "options": dict(run.config.model.options)}


def _settings(run: Run) -> dict[str, Any]:
    chosen = {key: value for key, value in plain(run.config.train).items() if key not in _OPERATIONAL}
    for place in ("images", "unlabelled_run", "mix"):  # what lies there is below
        del chosen[place]
    if _labelled(run):
        chosen["labelled"] = labelled.settings(run)
    else:
        del chosen["ratio"]
    if _streams(run):
        rules = pairing_settings(run.config.pair)
        chosen["pair"] = {key: value for key, value in rules.items() if key != "tasks_per_shard"}
    chosen |= unlabelled.settings(run) | mixed.settings(run.config.train.mix)
    chosen |= {"seed": _seed(run), **start.settings_of_start(run.config.train)}
    return {"model": model_options(run), "backbone": backbone.settings(run), **chosen}


def _seed(run: Run) -> int:
    """The seed of training, which is the run's own or another one."""
    return run.config.seed if run.config.train.seed is None else run.config.train.seed


def _streams(run: Run) -> bool:
    return run.config.train.tasks == "stream"


def _labelled(run: Run) -> bool:
    return run.config.train.tasks == "labelled"


def _tasks(run: Run, folder: Path) -> tuple[Tasks, Tasks]:
    """Those for training and those for validation."""
    mix = run.config.train.mix
    if not mix:
        return _own_tasks(run, folder)
    corpus = run.identity("shard")[2] if "shard" in run.order("train") else None
    return mixed.mixed(_own_tasks(run, folder) if own_units(mix) else None, mix, corpus)


def _own_tasks(run: Run, folder: Path) -> tuple[Tasks, Tasks]:
    config = run.config
    if _labelled(run):
        return labelled.open_tasks(run, folder)
    if _streams(run):
        corpus, labels = run.manifest("shard"), run.manifest("label")
        found = tuple(groups(corpus, labels, config.pair.group_shards))
        return Streams(corpus.folder, labels.folder, found, config.pair, config.seed).open(run.pool)
    return written(run.manifest("pair"))


def _seen(run: Run) -> dict[str, Any]:
    """What an exported model says of what its tasks were made of."""
    config, own = run.config, {}
    if own_units(config.train.mix):
        own = labelled.facts(run) if _labelled(run) else sources.chosen(config).facts(run)
    if not config.train.mix:
        return own
    return {"dataset": config.dataset.name, "fold": config.fold, **own, **mixed.facts(config.train.mix, own)}


def job(run: Run, folder: Path) -> training.Job:
    """The training of this run, which writes into `folder`."""
    config = run.config
    if config.model.name in (*heads.training_free(), "trained"):
        raise ValueError(f"model={config.model.name} has nothing to train; choose another head, or run jobs.evaluate")
    train, holdout = _tasks(run, folder)
    facts = {"run": config.name, "fingerprint": folder.name, "steps": config.train.steps}
    recipe = MetaRecipe(
        train=unlabelled.wrapped(run, train),
        holdout=holdout if config.train.holdout and sum(holdout.counts) else None,
        spec=backbone.spec(run),
        model=model_options(run),
        settings=dataclasses.replace(config.train, init_from=start.located(config.train.init_from)),
        seed=_seed(run),
        facts=facts | _seen(run),
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
        seed=_seed(run),
        warmup=config.train.warmup,
        schedule=config.train.schedule,
        accumulate=config.train.accumulate,
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
    if _labelled(run):
        publish.write_bytes(folder / labelled.LIST, "".join(f"{name}\n" for name in labelled.names(run)).encode())
    candidates.make_good(folder, training_job.validations())
    run.ray()
    run.release_pool()
    training.train(training_job, run.config.cluster, chosen.max_failures)
    _tell(run, folder)
    own = [labelled.LIST] if _labelled(run) else []
    return exported_files(folder, own), {"steps": chosen.steps, "episodes": chosen.steps * chosen.batch}


def _tell(run: Run, folder: Path) -> None:
    """Say which candidate was exported and why, and journal it."""
    selection = segmenter.read_about(folder / "model")["facts"]["selection"]
    asked, how, step, value = run.config.train.select, selection["by"], selection["step"], selection[HOLDOUT]
    if asked != how:
        logger.warning(
            "train.select=%s: no task was held out, so step %d, the last one, is exported; set train.holdout "
            "above 0, or give more images", asked, step,
        )  # fmt: skip
    measured = "" if value is None else f", IoU {100 * value:.1f} % on held-out tasks"
    logger.info("train: the model of step %d of %d, selected by %s%s", step, run.config.train.steps, how, measured)
    with run.journal("train") as journal:
        journal.tags({"selected_by": how})
        journal.metrics({"train/selected_step": step} | ({} if value is None else {f"train/selected_{HOLDOUT}": value}))
        journal.artifact(folder / "model", "model")
        if run.config.train.register:
            journal.register(run.config.train.register, run.config.train.alias, folder / "model", "model")
        if _labelled(run):
            journal.artifact(folder / labelled.LIST)


def exported_files(folder: Path, others: Sequence[str] = ()) -> list[File]:
    """The files of the model that a training worker exported into `folder`, of the candidates, and `others`."""
    kept = [one.path.relative_to(folder).parent for one in candidates.read(folder)]
    names = ["model/model.safetensors", "model/backbone.safetensors", "model/model.json"]
    names += [str(path / name) for path in kept for name in (candidates.WEIGHTS, candidates.FIGURES)]
    found = []
    for name in (*names, *others):
        data = (folder / name).read_bytes()
        found.append(File(name, 0, len(data), shards.sha256(data)))
    return found


def _inputs(run: Run) -> tuple[str, ...]:
    tasks: tuple[str, ...]
    if not own_units(run.config.train.mix):
        tasks = ()
    elif _labelled(run):
        tasks = ("render",) if labelled.renders(run) else ()
    else:
        tasks = ("shard", "label") if _streams(run) else ("pair",)
    return tuple(dict.fromkeys((*tasks, *unlabelled.needed(run), *backbone.needed(run))))


STAGE = Stage("train", _inputs, _settings, _work)
