"""Frozen feature extractors by name.

| name | low, mid, high | strides | input size S | grid of side |
|---|---|---|---|---|
| `resnet18`, `resnet50`, `resnet101` | layer2, layer3, layer4 | 8, 16, 32 | 32k+1 | ceil(S / stride) |
| `resnet18_linear`, .. | the same before their last ReLU | 8, 16, 32 | 32k+1 | ceil(S / stride) |
| `deeplabv3`, `deeplabv3plus` | layer2, layer3; what the classifier takes | 8, 16 | 32k+1 | ceil(S / stride) |
| `mobilenet_v2` | features[6], [13], [17] | 8, 16, 32 | 32k+1 | ceil(S / stride) |
| `vgg16` | conv3_3, conv4_3, conv5_3 | 8, 16, 32 | 32k | floor(S / stride) |
| `vit_small`, `vit_base` | blocks 6, 9, 12, normed | patch: 8, 14, 16 | multiple of the patch | S / stride |
| `timm/NAME`, a transformer | after 1/2, 3/4, all of its blocks, normed | patch | multiple of the patch | S / stride |
| `timm/NAME`, a pyramid | its last three stages | 8, 16, 32 | 32k+1, patches 32k | as their geometry says |
| `small` | see `fss.backbones.small` | its own | its own | its own |

`mid` and `high` share the grid of `stride`; `low` is at stride 8 in the convolutional networks, at `stride` in the
transformers.

**Input sizes.** At the sizes above the feature centres lie symmetrically in the image, so no side sees more zero
padding than the other. With S = 32k+1 the centres of ResNet and MobileNetV2 are pixels 0, stride, 2 stride, ..., S-1:
resize masks and logits with `align_corners=True`. In VGG (S = 32k) and the transformers they are the middles of the
cells: `align_corners=False`. At other sizes the networks run, but their grid is shifted by up to stride/2 pixels; only
the transformers refuse. The tests check this: with kernels made mirror-symmetric, the features of a mirrored image are
the mirrored features exactly when the centres are symmetric; and what changes in the image changes the features of the
cells that lie there, in every network.

**Padding.** `zeros` as the networks were trained, or the picture continued: see `fss.backbones.padding`.

**Stride.** Finer grids come from dilation and keep the values of the strided network on its grid: see
`fss.backbones.dilation`.

**A new one** is a file here and a preset in `conf/backbone`: a module with `NAMES`, the names that it offers, written
out as a tuple of strings (`*` stands for what the module itself knows), and `NETWORK`, a subclass of
`fss.backbones.network.Network`. See `docs/extending.md`.
"""

from __future__ import annotations

import ast
import difflib
import fnmatch
import functools
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fss import choices

if TYPE_CHECKING:
    from fss.backbones.backbone import Backbone, fingerprint
    from fss.backbones.network import Features, Network, State
    from fss.backbones.weights import LoadReport

__all__ = ["Backbone", "Features", "LoadReport", "Network", "build", "corners", "fingerprint", "names"]

#: Where the classes of this package are: torch, which they need, takes seconds to import and listing names does not.
_LATER = {
    "Backbone": "backbone",
    "Features": "network",
    "LoadReport": "weights",
    "Network": "network",
    "fingerprint": "backbone",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)


def names() -> tuple[str, ...]:
    """The backbones that `build` knows, sorted."""
    return tuple(sorted(_modules()))


def known(name: str) -> bool:
    """Whether `build` has a network of that name, as far as can be told without importing one; * stands for any."""
    return _pattern(name) is not None


def _modules() -> dict[str, str]:
    """The module of each name, as the files of this folder say in `NAMES`; none is imported."""
    return {name: module for module in choices.names(__name__) for name in _offered(_file(f"{__name__}.{module}"))}


def _file(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return spec.origin


@functools.cache
def _offered(file: str) -> tuple[str, ...]:
    for statement in ast.parse(Path(file).read_bytes()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "NAMES":
            return tuple(ast.literal_eval(statement.value))
    return ()


def build(
    name: str,
    weights: str = "random",
    *,
    stride: int | None = None,
    seed: int = 0,
    padding: str = "zeros",
    levels: Sequence[int] | None = None,
    interpolation: str | None = None,
    artefacts: float | None = None,
) -> Backbone:
    """A frozen backbone.

    `weights`: "random" (a function of `seed`; the global generators are not touched), "torchvision" (ImageNet,
    downloaded), "timm" (its own, downloaded), or the path or fsspec address of a checkpoint, see `docs/backbones.md`.
    `stride`: None is 16, or the patch size. `padding` of convolutions: zeros, replicate or reflect. `levels`: blocks or
    stages, from 1, after which low, mid and high are taken, where the network lets one choose; None is its own.
    `interpolation`: how images are stretched for it, bilinear or bicubic; None is as it was trained.
    `artefacts`: tokens of a transformer that are longer than so many medians are replaced, see
    `fss.backbones.artefacts`; None replaces none.
    Raises ValueError for unknown names, strides, paddings and levels, weights that cannot be read or are no finite
    floats, and weights of another network.
    """
    from fss.backbones.backbone import Backbone
    from fss.backbones.padding import pad_with
    from fss.backbones.weights import LoadReport, load_state, read_state, renamed

    network = _network(name)
    if levels is not None and not network.chooses_levels:
        raise ValueError(f"{name}: expected no levels, for it lets none be chosen, got {list(levels)}; leave them out")
    chosen = {} if levels is None else {"levels": levels}
    if weights == "random":
        net, report = _seeded(network, name, stride, None, seed, chosen), LoadReport(source=f"random, seed {seed}")
    else:
        timms = weights == "timm"
        state = network.timm_state(name) if timms else read_state(network.torchvision_name(name), weights)
        given = renamed(network, state)
        net = _seeded(network, name, stride, given.tensors, seed, chosen)
        report = load_state(name, net, given, source=weights)
    pad_with(net, padding)
    if artefacts is not None:
        net.mend(artefacts)
    return Backbone(name, net, report, padding, levels, interpolation, artefacts)


def corners(name: str) -> bool:
    """The geometry of a backbone's grid, see `fss.grid`, without building it.

    Raises:
        ValueError: for an unknown name.
    """
    return _network(name).geometry(name)


def chooses_levels(name: str) -> bool:
    """Whether `build` takes levels of a backbone.

    Raises:
        ValueError: for an unknown name.
    """
    return _network(name).chooses_levels


def torchvision_name(name: str) -> str:
    """What torchvision would call the network of backbone `name`.

    Raises:
        ValueError: for an unknown name.
    """
    return _network(name).torchvision_name(name)


def _network(name: str) -> type[Network]:
    pattern, modules = _pattern(name), _modules()
    if pattern is None:
        close = difflib.get_close_matches(str(name), modules, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown backbone {name!r}: expected one of {', '.join(sorted(modules))}.{hint}")
    return importlib.import_module(f"{__name__}.{modules[pattern]}").NETWORK


def _pattern(name: str) -> str | None:
    """The one of `names` that stands for a name."""
    return next((pattern for pattern in _modules() if fnmatch.fnmatchcase(str(name), pattern)), None)


def _seeded(
    network: type[Network],
    name: str,
    stride: int | None,
    state: State | None,
    seed: int,
    levels: Mapping[str, Sequence[int]],
) -> Network:
    """The network, initialised on the CPU from `seed`; no global generator, of CPU or accelerator, moves."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return network(name, stride, **levels) if state is None else network.for_weights(name, stride, state, **levels)
