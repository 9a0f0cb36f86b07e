"""Which backbone a run uses, as a value that workers can load once and keep."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from typing import Any

import fsspec

from cluster.run import Run
from fss import backbones
from fss.extract import Extractor, device_by_name


@dataclass(frozen=True)
class BackboneSpec:
    """Everything that makes an extractor; `weights` is `random`, `torchvision`, a path or a URL."""

    name: str
    weights: str
    stride: int
    size: int
    seed: int

    def load(self) -> Extractor:
        """The extractor, on the worker's GPU if it was given one; kept for the next call in this process."""
        return _load(self)


@functools.lru_cache(maxsize=4)
def _load(spec: BackboneSpec) -> Extractor:
    network = backbones.build(spec.name, spec.weights, stride=spec.stride, seed=spec.seed)
    return Extractor(network.to(device_by_name()), spec.size)


def needed(run: Run) -> tuple[str, ...]:
    """The stages that the backbone comes from."""
    return ("pretrain",) if run.config.backbone.weights == "pretrain" else ()


def spec(run: Run) -> BackboneSpec:
    """This run's backbone, its weights resolved to a file."""
    chosen = run.config.backbone
    weights = chosen.weights
    if weights == "pretrain":
        weights = str(run.manifest("pretrain").path("backbone.safetensors"))
    return BackboneSpec(chosen.name, weights, chosen.stride, chosen.size, run.config.seed)


def untrained(run: Run) -> BackboneSpec:
    """The same network with random weights: what pre-training has to beat."""
    chosen = run.config.backbone
    return BackboneSpec(chosen.name, "random", chosen.stride, chosen.size, run.config.seed)


def settings(run: Run) -> dict[str, Any]:
    """What of the backbone shapes a stage's output; files count by their content, not their place."""
    chosen = run.config.backbone
    weights = chosen.weights
    if weights not in ("random", "torchvision", "pretrain"):
        weights = f"sha256:{_hash(weights)}"
    found: dict[str, Any] = {"name": chosen.name, "stride": chosen.stride, "size": chosen.size, "weights": weights}
    return found | ({"seed": run.config.seed} if weights == "random" else {})


@functools.lru_cache
def _hash(path: str) -> str:
    if "://" not in path and not os.path.isfile(path):
        raise ValueError(
            f"expected backbone.weights to be random, torchvision, pretrain or a file, there is no file {path}"
        )
    digest = hashlib.sha256()
    with fsspec.open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
