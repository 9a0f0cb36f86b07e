"""Whether a model notices that a thing is not there: AUROC of its calibrated chance, beside the plain area rule.

    python -m benchmarks.absence --model MODEL --root VOC2012 [--list FILE] [--episodes 200] [--shots 1] [--json FILE]

Each episode of the field is asked twice: with its query, and with one that shows nothing of the class, drawn from the
same images. AUROC is the chance that of two such images the one with the thing gets the larger score: 50 is a guess,
100 is perfect. The area rule's score is the share of the image that the mask covers. The interval is of 1,000 draws of
episodes with replacement. Labels are looked at for measuring alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cluster.config.predict import PredictConfig
from fss import rng
from fss.datasets import Dataset, areas, open_dataset
from fss.evaluation.episodes import Areas, Episode, EpisodeRules, draw, pool
from fss.segmenter import Segmenter, find

_DRAWS = 1000


def auroc(there: np.ndarray, absent: np.ndarray) -> float:
    """In [0, 1], of the (n,) scores of images with and without the thing; ties count half."""
    return float(((there[:, None] > absent).mean() + (there[:, None] >= absent).mean()) / 2)


def interval(there: np.ndarray, absent: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of `auroc` over draws of the episodes."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(there), size=(_DRAWS, len(there)))
    low, high = np.percentile([auroc(there[rows], absent[rows]) for rows in drawn], (2.5, 97.5))
    return float(low), float(high)


def other_query(episode: Episode, shown: Areas) -> str:
    """An image that shows no pixel of the episode's class."""
    names = [name for name, classes in shown.items() if not classes.get(episode.ways[0].class_id)]
    return names[rng.mix(0, "absent", episode.index) % len(names)]


def scores(segmenter: Segmenter, dataset: Dataset, shown: Areas, episodes: list[Episode]) -> Iterator[np.ndarray]:
    """(2, 2) of each episode: with and without the thing, its chance and the share of the image that is marked."""
    for episode in episodes:
        (way,) = episode.ways
        supports = [dataset.image(name) for name in way.supports]
        thing = segmenter.prepare(supports, [dataset.binary_mask(name, way.class_id) for name in way.supports])
        asked = [dataset.image(name) for name in (episode.query, other_query(episode, shown))]
        yield np.array([(answer.presence, answer.mask(edges=False).mean()) for answer in thing.stream(asked)], float)


def main() -> None:
    """Print the figures, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--list", default=None)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    segmenter = Segmenter.load(find(given.model))
    dataset = open_dataset("pascal5i", given.root, given.list)
    shown = {name: areas(dataset, name) for name in dataset.names}
    source = pool(shown, range(1, 21), EpisodeRules(shots=given.shots))
    found = np.stack(list(scores(segmenter, dataset, shown, draw(source, count=given.episodes, seed=0))))
    figures: dict[str, dict[str, float]] = {}
    for place, name in enumerate(("calibrated chance", "area of the mask")):
        there, absent = found[:, 0, place], found[:, 1, place]
        low, high = interval(there, absent)
        figures[name] = {"auroc": auroc(there, absent), "low": low, "high": high}
        print(f"{name}: AUROC {100 * auroc(there, absent):.1f} ({100 * low:.1f} to {100 * high:.1f})")
    for least in (PredictConfig.presence, 0.5):
        right = float((found[:, 0, 0] >= least).mean()), float((found[:, 1, 0] < least).mean())
        figures[f"presence={least}"] = {"there": right[0], "absent": right[1]}
        print(
            f"presence={least}: right about {100 * right[0]:.1f} % of those there, {100 * right[1]:.1f} % of the others"
        )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
