"""A compact convolutional network for small images: pre-trained from nothing on two CPU cores, then frozen.

Pre-activation residual blocks (He et al., "Identity mappings in deep residual networks", ECCV 2016, figure 4e). Each
level that is read is standardised and not rectified: signed, centred channels of one scale make cosines telling.
Strided kernels are even, so that features lie in the middle of their cells: resize with `align_corners=False`.
"""

import torch
from torch import nn
from torch.nn import functional as F

from fss.backbones.dilation import check_stride
from fss.backbones.network import Network

NAMES = ("small",)


class PreactivationBlock(nn.Module):
    """Two 3x3 convolutions with a skip: (B, inputs, H, W) -> (B, outputs, H, W), or half of H and W for stride 2."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        kernel, margin = (4, 1) if stride == 2 else (3, dilation)
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, kernel, stride, margin, dilation, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, dilation, dilation, bias=False)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, stride, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The stream after this block; see the class."""
        return self.skip(x) + self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))


class SmallNet(Network):
    """Images (B, 3, S, S) float32, ImageNet-normalised, S a multiple of 8 -> {"low", "mid", "high"}.

    "low" (B, 48, S/4, S/4), "mid" (B, 96, S/8, S/8), "high" (B, 128, S/8, S/8); 1.0 million parameters, drawn from
    `seed`, or where none is given from the CPU's generator as every other network's; neither moves a generator. Raises
    ValueError on other sizes.
    """

    stride = 8
    corners = False

    def __init__(self, name: str = "small", stride: int | None = None, *, seed: int | None = None) -> None:
        super().__init__()
        check_stride(name, stride, (self.stride,), default=self.stride)
        low, mid, high = 48, 96, 128
        self.channels = {"low": low, "mid": mid, "high": high}
        with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
            self.stem = nn.Conv2d(3, low, 8, 4, 2, bias=False)
            self.low = PreactivationBlock(low, low)
            self.mid = nn.Sequential(PreactivationBlock(low, mid, stride=2), PreactivationBlock(mid, mid))
            self.high = nn.Sequential(PreactivationBlock(mid, high), PreactivationBlock(high, high, dilation=2))
            # Not affine: a level that no loss reads has then no parameter without a gradient.
            self.norms = nn.ModuleDict({name: nn.BatchNorm2d(c, affine=False) for name, c in self.channels.items()})
            generator = torch.default_generator if seed is None else torch.Generator().manual_seed(seed)
            for parameter in self.parameters():
                if parameter.ndim == 4:
                    nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu", generator=generator)
            self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features by level; see the class."""
        if images.shape[-1] % self.stride or images.shape[-2] % self.stride:
            raise ValueError(f"sides of the images must be multiples of {self.stride}, got {tuple(images.shape)}")
        low = self.low(self.stem(images.contiguous(memory_format=torch.channels_last)))
        mid = self.mid(low)
        levels = {"low": low, "mid": mid, "high": self.high(mid)}
        return {name: self.norms[name](level) for name, level in levels.items()}


NETWORK = SmallNet
