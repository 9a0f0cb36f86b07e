"""Which backbone a run uses, as a value that workers can load once and keep."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any

from cluster.engine.files import content_hash
from cluster.engine.run import Run
from cluster.training.loop import warn_of_slow
from fss import backbones
from fss.backbones.extractor import Extractor, device_by_name


@dataclass(frozen=True)
class BackboneSpec:
    """Everything that makes an extractor; `weights` is `random`, `torchvision`, a path or a URL."""

    name: str
    weights: str
    stride: int
    size: int
    seed: int
    precision: str = "fp32"
    padding: str = "zeros"

    def load(self) -> Extractor:
        """The extractor, on the worker's GPU if it was given one; kept for the next call in this process."""
        return _load(self)


@functools.lru_cache(maxsize=4)
def _load(spec: BackboneSpec) -> Extractor:
    network = backbones.build(spec.name, spec.weights, stride=spec.stride, seed=spec.seed, padding=spec.padding)
    device = device_by_name()
    warn_of_slow(spec.precision, device, "backbone.precision")
    return Extractor(network.to(device), spec.size, precision=spec.precision)


def needed(run: Run) -> tuple[str, ...]:
    """The stages that the backbone comes from."""
    return ("pretrain",) if run.config.backbone.weights == "pretrain" else ()


def spec(run: Run) -> BackboneSpec:
    """This run's backbone, its weights resolved to a file."""
    weights = run.config.backbone.chosen_weights()
    return _spec(run, str(run.manifest("pretrain").path("backbone.safetensors")) if weights == "pretrain" else weights)


def untrained(run: Run) -> BackboneSpec:
    """The same network with random weights: what pre-training has to beat."""
    return _spec(run, "random")


def _spec(run: Run, weights: str) -> BackboneSpec:
    chosen = run.config.backbone
    about = (chosen.stride, chosen.size, run.config.seed, chosen.precision, chosen.padding)
    return BackboneSpec(chosen.name, weights, *about)


def settings(run: Run) -> dict[str, Any]:
    """What of the backbone shapes a stage's output; files count by their content, not their place."""
    chosen = run.config.backbone
    weights = chosen.chosen_weights()
    if weights not in ("random", "torchvision", "pretrain"):
        weights = f"sha256:{_hash(weights)}"
    keys = ("name", "stride", "size", "precision", "padding")
    found: dict[str, Any] = {"weights": weights, **{key: getattr(chosen, key) for key in keys}}
    return found | ({"seed": run.config.seed} if weights == "random" else {})


def _hash(path: str) -> str:
    if "://" not in path and not os.path.isfile(path):
        raise ValueError(
            f"expected backbone.weights to be random, torchvision, pretrain or a file, there is no file {path}"
        )
    return content_hash(path)
