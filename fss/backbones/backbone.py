"""The frozen feature extractor: a network that never changes, and what identifies it."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from fss.backbones.folding import folded
from fss.backbones.network import Features
from fss.backbones.weights import LoadReport


class Backbone(nn.Module):
    """A network that never changes: evaluation mode for ever, no gradients, BatchNorm statistics as loaded.

    Attributes: `name`; `stride` in pixels of the `mid` and `high` grid; `channels` of each level; `corners`, which of
    the two geometries of `fss.grid` its cells have; `padding` of its convolutions; `report`, what became of every
    key of the weights file.
    """

    def __init__(self, name: str, net: nn.Module, report: LoadReport, padding: str = "zeros") -> None:
        super().__init__()
        self.name = name
        self.padding = padding
        self.stride: int = int(net.stride)  # type: ignore[arg-type]
        self.channels: dict[str, int] = dict(net.channels)  # type: ignore[arg-type]
        self.corners: bool = bool(net.corners)
        self.report = report
        self.net = net.eval().requires_grad_(False)
        self.training = False

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
        return self.net(images.contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def folded(self, images: torch.Tensor) -> Backbone:
        """What computes the same without batch norms, see `fss.backbones.folding`; `images` are any that it takes."""
        return Backbone(self.name, folded(self.net, images), self.report, self.padding)


def fingerprint(backbone: Backbone) -> str:
    """Hex sha256 over name, stride, padding, and the name, type, shape and bytes of every parameter and buffer."""
    digest = hashlib.sha256(f"{backbone.name} {backbone.stride} {backbone.padding}".encode())
    tensors = dict(backbone.named_parameters()) | dict(backbone.named_buffers())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
