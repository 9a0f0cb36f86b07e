"""Mean IoU of the masks that source=cam makes of image-level names, with the true masks of their classes.

    python -m benchmarks.cam --root VOC2012 [--list ImageSets/Segmentation/train.txt] --words FILE.vec
        --classifier mobilenet_v2=FILE [--classes FILE] [--backbone mobilenet_v2=FILE] [--photos N] [--size S]
        [--weightings softmax inverse_distance paper] [--json FILE]

Names are PASCAL's classes in the mask of each image, as weak supervision has them; the backbone gates. IoU sums over
photos for each class, averaged over classes; void is left out. Beside it what needs no classifier: the salient side,
and the whole image, as every name's mask. `left out` counts the classifier's classes that are called like PASCAL's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.features.backbone import BackboneSpec
from fss.datasets import Dataset, open_dataset
from fss.labelling import heatmaps, pseudo, words
from fss.labelling.names import ImageNames, names_of_masks
from fss.labelling.sources import Block, Labeller, Photo
from fss.labelling.sources.cam import CamLabeller
from fss.labelling.sources.saliency import SaliencyLabeller

LEVELS = ("mid", "high")


class Score:
    """Intersections and unions by class."""

    def __init__(self, classes: int):
        self.both, self.either = np.zeros(classes + 1), np.zeros(classes + 1)

    def add(self, mask: np.ndarray, truth: np.ndarray, class_id: int, void: int) -> None:
        """One (H, W) bool mask of a class, and the class indices of the image."""
        known, real = truth != void, truth == class_id
        self.both[class_id] += (mask & real).sum()
        self.either[class_id] += ((mask | real) & known).sum()

    @property
    def mean(self) -> float:
        """Mean IoU of the classes that there are, per cent."""
        shown = self.either > 0
        return float(100 * (self.both[shown] / self.either[shown]).mean())


def labeller(given: argparse.Namespace, names: ImageNames, weighting: str, gate: Labeller | None) -> CamLabeller:
    """The source as its defaults are, but for what the arguments say; its classes left out as by default."""
    classifier, _, weights = given.classifier.partition("=")
    every = words.vectors(given.words, [*names.names, *given.vocabulary])
    cosines = words.similarities(every[: len(names.names)], every[len(names.names) :])
    cosines[:, given.left_out] = -np.inf
    return CamLabeller(classifier, weights, names, heatmaps.weigh(cosines, weighting), gate)


def block(spec: BackboneSpec, dataset: Dataset, name: str) -> Block:
    """One photo as the label stage gives it to a labeller."""
    extractor, picture = spec.load(), dataset.image(name)
    tensor = spec.load().input(picture)
    fields = pseudo.tokens(extractor.features(tensor[None]), LEVELS)
    return Block([Photo(name, tensor, picture.size[::-1], path=f"{name}.jpg")], fields, extractor.backbone.corners)


@torch.inference_mode()
def table(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for every way to make masks."""
    dataset = open_dataset("pascal5i", given.root, given.list)
    chosen = dataset.names[:: max(1, len(dataset.names) // given.photos)][: given.photos]
    names = ImageNames.of(names_of_masks(dataset, chosen, range(1, len(dataset.class_names) + 1)))
    given.left_out = heatmaps.excluded(given.vocabulary, dataset.class_names)
    network, _, weights = given.backbone.partition("=")
    spec = BackboneSpec(network, weights or "random", 16, given.size, 0)
    cut = SaliencyLabeller()
    ways: dict[str, Callable[[Block], np.ndarray]] = {
        "whole image": lambda seen: np.ones(seen.photos[0].size, bool),
        "salient side": lambda seen: cut.maps(seen)[0][0][0] > 0,
    }
    for weighting in given.weightings:
        gated = labeller(given, names, weighting, cut)
        for label, one in ((f"{weighting}, gated", gated), (weighting, dataclasses.replace(gated, gate=None))):
            ways[label] = lambda seen, one=one: one.maps(seen)[0][0][0]  # type: ignore[misc]
    scores = {label: Score(len(dataset.class_names)) for label in ways}
    for name in chosen:
        seen, truth = block(spec, dataset, name), dataset.mask(name)
        for label, way in ways.items():
            mask = way(seen)
            for number in names.labels(f"{name}.jpg"):
                class_id = dataset.class_names.index(names.names[number - 1]) + 1
                scores[label].add(mask if mask.dtype == bool else mask == number, truth, class_id, dataset.void)
    for label, score in scores.items():
        yield {"masks": label, "miou": round(score.mean, 1), "photos": len(chosen), "left_out": len(given.left_out)}


def main() -> None:
    """Measure, print one table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True)
    parser.add_argument("--list", default="ImageSets/Segmentation/train.txt")
    parser.add_argument("--words", required=True)
    parser.add_argument("--classifier", required=True)
    parser.add_argument("--classes", type=Path, help="of the classifier, one a line; torchvision's if not given")
    parser.add_argument("--backbone", default="mobilenet_v2=random")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--weightings", nargs="+", default=list(heatmaps.WEIGHTINGS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    given.vocabulary = heatmaps.categories(given.classifier.partition("=")[0], given.classes)
    rows = list(table(given))
    for row in rows:
        print(f"{row['masks']:<28}{row['miou']:>6.1f}")
    print(f"mean IoU [%] on {rows[0]['photos']} photos, {rows[0]['left_out']} classes left out")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
