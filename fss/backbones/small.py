"""A compact convolutional network for small images: pre-trained from nothing on two CPU cores, then frozen.

Pre-activation residual blocks (He et al., "Identity mappings in deep residual networks", ECCV 2016). Each level that is
read passes its own batch normalisation and no ReLU: signed, centred channels make cosines comparable.
"""

import torch
from torch import nn
from torch.nn import functional as F

Features = dict[str, torch.Tensor]


class Block(nn.Module):
    """Two 3x3 convolutions with pre-activation and a skip: (B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, dilation, dilation, bias=False)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = F.relu(self.norm1(x))
        short = x if isinstance(self.skip, nn.Identity) else self.skip(active)
        return short + self.conv2(F.relu(self.norm2(self.conv1(active))))


class SmallNet(nn.Module):
    """Images (B, 3, S, S), ImageNet-normalised, S a multiple of 8 -> {"low", "mid", "high"}.

    "low" (B, 64, S/4, S/4), "mid" (B, 96, S/8, S/8), "high" (B, 128, S/8, S/8). Weights come from `seed` alone.
    """

    stride = 8

    def __init__(self, *, seed: int = 0, widths=(48, 96, 128)) -> None:
        super().__init__()
        low, mid, high = widths
        self.channels = {"low": low, "mid": mid, "high": high}
        self.stem = nn.Conv2d(3, low, 7, 4, 3, bias=False)
        self.low = Block(low, low)
        self.mid = nn.Sequential(Block(low, mid, 2), Block(mid, mid))
        self.high = nn.Sequential(Block(mid, high), Block(high, high, 1, 2))
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(width) for name, width in self.channels.items()})

    def forward(self, images):
        low = self.low(self.stem(images))
        mid = self.mid(low)
        levels = {"low": low, "mid": mid, "high": self.high(mid)}
        return {name: self.norms[name](level) for name, level in levels.items()}
