"""What the training part of a configuration may hold; see `cluster.config.check`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cluster.config import Config
from cluster.config.train import SHARES, own_units, units
from fss.tasks.views import Augment


def problems(config: Config) -> list[str]:
    """All that is wrong with what shapes training, one sentence each."""
    return [
        *_stream_problems(config),
        *_labelled_problems(config),
        *_mix_problems(config.train.mix),
        *_augment_problems(config.train.augment),
        *_amounts(config),
        *_model_problems(config),
        *_unlabelled_problems(config),
        *_tuning_problems(config),
        *_registry_problems(config),
    ]


def _amounts(config: Config) -> list[str]:
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
    return found


def _stream_problems(config: Config) -> list[str]:
    if config.train.tasks == "stream" and config.pair.repeats is not None:
        return [
            "pair.repeats: expected null with train.tasks=stream, which pairs anew in every epoch, "
            f"got {config.pair.repeats}; set train.tasks=shards"
        ]
    return []


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


def _mix_problems(mix: Mapping[str, float]) -> list[str]:
    found = [
        f"train.mix: expected a share in thousandths from 0.001 to 1 for {run}, got {share}"
        for run, share in mix.items()
        if not (0 < share <= 1 and abs(share * SHARES - units(share)) < 1e-6)
    ]
    if not found and own_units(mix) < 0:
        found.append(f"train.mix: expected shares of at most 1 together, got {sum(mix.values()):g}")
    return found


def _augment_problems(chosen: Augment) -> list[str]:
    limits = {"crop": 1, "keep": 1, "rotation": 180, "flip": 1, "colour": 1, "blur": 1, "gray": 1, "vertical_flip": 1}
    found = [
        f"train.augment.{name}: expected a number from 0 to {most}, got {getattr(chosen, name)}"
        for name, most in limits.items()
        if not 0 <= getattr(chosen, name) <= most
    ]
    if not 0 <= chosen.hue <= 0.5:
        found.append(f"train.augment.hue: expected a share of the circle from 0 to 0.5, got {chosen.hue}")
    if not 1 <= chosen.widest <= 4:
        found.append(f"train.augment.widest: expected a number from 1 to 4, got {chosen.widest}")
    return found + (
        ["train.augment.crop: expected a share above 0, or 1 for no crops, got 0"] if not chosen.crop else []
    )


def _model_problems(config: Config) -> list[str]:
    """What the head itself says of its options, for levels of any width: before labels are made, not after."""
    from fss import heads as models

    if config.model.name not in models.names():
        return []
    try:
        models.build(config.model.name, dict.fromkeys(("low", "mid", "high"), 64), **config.model.options)
    except ValueError as error:
        return [str(error)]
    return []


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
    from fss import heads as models

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
