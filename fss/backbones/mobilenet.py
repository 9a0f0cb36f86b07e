"""MobileNetV2 (Sandler et al. 2018) with torchvision's state-dict keys, dilated to stride 8, 16 or 32."""

from collections.abc import Sequence

import torch
import torchvision
from torch import nn

from fss.backbones.dilation import check_stride, dilate_to_stride, subsample
from fss.backbones.network import Network, three_of

NAMES = ("mobilenet_v2",)

LOW, MID, HIGH = 6, 13, 17  # torchvision's `features[i]`: the last blocks at native stride 8, 16 and 32
#: The first blocks at native stride 4 and 8.
_QUARTER, _EIGHTH = 2, 4


class MobileNetV2(Network):
    """low = features[6] (stride 8), mid = features[13], high = features[17] (both at `stride`), or after other blocks.

    features[18], the 1x1 expansion to 1280 channels, belongs to the classifier and is left out, as are blocks after
    the last level.
    """

    corners = True
    chooses_levels = True
    depth = HIGH

    def __init__(
        self, name: str = "mobilenet_v2", stride: int | None = None, *, levels: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.stride = check_stride(name, stride, (8, 16, 32), default=16)
        self.taken = three_of(name, HIGH, (LOW, MID, HIGH), levels)
        self.features = torchvision.models.mobilenet_v2(weights=None).features[: HIGH + 1]
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):  # torchvision's start, by fan-out, makes depthwise outputs vanish (1e-9)
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        dilate_to_stride([self.features[LOW + 1 : MID + 1], self.features[MID + 1 :]], self.stride)
        self.features = self.features[: self.taken[-1] + 1]
        self.left_out = tuple(f"features.{number}." for number in range(len(self.features), HIGH + 2))  # type: ignore[misc]
        self.channels = {
            level: int(self.features[number].out_channels)
            for level, number in zip(("low", "mid", "high"), self.taken, strict=True)
        }

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B,3,S,S), ImageNet-normalised, to features; see `fss.backbones.Features`."""
        made, values = [], images
        for number, block in enumerate(self.features):
            values = block(values)
            if number in self.taken:
                made.append((self._step(number), values))
        (step, low), *others = made
        mid, high = (subsample(values, self.stride // step) for step, values in others)
        return {"low": subsample(low, max(1, 8 // step)), "mid": mid, "high": high}

    def _step(self, number: int) -> int:
        """Pixels from cell to cell after a block."""
        native = 2 << sum(number >= first for first in (_QUARTER, _EIGHTH, LOW + 1, MID + 1))
        return min(native, self.stride)


NETWORK = MobileNetV2
