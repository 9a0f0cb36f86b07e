"""What contradicts between groups of a configuration, and which keys do nothing because of another group."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from cluster.config import Config, baselines
from fss.keys import Idle


def problems(config: Config, thorough: bool = True) -> list[str]:
    """All that does not go together, one sentence each; `thorough` looks into heads as well, which takes seconds."""
    wrong = [*_training(config), *_tuning(config), *_evaluation(config)]
    return wrong + (_head(config) if thorough else [])


def idle(config: Config) -> dict[str, Idle]:
    """The keys that another group makes do nothing, with dots."""
    return dict(_idle(config))


def idle_options(config: Config) -> dict[str, Idle]:
    """The options of the head that do nothing beside its others, with dots; takes seconds, as heads are looked into."""
    from fss import heads

    name, options = config.model.name, config.model.options
    if name not in heads.names():
        return {}
    return {f"model.options.{key}": why for key, why in heads.idle_options(name, options).items()}


def renders(config: Config) -> bool:
    """Whether scenes are rendered: as the corpus, or to be measured on."""
    return config.corpus.kind == "scenes" or config.dataset.rendered


def _idle(config: Config) -> Iterator[tuple[str, Idle]]:
    if not renders(config):
        for name in ("scenes", "scenes_val", "scene_size"):
            yield f"corpus.{name}", Idle("with corpus.kind=folder", "set corpus=scenes")
    if config.backbone.weights != "pretrain":
        for name in _fields(config.pretrain):
            yield f"pretrain.{name}", Idle("without backbone.weights=pretrain", "set backbone.weights=pretrain")
    if not config.refine.on:
        for name in _fields(config.refine):
            if name != "name":
                yield f"refine.{name}", Idle("with refine.name=none", "set refine=consensus")
    yield from _idle_in_training(config)


def _idle_in_training(config: Config) -> Iterator[tuple[str, Idle]]:
    train = config.train
    named_by_masks = config.source.name == "cam" and config.source.names is None
    if train.tasks != "labelled" and not named_by_masks:
        for name in ("images", "ratio"):
            yield f"train.{name}", Idle(f"with train.tasks={train.tasks}", "set train.tasks=labelled")
    if train.features == "cached" and train.views <= 2:  # the image itself and its mirror image
        for name in _fields(train.augment):
            yield f"train.augment.{name}", Idle(f"with train.views={train.views}", "set train.views=4 or more")
    elif train.features == "cached":
        yield "train.augment.keep", Idle("with train.features=cached", "set train.features=fresh")


def _fields(keys: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(keys)]


def _training(config: Config) -> Iterator[str]:
    train, workers = config.train, config.cluster.train_workers
    parts = workers * train.accumulate
    if min(workers, train.accumulate) >= 1 and train.batch % parts:
        yield (
            f"train.batch: expected a multiple of cluster.train_workers={workers}"
            f"{'' if train.accumulate == 1 else f' times train.accumulate={train.accumulate}'}, got {train.batch}; "
            f"set train.batch={parts * max(1, train.batch // parts)}"
        )
    repeats = getattr(config.pair, "repeats", None)
    if train.tasks == "stream" and repeats is not None:
        yield (
            "pair.repeats: expected null with train.tasks=stream, which pairs anew in every epoch, "
            f"got {repeats}; set train.tasks=shards"
        )
    if train.tasks == "labelled" and config.fold == "all":
        yield (
            "fold: expected the number of the fold to be tested with train.tasks=labelled, as a model is measured on "
            "classes that it was not trained on, got all; set fold=0, then 1, 2 and 3"
        )
    if train.register is not None and not config.tracking.enabled:
        yield (
            "train.register: expected tracking.enabled=true, got false; MLflow keeps the registry, "
            "set tracking.enabled=true"
        )


def _tuning(config: Config) -> Iterator[str]:
    if not config.train.tune:
        return
    if config.backbone.debias:
        yield (
            f"backbone.debias: expected 0 with train.tune, got {config.backbone.debias}; the directions are those of a "
            "backbone that does not change, set backbone.debias=0"
        )
    if config.select != "holdout":
        yield (
            f"select: expected holdout with train.tune, got {config.select}; candidates differ in their backbones, "
            "set select=holdout"
        )


def _evaluation(config: Config) -> Iterator[str]:
    if config.protocol.supports == "names" and config.source.name != "cam":
        yield (
            "source: expected cam with protocol.supports=names, as it makes masks of names, got "
            f"{config.source.name}; set source=cam"
        )
    asked = baselines(config)
    if asked:
        from fss import heads

        free = tuple(heads.training_free())
        yield from (
            f"baselines: {name}: expected one of {', '.join(free)}, got {name!r}" for name in asked if name not in free
        )


def _head(config: Config) -> list[str]:
    """What the head says of its options, and of how it is to be trained."""
    from fss import heads
    from fss.heads.parts.options import LearnedOptions

    name, train = config.model.name, config.train
    if name not in heads.names():
        return []
    options, wrong = heads.read_options(name, config.model.options)
    learned = options if isinstance(options, LearnedOptions) else LearnedOptions()
    if train.compile and (reason := heads.kind(name).no_graph):
        wrong.append(f"train.compile: expected false with model={name}, which {reason}, got true; set it to false")
    if train.unlabelled > 0 and not learned.learns_single_images:
        wrong.append(
            f"train.unlabelled: expected 0 with model={name} as its options are, which learns nothing of single "
            f"images, got {train.unlabelled}; set train.unlabelled=0, or model=mining model.options.mine=1"
        )
    if train.tune and learned.keeps_features:
        wrong.append(
            f"train.tune: expected none with model={name} as its options are, which keeps features of the backbone as "
            f"it was, got {', '.join(train.tune)}; set train.tune=[]"
        )
    return wrong
