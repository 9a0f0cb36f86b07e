"""What a configuration may hold: refused before any work starts, all problems at once."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cluster.config import Config, baselines, episodes, numbers, seeds_given
from cluster.config_data import CorpusConfig, PairConfig, SourceConfig
from cluster.config_train import SHARES, own_units, units
from cluster.sources import SOURCES
from fss.backbones import padding
from fss.episodes import ORDERS
from fss.pairing.rules import BALANCES, PAIRINGS, SIMILARITIES, SPLITS
from fss.views import Augment

UNITS = ("segments", "pixels")
LEVELS = ("low", "mid", "high")
PRECISIONS = ("fp32", "bf16")
DATASETS = ("coco20i", "folder", "fss1000", "pascal5i", "scenes")
FIGURES = ("miou", "miou_episode_mean", "miou_with_background", "fb_iou")
TASKS = ("shards", "stream", "labelled")
OPTIMIZERS = ("adamw", "sgd", "mixed")
SCHEDULES = ("cosine", "poly", "constant")
FEATURES = ("cached", "fresh")
SELECTIONS = ("holdout", "base_classes", "test_classes")


def check(config: Config) -> None:
    """Refuse values that no stage could work with.

    Raises:
        ValueError: with every problem found, each with what was expected, what came and where to set it.
    """
    problems = [*_choices(config), *_ranges(config)]
    if problems:
        raise ValueError("the configuration cannot work:\n  " + "\n  ".join(problems))


def _choices(config: Config) -> list[str]:
    from fss import backbones, losses, models, segments

    allowed = {
        "corpus.kind": (config.corpus.kind, ("folder", "scenes")),
        "backbone.name": (config.backbone.name, backbones.names()),
        "source.name": (config.source.name, tuple(SOURCES)),
        "source.segments": (config.source.segments, segments.NAMES),
        "source.unit": (config.source.unit, UNITS),
        **{f"source.levels[{i}]": (level, LEVELS) for i, level in enumerate(config.source.levels)},
        "source.init": (config.source.init, ("k-means++", "random")),
        "pair.pairing": (config.pair.pairing, PAIRINGS),
        "pair.split.kind": (config.pair.split.kind, SPLITS),
        "pair.similarity": (config.pair.similarity, SIMILARITIES),
        "pair.balance": (config.pair.balance, BALANCES),
        "train.tasks": (config.train.tasks, TASKS),
        "train.optimizer": (config.train.optimizer, OPTIMIZERS),
        "train.schedule": (config.train.schedule, SCHEDULES),
        "train.features": (config.train.features, FEATURES),
        "model.name": (config.model.name, (*models.names(), "trained")),
        "train.loss": (config.train.loss, tuple(losses.LOSSES)),
        "backbone.precision": (config.backbone.precision, PRECISIONS),
        "backbone.padding": (config.backbone.padding, padding.MODES),
        "train.precision": (config.train.precision, PRECISIONS),
        "pretrain.precision": (config.pretrain.precision, PRECISIONS),
        "train.zero_stage": (config.train.zero_stage, (0, 1, 2, 3)),
        "train.select": (config.train.select, ("holdout", "last")),
        "dataset.name": (config.dataset.name, DATASETS),
        "protocol.order": (config.protocol.order, ORDERS),
        "protocol.headline": (config.protocol.headline.removeprefix("model_resolution."), FIGURES),
        "select": (config.select, SELECTIONS),
        **{f"baselines: {name}": (name, tuple(models.TRAINING_FREE)) for name in baselines(config) or ()},
    }
    found = [
        f"{key}: expected one of {', '.join(map(str, names))}, got {value!r}"
        for key, (value, names) in allowed.items()
        if value not in names
    ]
    if config.fold != "all" and not (isinstance(config.fold, int) and config.fold >= 0):
        found.append(f"fold: expected a number from 0 or all, got {config.fold!r}")
    return found


def _ranges(config: Config) -> list[str]:
    at_least_one = {
        "corpus.shard_size": config.corpus.shard_size,
        "corpus.min_side": config.corpus.min_side,
        "corpus.longer_side": config.corpus.longer_side,
        "corpus.max_pixels": config.corpus.max_pixels,
        "corpus.max_bytes": config.corpus.max_bytes,
        "backbone.size": config.backbone.size,
        "source.clusters": config.source.clusters,
        "source.iterations": config.source.iterations,
        "source.restarts": config.source.restarts,
        "source.points_per_image": config.source.points_per_image,
        "pair.group_shards": config.pair.group_shards,
        "pair.tasks_per_image": config.pair.tasks_per_image,
        "pair.tasks_per_shard": config.pair.tasks_per_shard,
        "pair.shots": config.pair.shots,
        "quality.shards": 1 if config.quality.shards is None else config.quality.shards,
        "quality.clusters": config.quality.clusters,
        "quality.regions": config.quality.regions,
        "pair.sample": config.pair.sample,
        "pair.repeats": 1 if config.pair.repeats is None else config.pair.repeats,
        "train.steps": config.train.steps,
        "train.batch": config.train.batch,
        "train.accumulate": config.train.accumulate,
        "train.views": config.train.views,
        "train.log_every": config.train.log_every,
        "train.checkpoint_every": config.train.checkpoint_every,
        "train.keep_checkpoints": config.train.keep_checkpoints,
        "train.candidates": config.train.candidates,
        "pretrain.steps": config.pretrain.steps,
        "pretrain.batch": config.pretrain.batch,
        "cluster.train_workers": config.cluster.train_workers,
        "cluster.cpus_per_worker": config.cluster.cpus_per_worker,
        "cluster.images_per_batch": config.cluster.images_per_batch,
        "episodes": episodes(config),
        "ways": config.ways,
        "protocol.resolution": 1 if config.protocol.resolution is None else config.protocol.resolution,
        **{f"source.granularities[{i}]": n for i, n in enumerate(config.source.granularities)},
    }
    found = [f"{key}: expected at least 1, got {value}" for key, value in at_least_one.items() if value < 1]
    positive = {
        "train.lr": config.train.lr,
        "train.sgd_lr": config.train.sgd_lr,
        "train.tune_factor": config.train.tune_factor,
        "pretrain.lr": config.pretrain.lr,
    }
    found += [f"{key}: expected a positive number, got {value}" for key, value in positive.items() if not value > 0]
    return [
        *found,
        *_corpus_problems(config.corpus),
        *_source_problems(config.source),
        *_pair_problems(config.pair),
        *_split_problems(config.pair),
        *_stream_problems(config),
        *_labelled_problems(config),
        *_mix_problems(config.train.mix),
        *_augment_problems(config.train.augment),
        *_training_problems(config),
        *_shots_problems(config),
    ]


def _corpus_problems(corpus: CorpusConfig) -> list[str]:
    if corpus.near_duplicates is None or 0 <= corpus.near_duplicates <= 16:
        return []
    return [f"corpus.near_duplicates: expected bits from 0 to 16 or null, got {corpus.near_duplicates}"]


def _source_problems(source: SourceConfig) -> list[str]:
    return list(SOURCES[source.name].problems(source)) if source.name in SOURCES else []


def _pair_problems(pair: PairConfig) -> list[str]:
    found = []
    if not 0 < pair.nearest <= 1:
        found.append(f"pair.nearest: expected a share in (0, 1], got {pair.nearest}")
    if not 0 <= pair.same_image <= 1:
        found.append(f"pair.same_image: expected a probability in [0, 1], got {pair.same_image}")
    if not 0 < pair.keep_clusters <= 1:
        found.append(f"pair.keep_clusters: expected a share in (0, 1], got {pair.keep_clusters}")
    if pair.distractors < 0:
        found.append(f"pair.distractors: expected a number from 0, got {pair.distractors}")
    if pair.layers is not None and not (pair.layers and min(pair.layers) >= 0):
        found.append(f"pair.layers: expected numbers from 0, or null for all layers, got {pair.layers}")
    if not 0 <= pair.min_area < pair.max_area <= 1:
        found.append(f"pair: expected 0 <= min_area < max_area <= 1, got {pair.min_area}, {pair.max_area}")
    return found


def _split_problems(pair: PairConfig) -> list[str]:
    shares = {"slope": pair.split.slope, "probability": pair.split.probability, "min_area": pair.split.min_area}
    found = [f"pair.split.{k}: expected a share in [0, 1], got {v}" for k, v in shares.items() if not 0 <= v <= 1]
    if pair.pairing == "mask_split" and pair.distractors:
        found.append(
            "pair.distractors: expected 0 with pair.pairing=mask_split, whose tasks are of one image, "
            f"got {pair.distractors}; set pair.pairing=cross_image"
        )
    return found


def _stream_problems(config: Config) -> list[str]:
    if config.train.tasks == "stream" and config.pair.repeats is not None:
        return [
            "pair.repeats: expected null with train.tasks=stream, which pairs anew in every epoch, "
            f"got {config.pair.repeats}; set train.tasks=shards"
        ]
    return []


def _augment_problems(chosen: Augment) -> list[str]:
    limits = {"crop": 1, "keep": 1, "rotation": 180, "flip": 1, "colour": 1, "blur": 1, "gray": 1, "vertical_flip": 1}
    found = [
        f"train.augment.{name}: expected a number from 0 to {most}, got {getattr(chosen, name)}"
        for name, most in limits.items()
        if not 0 <= getattr(chosen, name) <= most
    ]
    if not 1 <= chosen.widest <= 4:
        found.append(f"train.augment.widest: expected a number from 1 to 4, got {chosen.widest}")
    return found + (
        ["train.augment.crop: expected a share above 0, or 1 for no crops, got 0"] if not chosen.crop else []
    )


def _mix_problems(mix: Mapping[str, float]) -> list[str]:
    found = [
        f"train.mix: expected a share in thousandths from 0.001 to 1 for {run}, got {share}"
        for run, share in mix.items()
        if not (0 < share <= 1 and abs(share * SHARES - units(share)) < 1e-6)
    ]
    if not found and own_units(mix) < 0:
        found.append(f"train.mix: expected shares of at most 1 together, got {sum(mix.values()):g}")
    return found


def _labelled_problems(config: Config) -> list[str]:
    found = []
    if not 0 < config.train.ratio <= 1:
        found.append(f"train.ratio: expected a share in (0, 1], got {config.train.ratio}")
    if config.train.tasks == "labelled" and config.fold == "all":
        found.append(
            "fold: expected the number of the fold to be tested with train.tasks=labelled, as a model is measured on "
            "classes that it was not trained on, got all; set fold=0, then 1, 2 and 3"
        )
    return found


def _training_problems(config: Config) -> list[str]:
    found = []
    if config.backbone.weights == "pretrain" and (config.backbone.name != "small" or config.backbone.size % 32):
        found.append(
            "backbone.weights=pretrain: expected backbone=small and a backbone.size that is a multiple of 32, got "
            f"{config.backbone.name} and {config.backbone.size}; give other backbones a weights file"
        )
    if config.train.precision == "bf16" and config.train.zero_stage == 0:
        found.append(
            "train.zero_stage: expected 1, 2 or 3 with train.precision=bf16, got 0"
        )  # moments are out of reach
    if not 0 <= config.train.ema < 1:
        found.append(f"train.ema: expected a decay in [0, 1), got {config.train.ema}")
    parts = config.cluster.train_workers * config.train.accumulate
    if min(parts, config.train.accumulate) >= 1 and config.train.batch % parts:
        found.append(
            f"train.batch: expected a multiple of cluster.train_workers={config.cluster.train_workers}"
            f"{'' if config.train.accumulate == 1 else f' times train.accumulate={config.train.accumulate}'}, "
            f"got {config.train.batch}"
        )
    from_zero = {key: getattr(config.train, key) for key in ("warmup", "clip", "holdout", "examples", "weight_decay")}
    from_zero |= {"sgd_weight_decay": config.train.sgd_weight_decay}
    found += [f"train.{k}: expected a number from 0, got {v}" for k, v in from_zero.items() if not v >= 0]
    return [*found, *_unlabelled_problems(config), *_tuning_problems(config), *_registry_problems(config)]


def _unlabelled_problems(config: Config) -> list[str]:
    found, number = [], config.train.unlabelled
    if number < 0:
        found.append(f"train.unlabelled: expected a number from 0, got {number}")
    if number > 0 and not (config.model.name == "mining" and config.model.options.get("mine", 1)):
        found.append(
            "train.unlabelled: expected model=mining with model.options.mine above 0, other heads learn nothing of "
            f"single images, got {number} with model={config.model.name}; set train.unlabelled=0"
        )
    if config.train.unlabelled_run is not None and not number:
        found.append(
            f"train.unlabelled_run: expected train.unlabelled above 0 beside it, got {config.train.unlabelled_run!r} "
            "alone; set train.unlabelled=8"
        )
    return found


def _tuning_problems(config: Config) -> list[str]:
    from fss import models

    found = []
    if config.train.tune and config.train.features != "fresh":
        found.append(
            "train.features: expected fresh with train.tune, because features of a backbone that changes cannot be "
            f"kept, got {config.train.features}; set train.features=fresh"
        )
    if config.train.tune and config.select != "holdout":
        found.append(
            f"select: expected holdout with train.tune, got {config.select}; candidates differ in their backbones"
        )
    if config.train.tune and config.model.name == "mining" and config.model.options.get("rectify", 1):
        found.append(
            "model.options.rectify: expected 0 with train.tune, because the index of training images is that of the "
            f"backbone before, got {config.model.options.get('rectify', 'none')}; set model.options.rectify=0"
        )
    if config.train.compile and config.model.name in models.INNER_GRADIENT:
        found.append(
            f"train.compile: expected false with model={config.model.name}, which takes a gradient inside of its "
            "forward pass, got true; set train.compile=false"
        )
    if config.train.gradient_checkpointing and not config.train.tune:
        found.append(
            "train.gradient_checkpointing: expected false without train.tune, because a frozen backbone keeps no "
            "activations, got true; set train.tune=[PREFIX,...]"
        )
    return found


def _registry_problems(config: Config) -> list[str]:
    found, name, alias = [], config.train.register, config.train.alias
    if name is not None and (not name.strip() or set(name) & set("/:")):
        found.append(f"train.register: expected a name without / and :, got {name!r}")
    if name is not None and not config.tracking.enabled:
        found.append("train.register: expected tracking.enabled=true, got false; MLflow keeps the registry")
    if alias is not None and name is None:
        found.append(f"train.alias: expected train.register beside it, got {alias!r} alone; set train.register=NAME")
    if alias is not None and (
        not re.fullmatch(r"[\w-]+", alias, re.ASCII) or re.fullmatch(r"latest|v\d+", alias, re.I)
    ):
        found.append(
            f"train.alias: expected letters, digits, _ and -, and neither latest nor a v with a number, got {alias!r}"
        )
    return found


def _shots_problems(config: Config) -> list[str]:
    found = []
    for name, least, value in (("shots", 1, config.shots), ("seeds", 0, seeds_given(config))):
        try:
            given = numbers(value)
            fine = min(given) >= least and len(set(given)) == len(given)
        except (TypeError, ValueError):
            fine = False
        if not fine:
            found.append(f"{name}: expected a number from {least} or a list of different ones, got {value!r}")
    return found
