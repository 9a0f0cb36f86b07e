"""Which levels of a backbone follow what cells show: consistency over two views, without labels, beside a read-out.

    python -m benchmarks.levels --root VOC2012 --list FILE [--images 96] [--shown 160] [--size 257] [--json FILE] \\
        NAME=WEIGHTS ...

`fss.evaluation.consistency` of photos of --root, with --centred without their mean cell; after every block or stage of
a network that lets them be chosen. Beside it the mIoU of a prototype read-out with the masks of other photos of --root,
of pairs of these, at cells of one grid: it shows how far the consistency can be trusted, and nothing may be chosen by
it. All in per cent; then the rank correlation of the two over the levels, and what `backbone.levels_by` would take.
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
from scipy.stats import spearmanr

from fss import backbones, grid, rng
from fss.backbones import Features
from fss.backbones.extractor import Extractor
from fss.evaluation import levels
from fss.evaluation.consistency import consistency
from fss.heads.parts.tokens import prototype_cosines, unit_grid
from fss.imaging import images
from fss.imaging.images import VOID

_LEVELS = ("low", "mid", "high")
#: Pairs of a query and a support, and the least share of the cells that a class has in a photo to be asked for.
_PAIRS, _LEAST = 600, 0.02


def extractors(name: str, weights: str, size: int) -> Iterator[tuple[Extractor, Mapping[str, str]]]:
    """Extractors that together give every level, and what each calls them in the table."""
    usual = backbones.build(name, weights)
    yield Extractor(usual, size), {level: level for level in (*_LEVELS, "mid, high")}
    for chosen in levels.alone(usual.net.depth):
        built = backbones.build(name, weights, levels=chosen)
        yield Extractor(built, size), {level: str(block) for level, block in zip(_LEVELS, chosen, strict=True)}


def joined(found: Features) -> Features:
    """Levels (P, C, n, n) of one grid in float32, and mid and high side by side."""
    return {name: values.float() for name, values in found.items()} | {"mid, high": unit_grid(found, ("mid", "high"))}


def of_photos(extractor: Extractor, pictures: Sequence[Image.Image]) -> Features:
    """Levels (P, C, n, n) of photos as they are, on one grid."""
    parts = [extractor([picture]) for picture in pictures]
    return {
        level: torch.cat([F.adaptive_avg_pool2d(part[level], extractor.grid).half() for part in parts])
        for level in _LEVELS
    }


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


def rows(
    network: str,
    chosen: argparse.Namespace,
    photos: Mapping[str, Image.Image],
    shown: Sequence[Image.Image],
    masks: Any,
) -> Iterator[dict[str, Any]]:
    """A row for every level."""
    name, _, weights = network.partition("=")
    for extractor, called in extractors(name, weights, chosen.size):
        first, second, seen = levels.twice(extractor, photos)
        first, second, read = joined(first), joined(second), joined(of_photos(extractor, shown))
        for level, block in called.items():
            yield {
                "backbone": name,
                "level": block,
                "consistency": 100 * consistency(first[level], second[level], seen, centred=chosen.centred),
                "read-out": 100 * read_out(read[level], masks, extractor.backbone.corners),
            }


def conclusion(measured: Sequence[Mapping[str, Any]]) -> str:
    """How the consistency ranks the levels of one network that can be chosen, and what it would take for high."""
    every = [row for row in measured if row["level"].isdigit()]
    if len(every) < levels.FIRST:
        return "levels cannot be chosen"
    rank = spearmanr([row["consistency"] for row in every], [row["read-out"] for row in every]).statistic
    high = max((row for row in every if int(row["level"]) >= levels.FIRST), key=lambda row: row["consistency"])
    best, usual = (max(row["read-out"] for row in every), next(r for r in measured if r["level"] == "high"))
    return (
        f"rank correlation over {len(every)} levels {rank:.2f}; takes {high['level']}, read-out "
        f"{high['read-out']:.1f}; the best has {best:.1f}, high as it is {usual['read-out']:.1f}"
    )


def main() -> None:
    """Print the table, and write it with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, type=Path, help="folder in PASCAL VOC's layout")
    parser.add_argument("--list", required=True, type=Path, help="names of its photos, one a line")
    parser.add_argument("--images", type=int, default=96, help="photos that are seen twice, the first of the list")
    parser.add_argument("--shown", type=int, default=160, help="photos that are read out, those after them")
    parser.add_argument("--size", type=int, default=257)
    parser.add_argument("--centred", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("networks", nargs="+", metavar="NAME=WEIGHTS")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    names = chosen.list.read_text().split()[: chosen.images + chosen.shown]
    pictures = [images.decode((chosen.root / f"JPEGImages/{one}.jpg").read_bytes()) for one in names]
    photos, shown = dict(zip(names[: chosen.images], pictures, strict=False)), pictures[chosen.images :]
    files = [chosen.root / f"SegmentationClassAug/{one}.png" for one in names[chosen.images :]]
    masks = [images.decode_labels(file.read_bytes()) for file in files]
    measured: list[dict[str, Any]] = []
    print("| backbone | level | consistency | read-out |\n|---|---|---:|---:|")
    for text in chosen.networks:
        found = []
        for one in rows(text, chosen, photos, shown, masks):
            found.append(one)
            values = " | ".join(f"{one[key]:.1f}" for key in ("consistency", "read-out"))
            print(f"| {one['backbone']} | {one['level']} | {values} |", flush=True)
        print(f"{text}: {conclusion(found)}", flush=True)
        measured += found
    if chosen.json:
        chosen.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
