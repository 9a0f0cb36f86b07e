"""How source `mining` is configured: the latent classes of an exported `mining` model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load

from cluster.features import backbone
from cluster.label.sources.source import Source
from fss import backbones, segmenter, shards
from fss.labelling.sources.mining import Keys, MiningLabeller

if TYPE_CHECKING:
    from cluster.engine.run import Run

_WEIGHTS = "model.safetensors"
_CLASSES = "kept.representatives"


def _folder(source: Keys) -> Path:
    """The exported model that source.model means.

    Raises:
        ValueError: if there is none, or it is of another head.
    """
    if source.model is None:
        raise ValueError(
            "source.model: expected a mining model, whose latent classes label images, got none; set source.model=RUN, "
            "the folder of a run that trained one (model=mining)"
        )
    try:
        folder = segmenter.find(source.model)
    except ValueError as error:
        raise ValueError(f"source.model: {error}") from error
    name = segmenter.read_about(folder)["model"]["name"]
    if name != "mining":
        raise ValueError(f"source.model: expected a mining model, got {name} in {folder}; train one with model=mining")
    return folder


def _labeller(run: Run) -> MiningLabeller:
    source, folder = run.config.source, _folder(run.config.source)
    about, data = segmenter.read_about(folder), (folder / _WEIGHTS).read_bytes()
    if shards.sha256(data) != about["sha256"][_WEIGHTS]:
        raise ValueError(f"source.model: {folder / _WEIGHTS} is damaged; export the model again")
    theirs = list(about["model"]["options"]["levels"])
    if theirs != list(source.levels):
        raise ValueError(
            f"source.levels: expected {theirs}, those of the model in {folder}, got {list(source.levels)}; "
            f"set source.levels=[{','.join(theirs)}]"
        )
    if about["backbone"]["fingerprint"] != backbones.fingerprint(backbone.spec(run).load().backbone):
        raise ValueError(
            f"source.model: the model in {folder} was trained on another backbone; set "
            f"backbone={about['backbone']['name']} backbone.weights={folder / 'backbone.safetensors'}"
        )
    (classes,) = (value for name, value in load(data).items() if name.endswith(_CLASSES))
    if not np.abs(classes).any():
        raise ValueError(
            f"source.model: the model in {folder} has no latent classes, it was trained with mine=0 and rectify=0; "
            "train one with model.options.mine=1"
        )
    return MiningLabeller(classes)


def _settings(run: Run) -> dict[str, Any]:
    source = run.config.source
    weights = shards.sha256((_folder(source) / _WEIGHTS).read_bytes())
    return {"source": "mining", "levels": list(source.levels), "model": f"sha256:{weights}"}


SOURCE = Source(_labeller, _settings)
