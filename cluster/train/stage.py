"""train: meta-train the head on pseudo-tasks, the backbone frozen, under Ray Train and DeepSpeed; export the model.

Tasks are those that the pair stage wrote, or made while training: paired of label maps (train.tasks=stream; pair is not
run), or episodes of labelled images (train.tasks=labelled; no stage but those of the backbone is). With train.mix,
tasks of other runs join them.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from cluster.config import Config
from cluster.config.train import own_units
from cluster.datasets import training as images
from cluster.engine import publish
from cluster.engine.manifest import Manifest
from cluster.engine.settings import complaints
from cluster.engine.stage import File, Stage, Work
from cluster.features import backbone
from cluster.features.head import HeadSettings
from cluster.features.provenance import provenance
from cluster.pair import groups
from cluster.storage import paths
from cluster.train import candidates, start
from cluster.train.recipe import HOLDOUT, MetaRecipe
from cluster.train.settings import TrainMeans, TrainSettings, means, settings
from cluster.train.tasks import Tasks, labelled, mixed, unlabelled
from cluster.train.tasks.stream import Streams
from cluster.train.tasks.written import written
from cluster.training import loop as training
from fss import backbones, heads, segmenter, shards

logger = logging.getLogger(__name__)

TrainWork: TypeAlias = Work[TrainSettings, TrainMeans]


def _images(work: TrainWork) -> images.TrainingImages:
    """The labelled images that are learned from."""
    assert work.settings.labelled is not None
    return images.images(work.settings.labelled.images, work.means.training, work.inputs)


def _tasks(work: TrainWork) -> tuple[Tasks, Tasks]:
    """Those for training and those for validation."""
    chosen = work.settings
    if not chosen.mix:
        return _own_tasks(work)
    corpus = work.inputs["shard"].fingerprint if "shard" in work.inputs else None
    if "pair" in work.inputs:
        corpus = work.inputs["pair"].inputs["shard"]
    return mixed.mixed(_own_tasks(work) if chosen.own_units else None, work.means.mix, corpus)


def _own_tasks(work: TrainWork) -> tuple[Tasks, Tasks]:
    chosen = work.settings
    if chosen.labelled is not None:
        return labelled.open_tasks(work, chosen.labelled, _images(work), chosen.holdout)
    if chosen.stream is not None:
        corpus, labels, how = work.inputs["shard"], groups.labelled(work.inputs), chosen.stream
        parts = tuple(groups.groups(corpus, labels, how.rules.group_shards))
        return Streams(corpus.folder, labels.folder, parts, how.rules, how.seed).open(work.pool)
    return written(work.inputs["pair"])


def _seen(work: TrainWork) -> dict[str, Any]:
    """What an exported model says of what its tasks were made of."""
    chosen, own = work.settings, {}
    if chosen.own_units:
        own = labelled.facts(_images(work)) if chosen.labelled is not None else _named(work)
    if not chosen.mix:
        return own
    return {**_kept(chosen), **own, **mixed.facts(work.means.mix, own)}


def _named(work: TrainWork) -> dict[str, Any]:
    """The same of the names that the source of the labels has seen."""
    labels = work.inputs["pair"] if "pair" in work.inputs else groups.labelled(work.inputs)
    names = mixed.names_seen(labels, "train: expected in this run")
    return {"labelled": "names", **_kept(work.settings), "classes": list(names)} if names else {}


def _kept(chosen: TrainSettings) -> dict[str, Any]:
    return {} if chosen.kept is None else vars(chosen.kept)


def _wrapped(work: TrainWork, train: Tasks) -> Tasks:
    chosen, other = work.settings.unlabelled, work.means.unlabelled_run
    if chosen is None:
        return train
    corpus: Manifest = work.inputs["shard"] if other is None else unlabelled.corpus_of(other)
    return unlabelled.wrapped(chosen, corpus, train)


def job(work: TrainWork) -> training.Job:
    """The training that the work is."""
    chosen, how = work.settings, work.means
    train, holdout = _tasks(work)
    recipe = MetaRecipe(
        train=_wrapped(work, train),
        holdout=holdout if chosen.holdout and sum(holdout.counts) else None,
        spec=backbone.spec(chosen.backbone, how.weights, work.inputs),
        settings=chosen,
        means=how,
        facts={
            "fingerprint": work.folder.name,
            "steps": chosen.steps,
            **({"tuned": list(chosen.tune)} if chosen.tune else {}),
            **provenance(chosen.backbone, work.inputs),
            **_seen(work),
        },
    )
    return training.Job.of("train", work, recipe, validate_every=math.ceil(chosen.steps / chosen.candidates))


def _work(work: TrainWork) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, folder, training_job = work.settings, work.folder, job(work)
    own = [labelled.LIST] if chosen.labelled is not None else []
    if own:
        publish.write_bytes(folder / labelled.LIST, "".join(f"{name}\n" for name in _images(work).used()).encode())
    candidates.make_good(folder, training_job.validations())
    work.session()
    training.train(training_job, work.means.cluster, work.means.max_failures)
    paths.bring(folder / "model")
    _tell(work, own)
    return exported_files(folder, own), {"steps": chosen.steps, "episodes": chosen.steps * chosen.batch}


def _tell(work: TrainWork, others: Sequence[str]) -> None:
    """Say which candidate was exported and why, and journal it."""
    chosen, how, folder = work.settings, work.means, work.folder
    selection = segmenter.read_about(folder / "model")["facts"]["selection"]
    by, step, value = selection["by"], selection["step"], selection[HOLDOUT]
    if chosen.select != by:
        logger.warning(
            "train.select=%s: no task was held out, so step %d, the last one, is exported; set train.holdout "
            "above 0, or give more images", chosen.select, step,
        )  # fmt: skip
    measured = "" if value is None else f", IoU {100 * value:.1f} % on held-out tasks"
    logger.info("train: the model of step %d of %d, selected by %s%s", step, chosen.steps, by, measured)
    with work.journal() as journal:
        journal.tags({"selected_by": by})
        journal.metrics({"train/selected_step": step} | ({} if value is None else {f"train/selected_{HOLDOUT}": value}))
        journal.artifact(folder / "model", "model")
        if how.register:
            journal.register(how.register, how.alias, folder / "model", "model")
        for name in others:
            journal.artifact(folder / name)


def exported_files(folder: Path, others: Sequence[str] = ()) -> list[File]:
    """The files of the model that a training worker exported into `folder`, of the candidates, and `others`."""
    kept = [one.path.relative_to(folder).parent for one in candidates.read(folder)]
    names = [f"model/{name}" for name in segmenter.FILES]
    names += [str(path / name) for path in kept for name in (candidates.WEIGHTS, candidates.FIGURES)]
    files = []
    for name in (*names, *others):
        data = paths.here(folder / name).read_bytes()
        files.append(File(name, 0, len(data), shards.sha256(data)))
    return files


def _inputs(config: Config) -> tuple[str, ...]:
    keys = config.train
    tasks: tuple[str, ...] = ("pair",)
    if not own_units(keys.mix):
        tasks = ()
    elif keys.tasks == "labelled":
        tasks = images.needed(config)
    elif keys.tasks == "stream":
        tasks = ("shard", config.refine.labels)
    return tuple(dict.fromkeys((*tasks, *unlabelled.needed(config), *backbone.needed(config))))


def _check(config: Config) -> list[str]:
    """Whether there is something to train, and whether its files are there and fit."""
    if config.model.name in (*heads.training_free(), "trained"):
        return [f"model={config.model.name} has nothing to train; choose another head, or run jobs.evaluate"]
    keys, weights = config.train, backbone.problems(config)
    wrong = list(weights)
    if keys.tasks == "labelled":
        wrong += images.problems(config)
    wrong += complaints(lambda: mixed.settings(keys.mix), lambda: unlabelled.settings(config))
    if keys.init_from is not None:
        wrong += complaints(functools.partial(start.same_head, keys.init_from, config.model.name))
    if not wrong and not backbone.needed(config):
        wrong += complaints(lambda: _build(config))
    return wrong


def _build(config: Config) -> None:
    """Build the head that is to be trained, and fill it, as every worker will."""
    network = backbone.given(config).load().backbone
    chosen = HeadSettings(config.model.name, dict(config.model.options))
    head = chosen.build(network)
    if config.train.init_from is not None:
        start.fill(head, config.train.init_from, chosen.about, backbones.fingerprint(network))


def _size(settings: Callable[[str], Any]) -> Mapping[str, int]:
    chosen = settings("train")
    return {"steps": chosen.steps, "episodes": chosen.steps * chosen.batch}


STAGE = Stage(
    "train",
    _inputs,
    settings,
    _work,
    means=means,
    check=_check,
    size=_size,
    by_path=True,
    starts_training=True,
    unit="episodes",
)
