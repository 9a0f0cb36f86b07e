"""Starting from weights that somebody else trained (train.init_from): an exported model's head, and nothing but it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load

from fss import heads, segmenter, shards
from fss.heads.parts.head import Head

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"


def content(path: str | None) -> str | None:
    """What of train.init_from shapes the outcome: a hash of the weights, not their place.

    Raises:
        ValueError: if there is no exported model.
    """
    return None if path is None else f"sha256:{shards.sha256((_folder(path) / WEIGHTS).read_bytes())}"


def located(path: str | None) -> str | None:
    """The folder of the exported model that train.init_from means, absolute: workers start elsewhere."""
    return None if path is None else str(_folder(path).resolve())


def same_head(path: str, name: str) -> None:
    """Look whether the exported model at `path` is of the head `name`.

    Raises:
        ValueError: if it is not, or there is none.
    """
    folder = _folder(path)
    theirs = segmenter.read_about(folder)["model"]
    if theirs["name"] != name:
        raise ValueError(
            f"train.init_from: expected a {name} model, got {theirs['name']} in {folder}; set "
            f"model={theirs['name']}, or give another model"
        )


def fill(head: Head, path: str, model: Mapping[str, Any], fingerprint: str) -> None:
    """Give `head`, built as `model` says, the weights of the exported model at `path`.

    Args:
        head: gets the weights.
        path: see `located`.
        model: {"name": ..., "options": {...}}; options may differ where the weights fit all the same, which is told.
        fingerprint: of the backbone that the head is to be trained on.

    Raises:
        ValueError: if the model is of another head or backbone, its weights do not fit, or it is damaged.
    """
    same_head(path, model["name"])
    folder = _folder(path)
    about = segmenter.read_about(folder)
    theirs = about["model"]
    if about["backbone"]["fingerprint"] != fingerprint:
        chosen = about["backbone"] | {"weights": folder / "backbone.safetensors"}
        keys = ("weights", "padding", "levels", "interpolation", "artefacts", "debias")
        own = " ".join(f"backbone.{key}={chosen[key]}".replace(" ", "") for key in keys if chosen.get(key))
        raise ValueError(
            f"train.init_from: the model in {folder} was trained on another backbone; set "
            f"backbone={chosen['name']} {own}"
        )
    other = _different(theirs["options"], heads.complete(model["name"], model["options"]))
    data = (folder / WEIGHTS).read_bytes()
    if shards.sha256(data) != about["sha256"][WEIGHTS]:
        raise ValueError(f"train.init_from: {folder / WEIGHTS} is damaged; export the model again")
    try:
        head.load_state_dict(load(data))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"train.init_from: the weights in {folder} do not fit this {model['name']} head; set "
            f"{other or 'the model.options that it was trained with'} ({error})"
        ) from error
    if other:
        logger.warning("train.init_from: the model in %s was trained with other options: %s", folder, other)


def _folder(path: str) -> Path:
    try:
        return segmenter.find(path)
    except ValueError as error:
        raise ValueError(f"train.init_from: {error}") from error


def _different(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The options of `theirs` that are not so in `ours`, as one would set them."""
    names = sorted(set(theirs) | set(ours))
    different = [name for name in names if theirs.get(name) != ours.get(name)]
    told = [f"model.options.{n}={theirs[n]}" if n in theirs else f"no model.options.{n}" for n in different]
    return " ".join(told)
