"""Which levels of a backbone follow what cells show: consistency over two views, without labels, beside a read-out.

    python -m benchmarks.levels --root VOC2012 --list FILE [--images 96] [--size 257] [--json FILE] NAME=WEIGHTS ...

`fss.evaluation.consistency` of photos of --root, as they are and without their mean cell; for a network of timm after
every block or stage. Beside it the mIoU of a prototype read-out with the masks of --root, of pairs of these photos, at
cells of one grid: it shows how far the consistency can be trusted, and nothing may be chosen by it. All in per cent.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fss import backbones, grid, rng
from fss.backbones.extractor import Extractor
from fss.evaluation.consistency import CHANGES, consistency, places
from fss.heads.parts.tokens import prototype_cosines
from fss.imaging import images
from fss.imaging.images import VOID
from fss.tasks import augment, views

_LEVELS = ("low", "mid", "high")
#: Pairs of a query and a support, and the least share of the cells that a class has in a photo to be asked for.
_PAIRS, _LEAST = 600, 0.02


def extractors(name: str, weights: str, size: int) -> Iterator[tuple[Extractor, Mapping[str, str]]]:
    """Extractors that together give every level, and what each calls them in the table."""
    usual = backbones.build(name, weights)
    if not usual.net.chooses_levels:
        yield Extractor(usual, size), {level: level for level in (*_LEVELS, "mid, high")}
        return
    number = len(usual.net.loaded.feature_info)  # type: ignore[arg-type]
    for start in [*range(1, number - 3, 3), number - 2]:
        chosen = [start, start + 1, start + 2]
        built = backbones.build(name, weights, levels=chosen)
        yield Extractor(built, size), {level: str(block) for level, block in zip(_LEVELS, chosen, strict=True)}


def features(extractor: Extractor, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """(P, C, n, n) of each level of (P, 3, S, S) normalised inputs, and of mid and high together; one grid for all."""
    found = {level: F.adaptive_avg_pool2d(v, extractor.grid) for level, v in extractor.features(inputs).items()}
    return found | {"mid, high": torch.cat([F.normalize(found[level], dim=1) for level in ("mid", "high")], dim=1)}


def asked(masks: Sequence[np.ndarray]) -> list[tuple[int, int, int]]:
    """(class, query, support): pairs of photos that show a class, in an order drawn at random."""
    shown: dict[int, list[int]] = {}
    for number, mask in enumerate(masks):
        for value in np.unique(mask):
            if 0 < value < VOID and (mask == value).mean() > _LEAST:
                shown.setdefault(int(value), []).append(number)
    pairs = [(value, *pair) for value, numbers in shown.items() for pair in itertools.permutations(numbers, 2)]
    return [pairs[index] for index in rng.numpy_rng(0, "levels").permutation(len(pairs))[:_PAIRS]]


def read_out(photos: torch.Tensor, masks: Sequence[np.ndarray], corners: bool) -> float:
    """Mean IoU of classes, at cells, of the nearer of the two mean cells of a support."""
    cells, counts = F.normalize(photos.flatten(2), dim=1), dict[int, np.ndarray]()
    for value, query, support in asked(masks):
        sides = [np.where(masks[one] == VOID, VOID, masks[one] == value).astype(np.uint8) for one in (query, support)]
        truth, shown = (grid.cells(side, photos.shape[-1], corners).flatten(1) for side in sides)
        cosine = prototype_cosines(cells[query][None], cells[support][None], shown[None])[0]
        found, real, known = cosine[1] > cosine[0], truth[1] >= 0.5, truth.sum(dim=0) >= 0.5
        both, either = found & real & known, (found | real) & known
        counts[value] = counts.get(value, np.zeros(2)) + np.array([int(both.sum()), int(either.sum())])
    return float(np.mean([both / max(either, 1) for both, either in counts.values()]))


def rows(name: str, weights: str, size: int, pictures: Sequence[Image.Image], masks: Any) -> Iterator[dict[str, Any]]:
    """A row for every level."""
    changed = [views.draw(0, str(n), 2, CHANGES, (p.height, p.width)) for n, p in enumerate(pictures)]
    for extractor, called in extractors(name, weights, size):
        backbone = extractor.backbone
        seen = torch.stack([places(view, extractor.grid, backbone.corners) for view in changed])
        pixels = torch.stack([images.to_bytes(picture, size, backbone.interpolation) for picture in pictures])
        first = features(extractor, images.normalise(pixels.float() / 255))
        second = features(extractor, augment.images(pixels, changed))
        for level, block in called.items():
            figures = [consistency(first[level], second[level], seen, centred=centred) for centred in (False, True)]
            yield {
                "backbone": name,
                "level": block,
                "plain": 100 * figures[0],
                "centred": 100 * figures[1],
                "read-out": 100 * read_out(first[level], masks, backbone.corners),
            }


def main() -> None:
    """Print the table, and write it with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, type=Path, help="folder in PASCAL VOC's layout")
    parser.add_argument("--list", required=True, type=Path, help="names of its photos, one a line")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--size", type=int, default=257)
    parser.add_argument("--json", type=Path)
    parser.add_argument("networks", nargs="+", metavar="NAME=WEIGHTS")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    names = chosen.list.read_text().split()[: chosen.images]
    pictures = [images.decode((chosen.root / f"JPEGImages/{one}.jpg").read_bytes()) for one in names]
    files = [chosen.root / f"SegmentationClassAug/{one}.png" for one in names]
    masks = [images.decode_labels(file.read_bytes()) for file in files]
    measured: list[dict[str, Any]] = []
    print("| backbone | level | consistency | centred | read-out |\n|---|---|---:|---:|---:|")
    for text in chosen.networks:
        name, _, weights = text.partition("=")
        for one in rows(name, weights, chosen.size, pictures, masks):
            measured.append(one)
            values = " | ".join(f"{one[key]:.1f}" for key in ("plain", "centred", "read-out"))
            print(f"| {one['backbone']} | {one['level']} | {values} |", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
