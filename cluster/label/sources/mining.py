"""How source `mining` is configured: the latent classes of an exported `mining` model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load

from cluster.config import Config
from cluster.engine.settings import complaints
from cluster.features import backbone
from cluster.features.backbone import BackboneSpec
from cluster.label.sources.source import LabellerInputs, SourceStage
from fss import backbones, segmenter, shards
from fss.labelling.sources.mining import MiningLabeller

_WEIGHTS = "model.safetensors"
_CLASSES = "kept.representatives"


@dataclass(frozen=True)
class MiningSettings:
    """Which model, by the hash of its weights, and the embeddings that it looks at."""

    levels: tuple[str, ...]
    model: str


@dataclass(frozen=True)
class MiningMeans:
    """Where the model is."""

    folder: Path


def _settings(config: Config) -> MiningSettings:
    weights = shards.sha256((_folder(config.source.model) / _WEIGHTS).read_bytes())
    return MiningSettings(tuple(config.source.levels), f"sha256:{weights}")


def _means(config: Config) -> MiningMeans:
    return MiningMeans(_folder(config.source.model))


def _folder(model: str | None) -> Path:
    """The exported model that source.model means.

    Raises:
        ValueError: if there is none, or it is of another head.
    """
    if model is None:
        raise ValueError(
            "source.model: expected a mining model, whose latent classes label images, got none; set source.model=RUN, "
            "the folder of a run that trained one (model=mining)"
        )
    try:
        folder = segmenter.find(model)
        name = segmenter.read_about(folder)["model"]["name"]
    except ValueError as error:
        raise ValueError(f"source.model: {error}") from error
    if name != "mining":
        raise ValueError(f"source.model: expected a mining model, got {name} in {folder}; train one with model=mining")
    return folder


def _classes(folder: Path, levels: Sequence[str]) -> np.ndarray:
    """The model's latent classes.

    Raises:
        ValueError: if it has none, is damaged, or looks at other levels.
    """
    about, data = segmenter.read_about(folder), (folder / _WEIGHTS).read_bytes()
    if shards.sha256(data) != about["sha256"][_WEIGHTS]:
        raise ValueError(f"source.model: {folder / _WEIGHTS} is damaged; export the model again")
    theirs = list(about["model"]["options"]["levels"])
    if theirs != list(levels):
        raise ValueError(
            f"source.levels: expected {theirs}, those of the model in {folder}, got {list(levels)}; "
            f"set source.levels=[{','.join(theirs)}]"
        )
    (classes,) = (value for name, value in load(data).items() if name.endswith(_CLASSES))
    if not np.abs(classes).any():
        raise ValueError(
            f"source.model: the model in {folder} has no latent classes, it was trained with mine=0 and rectify=0; "
            "train one with model.options.mine=1"
        )
    return np.asarray(classes)


def _same_backbone(folder: Path, spec: BackboneSpec) -> None:
    about = segmenter.read_about(folder)
    if about["backbone"]["fingerprint"] != backbones.fingerprint(spec.load().backbone):
        raise ValueError(
            f"source.model: the model in {folder} was trained on another backbone; set "
            f"backbone={about['backbone']['name']} backbone.weights={folder / 'backbone.safetensors'}"
        )


def _labeller(given: LabellerInputs) -> MiningLabeller:
    _same_backbone(given.means.folder, given.backbone)
    return MiningLabeller(_classes(given.means.folder, given.settings.levels))


def _check(config: Config) -> list[str]:
    """Whether the model is there, has latent classes, and, unless the backbone is yet to be trained, fits it."""
    wrong = complaints(lambda: _classes(_folder(config.source.model), config.source.levels))
    if wrong or backbone.needed(config) or backbone.problems(config):
        return wrong
    return complaints(lambda: _same_backbone(_folder(config.source.model), backbone.given(config)))


SOURCE = SourceStage(_settings, _labeller, means=_means, check=_check)
