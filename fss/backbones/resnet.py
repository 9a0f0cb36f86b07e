"""ResNet-18, -50 and -101 (He et al. 2016) with torchvision's stem and state-dict keys, dilated to stride 8, 16 or 32.

A `_linear` one leaves out the ReLU that each level ends with, so that a cosine sees negative values too (MiningFSS,
Yang et al. 2021, released code); what follows a level inside the network sees it after the ReLU, as ever.

Not the deep-stem variant of PSPNet (`resnet50_v2.pth`) that PFENet, BAM and MaskSplit use: that is another network.
"""

from collections.abc import Sequence

import torch
import torchvision
from torch import nn

from fss.backbones.dilation import check_stride, dilate_to_stride, subsample
from fss.backbones.network import Network, three_of

#: Ends the names of those whose levels are taken before their last ReLU; their weights are the others'.
LINEAR = "_linear"
NAMES = ("resnet18", "resnet50", "resnet101", "resnet18_linear", "resnet50_linear", "resnet101_linear")


class ResNet(Network):
    """low = layer2 (stride 8), mid = layer3, high = layer4 (both at `stride`), or after other blocks.

    Blocks are counted from 1 through all four layers; those after the last level are left out.
    """

    corners = True
    chooses_levels = True

    def __init__(self, name: str, stride: int | None = None, *, levels: Sequence[int] | None = None) -> None:
        super().__init__()
        self.linear = name.endswith(LINEAR)
        self.stride = check_stride(name, stride, (8, 16, 32), default=16)
        net = torchvision.models.get_model(self.torchvision_name(name), weights=None)
        layers = [net.layer1, net.layer2, net.layer3, net.layer4]
        dilate_to_stride(layers[2:], self.stride)
        #: The layer of each block, from 0.
        self.layers = [number for number, layer in enumerate(layers) for _ in layer]
        self.depth = len(self.layers)
        usual = [sum(layer <= last for layer in self.layers) for last in (1, 2, 3)]
        self.taken = three_of(name, self.depth, usual, levels)
        widths = [64 * 2**layer * net.fc.in_features // 512 for layer in self.layers]
        self.channels = {
            level: widths[number - 1] for level, number in zip(("low", "mid", "high"), self.taken, strict=True)
        }
        self.conv1, self.bn1 = net.conv1, net.bn1
        kept = [layer[: max(0, self.taken[-1] - self.layers.index(number))] for number, layer in enumerate(layers)]
        self.layer1, self.layer2, self.layer3, self.layer4 = kept
        self.left_out = tuple(  # type: ignore[misc]
            f"layer{number}.{block}."
            for number, (layer, left) in enumerate(zip(layers, kept, strict=True), 1)
            for block in range(len(left), len(layer))
        )

    @classmethod
    def torchvision_name(cls, name: str) -> str:
        """The name without what says where levels are taken."""
        return name.removesuffix(LINEAR)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B,3,S,S), ImageNet-normalised, to features; see `fss.backbones.Features`."""
        return self._levels(self._start(images), 0)

    def stem(self, images: torch.Tensor) -> torch.Tensor:
        """What layer1 makes of (B, 3, S, S) images, at stride 4."""
        return self.layer1(self._start(images))

    def stages(self, fine: torch.Tensor) -> dict[str, torch.Tensor]:
        """The features, from those of `stem`, where none of them is taken before its end."""
        return self._levels(fine, len(self.layer1))

    def _start(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(images)))
        return nn.functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)

    def _levels(self, values: torch.Tensor, done: int) -> dict[str, torch.Tensor]:
        """The levels, from what the first blocks, so many, have made."""
        made = []
        blocks = [block for layer in (self.layer1, self.layer2, self.layer3, self.layer4) for block in layer]
        for number, block in enumerate(blocks[done:], done + 1):
            if number not in self.taken:
                values = block(values)
                continue
            left = _before_relu(block, values) if self.linear else block(values)
            values = torch.relu(left) if self.linear else left
            made.append((min(4 << self.layers[number - 1], self.stride), left))
        (step, low), *others = made
        mid, high = (subsample(left, self.stride // step) for step, left in others)
        return {"low": subsample(low, max(1, 8 // step)), "mid": mid, "high": high}


def _before_relu(block: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The sum that a block of torchvision's puts through its last ReLU."""
    parts = dict(block.named_children())
    outputs = inputs
    for number in range(1, 4):
        if f"conv{number}" in parts:
            outputs = outputs if number == 1 else torch.relu(outputs)
            outputs = parts[f"bn{number}"](parts[f"conv{number}"](outputs))
    return outputs + (parts["downsample"](inputs) if "downsample" in parts else inputs)


NETWORK = ResNet
