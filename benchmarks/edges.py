"""What borders along the photo's (`fss.segmenter.edges`) do to masks: mIoU and boundary IoU with and without them.

    python -m benchmarks.edges --root VOC2012 [--list FILE] (--model MODEL | --head smoothed --weights FILE) \
        [--episodes 400] [--shots 1]

Episodes of the field over all 20 classes, scored at the query's own resolution. Boundary IoU (Cheng et al. 2021) is the
IoU of what lies inside of a mask within 2 % of the photo's diagonal from its border. Both are summed by class, and
averaged over classes. The interval is of 1,000 draws of episodes with replacement, of the paired difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from scipy.ndimage import binary_erosion

from fss import backbones, heads
from fss.backbones.extractor import Extractor
from fss.datasets import Dataset, areas, open_dataset
from fss.evaluation.episodes import Episode, EpisodeRules, draw, pool
from fss.heads.parts.head import Head
from fss.imaging.images import VOID
from fss.segmenter import Segmenter, edges, find
from fss.segmenter.thing import Thing

_DRAWS = 1000
_WIDTH = 0.02
METRICS = ("mIoU", "boundary IoU")


def band(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool: what of a mask lies within `_WIDTH` of the diagonal from its border or the photo's."""
    width = max(1, round(_WIDTH * float(np.hypot(*mask.shape))))
    return mask & ~binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=width)[1:-1, 1:-1]


def counts(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(2, 2) of the metrics: pixels of the intersection and of the union; void counts nowhere."""
    valid, real = truth != VOID, truth == 1
    pairs = (mask & valid, real), (band(mask) & valid, band(real))
    return np.array([((a & b).sum(), (a | b).sum()) for a, b in pairs], dtype=np.int64)


def scores(head: Head, extractor: Extractor, dataset: Dataset, episodes: list[Episode]) -> Iterator[np.ndarray]:
    """(2, 2, 2) of each episode: `counts` without and with borders along the photo's."""
    for episode in episodes:
        (way,) = episode.ways
        supports = [(dataset.image(name), dataset.binary_mask(name, way.class_id)) for name in way.supports]
        photo, truth = dataset.image(episode.query), dataset.binary_mask(episode.query, way.class_id)
        soft = Thing.of(head, extractor, supports).probabilities(photo)
        yield np.stack([counts(soft > 0.5, truth), counts(edges.sharpened(photo, soft) == 1, truth)])


def means(found: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(2, 2) per cent: without and with, by metric; of (E, 2, 2, 2) counts and (E,) classes."""
    sums = np.stack([found[classes == one].sum(axis=0) for one in np.unique(classes)])
    return 100 * (sums[..., 0] / sums[..., 1]).mean(axis=0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder in PASCAL VOC's layout")
    parser.add_argument("--list", default=None)
    parser.add_argument("--model", help="a trained one")
    parser.add_argument("--head", default="smoothed", help="one that needs no training")
    parser.add_argument("--weights", help="MobileNetV2's, for --head")
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--shots", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    head, extractor = _model(given)
    dataset = open_dataset("pascal5i", given.root, given.list)
    source = pool({name: areas(dataset, name) for name in dataset.names}, range(1, 21), EpisodeRules(shots=given.shots))
    episodes = draw(source, count=given.episodes, seed=0)
    found, classes = (
        np.stack(list(scores(head, extractor, dataset, episodes))),
        np.array([episode.ways[0].class_id for episode in episodes]),
    )
    generator = np.random.default_rng(0)
    rows = generator.integers(len(found), size=(_DRAWS, len(found)))
    gains = np.stack([np.diff(means(found[one], classes[one]), axis=0)[0] for one in rows])
    without, sharp = means(found, classes)
    for place, name in enumerate(METRICS):
        low, high = np.percentile(gains[:, place], (2.5, 97.5))
        gain = f"{sharp[place] - without[place]:+.1f} [{low:+.1f}, {high:+.1f}]"
        print(f"{name}: {without[place]:.1f} without, {sharp[place]:.1f} with, {gain}", flush=True)


def _model(given: argparse.Namespace) -> tuple[Head, Extractor]:
    if given.model:
        loaded = Segmenter.load(find(given.model), "cpu")
        return loaded.head, loaded.extractor
    backbone = backbones.build("mobilenet_v2", given.weights)
    head = heads.build(given.head, {}, backbone.channels, corners=backbone.corners)
    return head.eval(), Extractor(backbone, given.size)


if __name__ == "__main__":
    main()
