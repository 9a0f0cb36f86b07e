"""Which blocks of a backbone its levels are taken after, chosen without labels: by the consistency of their cells.

High is the level that is most consistent alone, mid the one below it that is most consistent together with it, side by
side as read-outs and clusters take them, and low lies after half as many blocks as mid. What consistency is: see
`fss.evaluation.consistency`; how far it agrees with a read-out by masks: `benchmarks/levels.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from fss.backbones import Features
from fss.backbones.extractor import Extractor
from fss.evaluation.consistency import CHANGES, consistency, places
from fss.heads.parts.tokens import unit_grid
from fss.imaging import images
from fss.tasks import augment, views

#: Photos that are looked at, and cells of all of them, at most; but `FEWEST` photos even of a fine grid.
PHOTOS, CELLS, FEWEST = 96, 2**16, 8
#: The first block after which high may be taken: two levels are below it.
FIRST = 3
_VIEW = 2


def photos_for(grid: int) -> int:
    """How many photos are looked at where each has grid x grid cells."""
    return max(FEWEST, min(PHOTOS, CELLS // grid**2))


def alone(depth: int) -> list[tuple[int, int, int]]:
    """Levels of networks that together have every one, from 1 to `depth`, that high may be."""
    return [(end - 2, end - 1, end) for end in range(depth, FIRST - 1, -3)][::-1]


def beside(high: int) -> list[tuple[int, int, int]]:
    """Levels of networks that together have every one that mid may be below this `high`, each beside it."""
    return [(end - 1, end, high) for end in range(high - 1, 1, -2)][::-1]


def chosen(scores: Mapping[int, float]) -> int:
    """The level with the highest score; of equal ones the lowest."""
    return max(sorted(scores), key=lambda level: scores[level])


def three(mid: int, high: int) -> tuple[int, int, int]:
    """Levels low, mid and high."""
    return mid // 2, mid, high


@torch.inference_mode()
def twice(extractor: Extractor, pictures: Mapping[str, Image.Image]) -> tuple[Features, Features, torch.Tensor]:
    """Levels (P, C, n, n) float16 of photos by name and of a changed view of each, on one grid, and (P, N) `places`.

    The view is a function of the photo's name.
    """
    backbone = extractor.backbone
    changed = [views.draw(0, name, _VIEW, CHANGES, one.size[::-1]) for name, one in pictures.items()]
    pixels = [images.to_bytes(one, extractor.size, backbone.interpolation) for one in pictures.values()]
    seen = torch.stack([places(view, extractor.grid, backbone.corners) for view in changed])
    first: list[Features] = []
    second: list[Features] = []
    for start in range(0, len(pixels), extractor.call):
        some = torch.stack(pixels[start : start + extractor.call])
        first.append(_on_grid(extractor, images.normalise(some.float() / 255)))
        second.append(_on_grid(extractor, augment.images(some, changed[start : start + extractor.call])))
    return _joined(first), _joined(second), seen


def _on_grid(extractor: Extractor, inputs: torch.Tensor) -> Features:
    found = extractor.features(inputs)
    return {name: F.adaptive_avg_pool2d(values, extractor.grid).half().cpu() for name, values in found.items()}


def _joined(parts: Sequence[Features]) -> Features:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def scores(extractor: Extractor, pictures: Mapping[str, Image.Image], pairs: Sequence[Sequence[str]]) -> list[float]:
    """The consistency of each of `pairs`, levels side by side, of two photos or more."""
    first, second, seen = twice(extractor, pictures)
    return [consistency(unit_grid(first, names), unit_grid(second, names), seen) for names in pairs]
