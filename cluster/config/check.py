"""What a configuration may hold: refused before any work starts, all problems at once."""

from __future__ import annotations

from cluster.config import Config, baselines, check_train, episodes, numbers, seeds_given
from cluster.config.data import CorpusConfig, PairConfig
from cluster.label.sources import SOURCES
from fss.backbones import padding
from fss.evaluation.episodes import ORDERS
from fss.tasks.pairing.rules import BALANCES, PAIRINGS, SIMILARITIES, SPLITS

UNITS = ("segments", "pixels")
LEVELS = ("low", "mid", "high")
PRECISIONS = ("fp32", "bf16")
DATASETS = ("coco20i", "folder", "fss1000", "pascal5i", "scenes")
FIGURES = ("miou", "miou_episode_mean", "miou_with_background", "fb_iou")
TASKS = ("shards", "stream", "labelled")
OPTIMIZERS = ("adamw", "sgd", "mixed")
SCHEDULES = ("cosine", "poly", "step", "constant")
FEATURES = ("cached", "fresh")
SUPPORTS = ("masks", "names")
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
    from fss import backbones, heads
    from fss.heads.parts import losses
    from fss.labelling import segments

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
        "model.name": (config.model.name, (*heads.names(), "trained")),
        "train.loss": (config.train.loss, tuple(losses.LOSSES)),
        "backbone.precision": (config.backbone.precision, PRECISIONS),
        "backbone.padding": (config.backbone.padding, padding.MODES),
        "train.precision": (config.train.precision, PRECISIONS),
        "pretrain.precision": (config.pretrain.precision, PRECISIONS),
        "train.zero_stage": (config.train.zero_stage, (0, 1, 2, 3)),
        "train.select": (config.train.select, ("holdout", "last")),
        "dataset.name": (config.dataset.name, DATASETS),
        "protocol.order": (config.protocol.order, ORDERS),
        "protocol.supports": (config.protocol.supports, SUPPORTS),
        "protocol.headline": (config.protocol.headline.removeprefix("model_resolution."), FIGURES),
        "select": (config.select, SELECTIONS),
        **{f"baselines: {name}": (name, tuple(heads.TRAINING_FREE)) for name in baselines(config) or ()},
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
        *_source_problems(config),
        *_pair_problems(config.pair),
        *_split_problems(config.pair),
        *check_train.problems(config),
        *_shots_problems(config),
    ]


def _corpus_problems(corpus: CorpusConfig) -> list[str]:
    found = corpus.reading_problems()
    if corpus.near_duplicates is None or 0 <= corpus.near_duplicates <= 16:
        return found
    return [*found, f"corpus.near_duplicates: expected bits from 0 to 16 or null, got {corpus.near_duplicates}"]


def _source_problems(config: Config) -> list[str]:
    used = {config.source.name} | ({"cam"} if config.protocol.supports == "names" else set())
    return [problem for name in sorted(used & set(SOURCES)) for problem in SOURCES[name].problems(config.source)]


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
