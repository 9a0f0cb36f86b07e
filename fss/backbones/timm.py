"""Any network of timm (Wightman 2019) as `timm/NAME`: one adapter over its `forward_intermediates`.

**Levels.** A plain transformer, all of whose blocks are on one grid, gives the patch tokens after half, three quarters
and all of its blocks, each through the final norm; class and register tokens are dropped. A pyramid gives its last
three stages, at strides 8, 16 and 32, as they leave them. `levels` names other blocks or stages; the first is 1.

**Stride.** A transformer's is its patch. A pyramid's mid and high are at 8, 16 or 32: where timm dilates and kernels
have a centre pixel by dilation, elsewhere coarser cells are enlarged, bilinear; finer ones are averaged or skipped.

**Geometry.** Pyramids whose kernels have a centre pixel have cells centred on pixels 0, stride, .. (`corners`); those
of the others, as patches, tile the image. Images of sizes that do not fit that are refused.

**Images** come ImageNet-normalised, as to every network; `input_scale` and `input_shift` make of that what this one was
trained on, as its configuration in timm says. They are stretched as that says too (`interpolation`).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import nn

from fss.backbones import hugging_face
from fss.backbones.artefacts import mended
from fss.backbones.dilation import check_stride, subsample
from fss.backbones.network import Features, Network, Renamed, State, three_of
from fss.grid import enlarge
from fss.imaging.images import INTERPOLATIONS, MEAN, STD
from fss.keys import nearest

#: Stands before timm's own names.
PREFIX = "timm/"
NAMES = ("timm/*",)

_LEVELS = ("low", "mid", "high")
#: The coarsest cell of a pyramid, pixels.
_COARSEST = 32


class TimmNetwork(Network):
    """low, mid and high of `timm/NAME`, or of a `model` of timm's; see the module."""

    chooses_levels = True

    def __init__(
        self,
        name: str,
        stride: int | None = None,
        *,
        levels: Sequence[int] | None = None,
        model: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.model = _created(name.removeprefix(PREFIX), stride) if model is None else model
        self.corners = self.geometry(name)
        parts = _parts(self.model)
        self.plain = len({step for step, _ in parts}) == 1
        allowed, usual = ((parts[0][0],), parts[0][0]) if self.plain else ((8, 16, _COARSEST), 16)
        self.stride = check_stride(name, stride, allowed, usual)
        self.depth = len(parts)
        taken = _taken(name, self.depth, self.plain, levels)
        self.steps = {level: parts[number][0] for level, number in zip(_LEVELS, taken, strict=True)}
        self.channels = {level: parts[number][1] for level, number in zip(_LEVELS, taken, strict=True)}
        self.artefacts: float | None = None
        self.fixed_size = _fixed_size(self.model)
        self.interpolation = _interpolation(self.model)
        whole = set(self.model.state_dict())
        self.taken = self.model.prune_intermediate_layers(taken, prune_norm=not self.plain)  # type: ignore[operator]
        self.left_out = tuple(sorted(whole - set(self.model.state_dict())))  # type: ignore[misc]
        scale, shift = _normalisation(self.model)
        self.register_buffer("input_scale", scale)
        self.register_buffer("input_shift", shift)

    @classmethod
    def geometry(cls, name: str) -> bool:
        """Of a network without numbers in it."""
        return _has_centres(_planned(name.removeprefix(PREFIX)))

    @classmethod
    def timm_state(cls, name: str) -> State:
        """Of `timm/NAME`."""
        if not name.startswith(PREFIX):
            return super().timm_state(name)
        known = name.removeprefix(PREFIX)
        timm = _with(known)
        try:
            return dict(timm.create_model(known, pretrained=True, num_classes=0).state_dict())
        except Exception as error:  # timm, its hub and the network beneath each have their own family of errors
            raise ValueError(
                f"{name}: could not download timm's weights ({error}). Without a network, copy the file to a disk that"
                " all machines see and set weights to its path"
            ) from error

    @property
    def loaded(self) -> nn.Module:
        """The network as timm has it: checkpoints are of that."""
        return self.model

    @classmethod
    def own_part(cls, key: str) -> tuple[str, int]:
        """Hugging Face's names in the words of DINO, which timm knows."""
        return hugging_face.own_part(key)

    def converted(self, given: Renamed, prefix: str) -> Renamed:
        """A checkpoint of the network's authors under timm's names, by timm's own conversion.

        Raises:
            ValueError: if that is not for this network.
        """
        inside = {k.removeprefix(prefix): tensor for k, tensor in given.tensors.items() if k.startswith(prefix)}
        if all(key in inside and inside[key].shape == own.shape for key, own in self.model.state_dict().items()):
            return given
        made = self._by_timm(inside)
        places = {_place(tensor): given.origins[prefix + key] for key, tensor in inside.items()}
        origins = {prefix + k: given.origins.get(prefix + k) or places.get(_place(t), ()) for k, t in made.items()}
        used = {origin for keys in origins.values() for origin in keys}
        outside = {key: tensor for key, tensor in given.tensors.items() if not key.startswith(prefix)}
        return Renamed(
            tensors=outside | {prefix + key: tensor for key, tensor in made.items()},
            origins={key: given.origins[key] for key in outside} | origins,
            left_out=tuple(o for key in inside for o in given.origins[prefix + key] if o not in used),
        )

    def _by_timm(self, state: State) -> dict[str, torch.Tensor]:
        convert = getattr(sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None)
        if convert is None:
            return dict(state)
        own, given = (tensors.get("patch_embed.proj.weight") for tensors in (self.model.state_dict(), state))
        if own is not None and given is not None and given.ndim == 4 and given.shape[2:] != own.shape[2:]:
            raise ValueError(  # timm would resample the kernel: another network
                f"the checkpoint has patches of {given.shape[-1]} px, the network of {own.shape[-1]}: change the name"
            )
        if "rope_embed.periods" in state or type(self.model).__name__ == "Eva":  # Hugging Face says it as of DINOv2
            state = {k.replace("register_tokens", "storage_tokens"): tensor for k, tensor in state.items()}
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints what it tries
                return dict(convert(dict(state), self.model))
        except (RuntimeError, KeyError, AttributeError, IndexError, AssertionError) as error:
            raise ValueError(f"timm cannot convert the checkpoint ({error}): change the name") from error

    def forward(self, images: torch.Tensor) -> Features:
        """Levels of (B, 3, H, W) images; ValueError for sizes at which cells would not lie where they should."""
        self.check_size(images.shape[-2], images.shape[-1])
        own = images * self.get_buffer("input_scale") + self.get_buffer("input_shift")
        early = self.plain and self.artefacts is None
        levels = self.model.forward_intermediates(  # type: ignore[operator]
            own, indices=self.taken, norm=early, intermediates_only=True
        )
        low, mid, high = levels if self.artefacts is None else map(self._mended, levels)
        return {"low": low, "mid": self._on_grid("mid", mid), "high": self._on_grid("high", high)}

    def mend(self, artefacts: float) -> None:
        """Of a transformer on one grid whose last norm is known."""
        if not self.plain or not hasattr(self.model, "norm"):
            super().mend(artefacts)
        self.artefacts = artefacts

    def _mended(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) tokens as a block leaves them, mended and through the final norm."""
        assert self.artefacts is not None
        rows = mended(tokens, self.artefacts).permute(0, 2, 3, 1)
        return self.model.norm(rows).permute(0, 3, 1, 2).contiguous()  # type: ignore[operator]

    def _on_grid(self, level: str, values: torch.Tensor) -> torch.Tensor:
        """Cells at their own step as cells at `stride`."""
        step = self.steps[level]
        if step > self.stride:
            height, width = ((side - self.corners) * step // self.stride + self.corners for side in values.shape[-2:])
            return enlarge(values, (height, width), self.corners)
        if step < self.stride:
            times = self.stride // step
            return subsample(values, times) if self.corners else F.avg_pool2d(values, times)
        return values

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError that names the nearest size that fits, if this one does not."""
        unit = self.stride if self.plain else _COARSEST
        fixed = self.fixed_size
        fits = all((side - self.corners) % unit == 0 and side >= unit for side in (height, width))
        if fixed is not None and (height, width) != fixed:
            raise ValueError(f"this network takes images of {fixed[0]} x {fixed[1]} only: set the input size to that")
        if fixed is None and not fits:
            words = f"{unit}, and one pixel" if self.corners else f"{unit}"
            near = max(1, round(width / unit)) * unit + self.corners
            raise ValueError(
                f"this network needs image sides that are multiples of {words}, got {height} x {width}: set the input"
                f" size to {near}"
            )


def installed(name: str) -> ModuleType:
    """The package timm, which the backbone `name` needs; ValueError if it is not there."""
    try:
        import timm  # here, for it takes seconds, and most networks do without
    except ImportError as error:
        raise ValueError(
            f"backbone {name}: expected the package timm, which is not installed; pip install unlabelled-fss[timm]"
        ) from error
    return timm


def _with(name: str) -> ModuleType:
    """timm, which has the network `name`."""
    timm = installed(PREFIX + name)
    if not timm.is_model(name):
        known = tuple(timm.list_models())
        raise ValueError(
            f"unknown backbone {PREFIX}{name}: expected one of the {len(known)} networks of timm{nearest(name, known)}"
        )
    return timm


def _created(name: str, stride: int | None) -> nn.Module:
    """timm's network, ready for images of other sizes than it was trained on, and dilated if that keeps its cells."""
    timm, plan = _with(name), _planned(name)
    takes = set(_arguments(plan))
    options = {"dynamic_img_size": True} if "dynamic_img_size" in takes else {}
    if stride in (None, 8, 16) and "output_stride" in takes and _has_centres(plan):
        with contextlib.suppress(AssertionError):  # of those that take it only to say that they cannot
            return timm.create_model(name, num_classes=0, output_stride=stride or 16, **options)
    return timm.create_model(name, num_classes=0, **options)


@functools.lru_cache(maxsize=8)
def _planned(name: str) -> nn.Module:
    """timm's network without numbers in it."""
    timm = _with(name)
    try:
        with torch.device("meta"):
            return timm.create_model(name, num_classes=0).eval()
    except RuntimeError as error:
        raise ValueError(f"{PREFIX}{name}: timm has no such network ({error})") from error


def _arguments(model: nn.Module) -> Iterator[str]:
    """The names of all arguments that the classes of a network take."""
    for kind in type(model).__mro__[:-1]:
        yield from inspect.signature(kind).parameters


def _parts(model: nn.Module) -> list[tuple[int, int]]:
    """(pixels from cell to cell, channels) of each block or stage."""
    return [(info["reduction"], info["num_chs"]) for info in model.feature_info]  # type: ignore[union-attr]


def _has_centres(plan: nn.Module) -> bool:
    """Whether a pyramid makes of 65 pixels three cells, centred on pixels 0, 32 and 64, and not two of 32 pixels."""
    if _parts(plan)[-1][0] != _COARSEST:
        return False
    try:
        images = torch.zeros(1, 3, 2 * _COARSEST + 1, 2 * _COARSEST + 1, device="meta")
        levels = plan.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
    except (RuntimeError, ValueError, AssertionError):  # such images are not for it
        return False
    return bool(levels[-1].shape[-1] == 3)


def _taken(name: str, number: int, plain: bool, levels: Sequence[int] | None) -> list[int]:
    """The blocks or stages of low, mid and high, from 0."""
    usual = (number // 2, 3 * number // 4, number) if plain else (number - 2, number - 1, number)
    return [level - 1 for level in three_of(name, number, usual, levels, "blocks" if plain else "stages")]


def _fixed_size(model: nn.Module) -> tuple[int, int] | None:
    """(height, width) of the only images that the network takes, if there are such."""
    about = getattr(model, "pretrained_cfg", {})
    if "dynamic_img_size" in set(_arguments(model)) or not about.get("fixed_input_size"):
        return None
    return tuple(about["input_size"][1:])


def _normalisation(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What ImageNet-normalised pixels are multiplied with, and what is added, (3, 1, 1) each: the network's own."""
    about = getattr(model, "pretrained_cfg", {})
    mean, std = (torch.tensor(about.get(part, usual)) for part, usual in (("mean", MEAN), ("std", STD)))
    return (torch.tensor(STD) / std).view(3, 1, 1), ((torch.tensor(MEAN) - mean) / std).view(3, 1, 1)


def _interpolation(model: nn.Module) -> str:
    """As images of its training were stretched; bilinear where that was drawn at random or is not known."""
    said = getattr(model, "pretrained_cfg", {}).get("interpolation")
    return said if said in INTERPOLATIONS else Network.interpolation


def _place(tensor: torch.Tensor) -> int:
    """Where the values of a tensor are: parts of one are at the same place."""
    return tensor.untyped_storage().data_ptr()


NETWORK = TimmNetwork
