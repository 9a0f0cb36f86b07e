"""Frozen feature extractors by name.

| name | low, mid, high | strides | input size S | grid of side |
|---|---|---|---|---|
| `resnet18`, `resnet50`, `resnet101` | layer2, layer3, layer4 | 8, 16, 32 | 32k+1 | ceil(S / stride) |
| `resnet18_linear`, .. | the same before their last ReLU | 8, 16, 32 | 32k+1 | ceil(S / stride) |
| `deeplabv3`, `deeplabv3plus` | layer2, layer3; what the classifier takes | 8, 16 | 32k+1 | ceil(S / stride) |
| `mobilenet_v2` | features[6], [13], [17] | 8, 16, 32 | 32k+1 | ceil(S / stride) |
| `vgg16` | conv3_3, conv4_3, conv5_3 | 8, 16, 32 | 32k | floor(S / stride) |
| `vit_small`, `vit_base` | blocks 6, 9, 12, normed | patch: 8, 14, 16 | multiple of the patch | S / stride |
| `small` | see `fss.backbones.small` | its own | its own | its own |

`mid` and `high` share the grid of `stride`; `low` is at stride 8 in the convolutional networks, at `stride` in the
transformers.

**Input sizes.** At the sizes above the feature centres lie symmetrically in the image, so no side sees more zero
padding than the other. With S = 32k+1 the centres of ResNet and MobileNetV2 are pixels 0, stride, 2 stride, ..., S-1:
resize masks and logits with `align_corners=True`. In VGG (S = 32k) and the transformers they are the middles of the
cells: `align_corners=False`. At other sizes the networks run, but their grid is shifted by up to stride/2 pixels; only
the transformers refuse. The tests check this: with kernels made mirror-symmetric, the features of a mirrored image are
the mirrored features exactly when the centres are symmetric.

**Padding.** `zeros` as the networks were trained, or the picture continued: see `fss.backbones.padding`.

**Stride.** Finer grids come from dilation and keep the values of the strided network on its grid: see
`fss.backbones.dilation`.
"""

import difflib
import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import nn

from fss.backbones.padding import pad_with
from fss.backbones.weights import LoadReport, load_state, read_state

__all__ = ["Features", "Backbone", "LoadReport", "build", "fingerprint", "names"]

Features = dict[str, torch.Tensor]  # "low", "mid", "high": (B, C_level, h, w) float
State = Mapping[str, torch.Tensor]


def _resnet(name: str, stride: int | None, state: State | None) -> nn.Module:
    from fss.backbones.resnet import ResNet

    return ResNet(name, stride)


def _deeplab(name: str, stride: int | None, state: State | None) -> nn.Module:
    from fss.backbones.deeplab import DeepLab

    return DeepLab(name, stride)


def _vgg(name: str, stride: int | None, state: State | None) -> nn.Module:
    from fss.backbones.vgg import VGG16

    return VGG16(name, stride)


def _mobilenet(name: str, stride: int | None, state: State | None) -> nn.Module:
    from fss.backbones.mobilenet import MobileNetV2

    return MobileNetV2(name, stride)


def _vit(name: str, stride: int | None, state: State | None) -> nn.Module:
    from fss.backbones.vit import build_vit

    return build_vit(name, stride, state)


def _small(name: str, stride: int | None, state: State | None) -> nn.Module:
    from fss.backbones.dilation import check_stride
    from fss.backbones.small import SmallNet

    net = SmallNet(seed=torch.initial_seed())  # it draws from a generator of its own: hand it the seed of `_seeded`
    check_stride(name, stride, (net.stride,), default=net.stride)
    return net


NETWORKS: dict[str, Callable[[str, int | None, State | None], nn.Module]] = {
    "resnet18": _resnet,
    "resnet50": _resnet,
    "resnet101": _resnet,
    "resnet18_linear": _resnet,
    "resnet50_linear": _resnet,
    "resnet101_linear": _resnet,
    "deeplabv3": _deeplab,
    "deeplabv3plus": _deeplab,
    "vgg16": _vgg,
    "mobilenet_v2": _mobilenet,
    "vit_small": _vit,
    "vit_base": _vit,
    "small": _small,
}


#: Networks whose cells tile the image; the others' outermost centres lie on its border.
_TILING = ("vgg16", "vit_small", "vit_base", "small")


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
        self.corners = name not in _TILING
        self.report = report
        self.net = net.eval().requires_grad_(False)
        self.training = False

    def train(self, mode: bool = True) -> "Backbone":
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


def names() -> tuple[str, ...]:
    """The backbones that `build` knows."""
    return tuple(NETWORKS)


def build(
    name: str, weights: str = "random", *, stride: int | None = None, seed: int = 0, padding: str = "zeros"
) -> Backbone:
    """A frozen backbone.

    `weights`: "random" (a function of `seed`; the global generators are not touched), "torchvision" (ImageNet,
    downloaded), or the path or fsspec address of a .safetensors file or a state dict; the encoder is found inside the
    checkpoints of MoCo, MoCo v3, DINO, DINOv2 and torchvision. `stride`: None is 16, or the checkpoint's patch size.
    `padding` of convolutions: zeros, replicate or reflect.
    Raises ValueError for unknown names, strides and paddings, unreadable weights, and weights of another network.
    """
    if name not in NETWORKS:
        close = difflib.get_close_matches(str(name), NETWORKS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown backbone {name!r}: expected one of {', '.join(NETWORKS)}.{hint}")
    if weights == "random":
        net, report = _seeded(name, stride, None, seed), LoadReport(source=f"random, seed {seed}")
    else:
        state = read_state(name, weights)
        net = _seeded(name, stride, state, seed)
        report = load_state(name, net, state, source=weights)
    pad_with(net, padding)
    return Backbone(name, net, report, padding)


def _seeded(name: str, stride: int | None, state: State | None, seed: int) -> nn.Module:
    """The network, initialised on the CPU from `seed`; no global generator, of CPU or accelerator, moves."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return NETWORKS[name](name, stride, state)


def fingerprint(backbone: Backbone) -> str:
    """Hex sha256 over name, stride, padding, and the name, type, shape and bytes of every parameter and buffer."""
    digest = hashlib.sha256(f"{backbone.name} {backbone.stride} {backbone.padding}".encode())
    tensors = dict(backbone.named_parameters()) | dict(backbone.named_buffers())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
