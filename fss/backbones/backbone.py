"""The frozen feature extractor: a network that never changes, and what identifies it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

from fss.backbones.debias import Debias, of_black
from fss.backbones.folding import folded
from fss.backbones.network import Features, Network, State
from fss.backbones.weights import LoadReport


class Backbone(nn.Module):
    """A network that never changes: evaluation mode for ever, no gradients, BatchNorm statistics as loaded.

    Attributes: `name`; `stride` in pixels of the `mid` and `high` grid; `channels` of each level; `corners`, which of
    the two geometries of `fss.grid` its cells have; `padding` of its convolutions; `levels`, where they were chosen;
    `interpolation`, how images are stretched for it; `artefacts`, from which length on tokens are replaced, or None;
    `report`, what became of every key of the weights file; `debias`, what takes position out of features, or None.
    """

    def __init__(
        self,
        name: str,
        net: Network,
        report: LoadReport,
        padding: str = "zeros",
        levels: Sequence[int] | None = None,
        interpolation: str | None = None,
        artefacts: float | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.padding = padding
        self.levels = None if levels is None else tuple(levels)
        self.interpolation = interpolation or net.interpolation
        self.artefacts = artefacts
        self.stride = net.stride
        self.channels = dict(net.channels)
        self.corners = net.corners
        self.report = report
        self.net = net.eval().requires_grad_(False)
        self.debias: Debias | None = None
        self.training = False

    def take_position_out(self, size: int, share: float) -> None:
        """From now on, by the features of a black image of this side; see `fss.backbones.debias`. On the CPU."""
        self.debias = of_black(self.net, size, share) if share else None

    def restore(self, state: State, share: float) -> None:
        """Become what was exported, `state`: also what no weights file of the network holds."""
        bases = {key.removeprefix("debias."): tensor for key, tensor in state.items() if key.startswith("debias.")}
        self.debias = Debias(bases, share) if share else None
        self.load_state_dict(state, strict=False)

    def train(self, mode: bool = True) -> Backbone:
        """Change nothing: PFENet and MaskSplit let their "frozen" BatchNorm drift through this door."""
        return self

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> Features:
        """Images (B,3,S,S), floating point, ImageNet-normalised, to features; ValueError for any other layout."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"expected normalised images (B,3,S,S) in floating point, got {tuple(images.shape)} {images.dtype}"
            )
        # The layout in which convolutions are fastest; they keep it up to the last one.
        features = self.net(images.contiguous(memory_format=torch.channels_last))
        return features if self.debias is None else self.debias(features)

    @torch.no_grad()
    def folded(self, images: torch.Tensor) -> Backbone:
        """What computes the same without batch norms, see `fss.backbones.folding`; `images` are any that it takes."""
        net = folded(self.net, images)
        made = Backbone(self.name, net, self.report, self.padding, self.levels, self.interpolation, self.artefacts)
        made.debias = self.debias
        return made


def fingerprint(backbone: Backbone) -> str:
    """Hex sha256 over name, stride, padding, and the name, type, shape and bytes of every parameter and buffer.

    Also of chosen levels and `artefacts`, of the share of `debias`, whose directions follow from the rest, but not to
    the last bit, and of how images are stretched, where that is not the usual way.
    """
    more = {
        "levels": backbone.levels,
        "artefacts": backbone.artefacts,
        "debias": backbone.debias.share if backbone.debias else None,
        "interpolation": backbone.interpolation if backbone.interpolation != Network.interpolation else None,
    }
    chosen = "".join(f" {what} {value}" for what, value in more.items() if value)
    digest = hashlib.sha256(f"{backbone.name} {backbone.stride} {backbone.padding}{chosen}".encode())
    net = backbone.net
    tensors = {f"net.{key}": tensor for key, tensor in (*net.named_parameters(), *net.named_buffers())}
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
