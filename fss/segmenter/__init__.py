"""A trained model as users hold it: a folder of safetensors and JSON, and three lines of Python.

    segmenter = Segmenter.load("runs/demo/train/.../model")
    thing = segmenter.prepare(supports=[image], masks=[mask])
    masks = [answer.mask() for answer in thing.stream(queries)]

The folder holds `model.json` (names, options, fingerprints), `model.safetensors` (the head), `backbone.safetensors` and
README.md, the model's card, and what makes it a model of MLflow (`fss.segmenter.pyfunc`); it needs nothing of the run
that made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from fss import backbones, heads, seals, shards
from fss.backbones.extractor import Extractor, device_by_name
from fss.backbones.network import Network
from fss.heads.parts.head import Head
from fss.imaging.inputs import Picture, several
from fss.segmenter import card, pyfunc
from fss.segmenter.presence import Presence
from fss.segmenter.thing import Thing

#: Of model.json. It grows when an older reader would misread what is written; facts and other additions leave it. A
#: model of an older format is read down to `_OLDEST`, and refused by its number below it.
FORMAT = 3
_OLDEST = 2
_FILES = ("model.safetensors", "backbone.safetensors")
#: What `export` makes, in this order; a model is run by the weights and model.json.
FILES = (*_FILES, card.NAME, *pyfunc.FILES, "model.json")
_BACKBONE = "backbone/"  # no submodule's name has a slash


def export(
    head: nn.Module,
    extractor: Extractor,
    model: Mapping[str, Any],
    facts: Mapping[str, Any],
    presence: Presence | None = None,
) -> dict[str, bytes]:
    """The files of an exported model, by name; `model.json` is last and vouches for the weights.

    Args:
        head: with its final weights.
        extractor: the frozen backbone it was trained on.
        model: {"name": ..., "options": {...}}, as `fss.heads.build` takes them; absent options are filled in, so
            that later defaults change no exported model.
        facts: whatever is worth knowing later (run, steps, fingerprints), JSON values.
        presence: how the chance that an image holds the thing is told from an answer of this head.
    """
    backbone = extractor.backbone
    files = dict(zip(_FILES, (weights_bytes(head), weights_bytes(backbone)), strict=True))
    about: dict[str, Any] = {
        "format": FORMAT,
        "model": {"name": model["name"], "options": heads.complete(model["name"], model["options"])},
        "backbone": {
            "name": backbone.name,
            "stride": backbone.stride,
            "size": extractor.size,
            "padding": backbone.padding,
            "levels": backbone.levels,
            "interpolation": backbone.interpolation,
            "artefacts": backbone.artefacts,
            "debias": backbone.debias.share if backbone.debias else 0.0,
            "fingerprint": backbones.fingerprint(backbone),
        },
        "sha256": {name: shards.sha256(data) for name, data in files.items()},
        "facts": dict(facts),
        "presence": None if presence is None else presence.about,
    }
    sealed = seals.sealed(about)
    written = (json.dumps(sealed, indent=2, sort_keys=True) + "\n").encode()
    return files | {card.NAME: card.text(about).encode()} | pyfunc.files() | {"model.json": written}


def weights_bytes(module: nn.Module, tuned: Mapping[str, torch.Tensor] | None = None) -> bytes:
    """The weights and buffers of `module` as a safetensors file; equal weights make equal bytes.

    `tuned` parameters of the backbone go with those of a candidate's head; see `parts`.
    """
    state = module.state_dict() | {_BACKBONE + name: value for name, value in (tuned or {}).items()}
    return save({name: value.detach().cpu().contiguous() for name, value in state.items()})


def parts(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The head's weights and the backbone's tuned ones of a candidate."""
    tuned = {n.removeprefix(_BACKBONE): value for n, value in state.items() if n.startswith(_BACKBONE)}
    return {name: value for name, value in state.items() if not name.startswith(_BACKBONE)}, tuned


@dataclass(frozen=True)
class Segmenter:
    """A head on its backbone. `about` is the content of model.json."""

    head: Head
    extractor: Extractor
    about: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto", weights: str | Path | None = None) -> Segmenter:
        """Read an exported model.

        Args:
            folder: holds model.json and what it names.
            device: cpu, cuda, or auto for the GPU if there is one.
            weights: safetensors file of another candidate of the same training, in place of its own.

        Raises:
            ValueError: if the folder is none, a file is damaged or of another version, or `weights` do not fit.
        """
        base = Path(folder)
        about = read_about(base)
        for name in _FILES:
            path, digest = base / name, about["sha256"].get(name, "")
            if not path.is_file() or shards.sha256(path.read_bytes()) != digest:
                raise ValueError(f"{path} is missing or damaged: expected sha256 {digest[:12]}; export the model again")
        chosen = about["backbone"]
        file = base / "backbone.safetensors"
        options = {key: chosen.get(key) for key in ("stride", "padding", "levels", "artefacts")}
        options["interpolation"] = chosen.get("interpolation", Network.interpolation)
        backbone = backbones.build(chosen["name"], str(file), **options)
        backbone.restore(load(file.read_bytes()), chosen.get("debias", 0.0))
        model = about["model"]
        head = heads.build(model["name"], model["options"], backbone.channels, corners=backbone.corners)
        _fill(head, backbone, base / "model.safetensors" if weights is None else Path(weights))
        where = device_by_name(device)
        return cls(head.eval().to(where), Extractor(backbone.to(where), chosen["size"]), about)

    def prepare(self, supports: Picture | Iterable[Picture], masks: Picture | Iterable[Picture]) -> Thing:
        """The thing that supports show, made ready to be found in any number of images.

        Images and masks are paths, bytes, Pillow images of any mode, arrays or tensors; see `fss.imaging.inputs`.

        Args:
            supports: one or more images of any sizes; one alone needs no list. Of an array of four axes the first
                counts images, see `fss.imaging.inputs.several`.
            masks: for each support the mask of the thing in it, of its size.

        Raises:
            ValueError: if numbers or sizes do not fit, something is no image or mask, or no mask shows any foreground.
        """
        shown = list(several(supports))
        drawn = _masks(masks, len(shown))
        if not shown or len(shown) != len(drawn):
            raise ValueError(f"expected as many masks as supports and at least one, got {len(shown)} and {len(drawn)}")
        calibration = Presence.read(self.about.get("presence"))
        return Thing.of(self.head, self.extractor, list(zip(shown, drawn, strict=True)), calibration)

    def probabilities(
        self, query: Picture, supports: Picture | Iterable[Picture], masks: Picture | Iterable[Picture]
    ) -> np.ndarray:
        """Probability of the foreground at every pixel of one `query`, upright: (H, W) float32 in [0, 1].

        The others are as for `prepare`, which is what to call for more than one query.
        """
        return self.prepare(supports, masks).probabilities(query)

    def segment(
        self,
        query: Picture,
        supports: Picture | Iterable[Picture],
        masks: Picture | Iterable[Picture],
        threshold: float = 0.5,
        edges: bool = True,
    ) -> np.ndarray:
        """(H, W) uint8 mask of one `query` in {0, 1}, 1 above `threshold`; see `probabilities` and `Answer.mask`.

        Raises:
            ValueError: as `prepare`, or for a threshold outside of (0, 1).
        """
        return self.prepare(supports, masks).segment(query, threshold, edges)


def _fill(head: nn.Module, backbone: nn.Module, path: Path) -> None:
    try:
        own, tuned = parts(load(path.read_bytes()))
        head.load_state_dict(own)
        backbone.load_state_dict(tuned, strict=False)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{path}: expected the weights of this model's head, got {error}; give a candidate of the same training"
        ) from error


def find(path: str | Path) -> Path:
    """The folder of the exported model that `path` means: itself, its `model/`, or the newest one of a run's folder.

    Raises:
        ValueError: if there is none.
    """
    base = Path(path)
    direct = [folder for folder in (base, base / "model") if (folder / "model.json").is_file()]
    below = sorted(base.glob("**/model/model.json"), key=lambda one: one.stat().st_mtime)
    if direct or below:
        return direct[0] if direct else below[-1].parent
    raise ValueError(f"expected an exported model (a folder with model.json) at {base}; the train stage writes one")


def read_about(folder: Path) -> dict[str, Any]:
    """model.json of an exported model.

    Raises:
        ValueError: if there is none, or it is damaged or of another format.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise ValueError(
            f"expected an exported model (model.json) in {folder}; the train stage writes one to its folder"
        )
    data = path.read_bytes()
    about = seals.unsealed(data)
    if about is None:
        raise ValueError(f"{path}: expected a sealed model.json, got {_unsealed(data)}; export the model again")
    written = about.get("format")
    if not isinstance(written, int) or not _OLDEST <= written <= FORMAT:
        newer = isinstance(written, int) and written > FORMAT
        remedy = "install a newer version of this library" if newer else "export the model again"
        raise ValueError(f"{path}: expected format {FORMAT}, got {written!r}; {remedy}")
    return about


def _unsealed(data: bytes) -> str:
    try:
        value = json.loads(data)
    except ValueError as error:
        return f"a damaged file ({error})"
    old = isinstance(value, dict) and "seal" not in value
    return f"format {value.get('format')!r}, which has no seal" if old else "a damaged file"


def _masks(masks: Picture | Iterable[Picture], number: int) -> list[Picture]:
    """The masks of so many supports: of an array of so many they are its first axis, though three might be colours."""
    if isinstance(masks, np.ndarray | torch.Tensor) and masks.ndim == 3 and len(masks) == number:
        return list(masks)
    return list(several(masks))
