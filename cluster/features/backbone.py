"""Which backbone a run uses: what of it is hashed, and a value that workers can load once and keep."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.config import Config
from cluster.config.backbone import NAMED
from cluster.engine.files import content_hash, read_file
from cluster.engine.manifest import Manifest
from cluster.engine.settings import complaints, picked
from cluster.storage import paths
from fss import backbones
from fss.backbones import Backbone, checkpoint
from fss.backbones.extractor import Extractor, device_by_name
from fss.precision import warn_of_slow

#: What the stage levels says it has chosen.
LEVELS = "levels.json"


@dataclass(frozen=True)
class BackboneSettings:
    """What of the backbone shapes a stage's output."""

    name: str
    weights: str
    """`random`, `torchvision`, `timm`, `pretrain`, or of a file the sha256 of its content."""
    stride: int | None
    size: int
    precision: str
    padding: str
    levels: tuple[int, ...] | None
    interpolation: str | None
    artefacts: float | None
    debias: float
    seed: int | None
    """Of random weights."""


@dataclass(frozen=True)
class BackboneSpec:
    """Everything that makes an extractor; `weights` is `random`, `torchvision`, `timm`, a path or a URL."""

    name: str
    weights: str
    stride: int | None
    size: int
    seed: int
    precision: str = "fp32"
    padding: str = "zeros"
    levels: tuple[int, ...] | None = None
    interpolation: str | None = None
    artefacts: float | None = None
    debias: float = 0.0

    def load(self) -> Extractor:
        """The extractor, on the worker's GPU if it was given one; kept for the next call in this process."""
        return _load(self)

    def build(self) -> Backbone:
        """The network on the CPU.

        Raises:
            ValueError: if it cannot be built, or does not take images of this size.
        """
        weights = str(paths.here(Path(self.weights))) if paths.stored(Path(self.weights)) else self.weights
        built = backbones.build(
            self.name,
            weights,
            stride=self.stride,
            seed=self.seed,
            padding=self.padding,
            levels=self.levels,
            interpolation=self.interpolation,
            artefacts=self.artefacts,
        )
        built.net.check_size(self.size, self.size)
        return built


@functools.lru_cache(maxsize=4)
def _load(spec: BackboneSpec) -> Extractor:
    network = spec.build()
    network.take_position_out(spec.size, spec.debias)
    device = device_by_name()
    warn_of_slow(spec.precision, device, "backbone.precision")
    return Extractor(network.to(device), spec.size, precision=spec.precision)


def needed(config: Config) -> tuple[str, ...]:
    """The stages that the backbone comes from."""
    learned = ("pretrain",) if config.backbone.weights == "pretrain" else ()
    return (*learned, *(("levels",) if config.backbone.levels_by else ()))


def settings(config: Config) -> BackboneSettings:
    """What of the backbone shapes a stage's output; files count by their content, not their place."""
    weights = config.backbone.chosen_weights()
    if weights not in NAMED:
        weights = f"sha256:{weights_hash(weights)}"
    seed = config.seed if weights == "random" else None
    return picked(BackboneSettings, config.backbone, weights=weights, seed=seed)


def weights_hash(path: str) -> str:
    """Hex sha256 of a checkpoint, of one in shards over the index and every shard; ValueError if one is not there."""
    try:
        hashes = [content_hash(file) for file in checkpoint.files(path)]
    except OSError as error:
        raise ValueError(f"cannot read weights {path} ({error}); copy all its files there") from error
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def place(config: Config) -> str | None:
    """Where the weights are, if they are a file or at a URL."""
    return None if config.backbone.weights in NAMED else config.backbone.weights


def spec(chosen: BackboneSettings, file: str | None, inputs: Mapping[str, Manifest]) -> BackboneSpec:
    """The backbone of these settings; its weights lie in `file`, or are those of the pretrain stage of `inputs`.

    Its levels are those that the levels stage of `inputs` chose, where there is one.
    """
    weights = file or chosen.weights
    if weights == "pretrain":
        weights = str(inputs["pretrain"].path("backbone.safetensors"))
    levels = {"levels": _levels(inputs["levels"])} if "levels" in inputs else {}
    return picked(BackboneSpec, chosen, seed=chosen.seed or 0, weights=weights, **levels)


def _levels(found: Manifest) -> tuple[int, ...]:
    return tuple(json.loads(read_file(found.folder, found.named(LEVELS)[0]))["levels"])


def given(config: Config) -> BackboneSpec:
    """The user's backbone, whose weights are not those of a stage."""
    return spec(settings(config), place(config), {})


def problems(config: Config) -> list[str]:
    """Whether the weights are there and fit the network."""
    wrong = complaints(config.backbone.chosen_weights, lambda: _choosing(config))
    if wrong or config.backbone.weights == "pretrain":
        return wrong
    weights = config.backbone.chosen_weights()
    if "://" not in weights and weights not in NAMED and not os.path.isfile(weights):
        return [
            f"backbone.weights: expected {', '.join(NAMED)} or a file, there is no file {weights}; set "
            "backbone.weights=FILE"
        ]
    unread = [] if weights in NAMED else complaints(functools.partial(weights_hash, weights))
    return [f"backbone: {said}" for said in unread or _unfit(given(config))]


def _choosing(config: Config) -> None:
    name, by = config.backbone.name, config.backbone.levels_by
    if by and not backbones.chooses_levels(name):
        raise ValueError(
            f"backbone.levels_by: expected none, for {name} lets no levels be chosen, got {by}; leave it "
            "out, or choose a ResNet, mobilenet_v2 or timm/NAME"
        )


@functools.lru_cache(maxsize=8)
def _unfit(chosen: BackboneSpec) -> tuple[str, ...]:
    """Why the network cannot be built; looked at once a process, for many stages ask."""
    return tuple(complaints(chosen.build))
