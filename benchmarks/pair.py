"""Tasks per second of pairing a group of regions: a plain loop, exact, and with estimated limits.

    python -m benchmarks.pair [--regions 50000] [--clusters 40] [--json FILE]

Pairing sees nothing of images but a table of regions, so the table is random: 8 regions an image, descriptors of as
many dimensions as MobileNetV2's. The plain loop, for each task, computes the similarities of its query to its cluster
and sorts them all; it is timed on a part of the images, with the clusters of the whole, and counted per task. Ways
alternate, times are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fss import rng
from fss.tasks.pairing import cross_image
from fss.tasks.pairing.cross_image import Keys
from fss.tasks.pairing.parts.pairs import Pairing, RegionTable

_REGIONS_PER_IMAGE, _DIMENSIONS, _PLAIN_IMAGES = 8, 416, 100


def table(regions: int, clusters: int) -> RegionTable:
    """Random regions that the rules all take."""
    generator = np.random.default_rng(0)
    keys = [f"{row // _REGIONS_PER_IMAGE:024x}" for row in range(regions)]
    rows = generator.standard_normal((regions, _DIMENSIONS), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    shares = {name: np.full(regions, 0.2, np.float32) for name in ("area", "border", "empty_rows", "empty_columns")}
    labels = generator.integers(0, clusters, regions)
    return RegionTable(
        key=np.array(keys, object), layer=np.zeros(regions, int), label=labels, descriptor=rows, **shares
    )


def plain(found: RegionTable, rules: Keys) -> Iterator[Pairing]:
    """A task after the other, every similarity sorted, for the first images."""
    by_label = {label: np.flatnonzero(found.label == label) for label in np.unique(found.label)}
    for image in range(_PLAIN_IMAGES):
        for number in range(rules.tasks_per_image):
            generator = rng.numpy_rng(0, image, number)
            query = image * _REGIONS_PER_IMAGE + int(generator.integers(_REGIONS_PER_IMAGE))
            members = by_label[found.label[query]]
            others = members[found.key[members] != found.key[query]]
            order = np.argsort(-(found.descriptor[others] @ found.descriptor[query]), kind="stable")
            near = others[order[: int(np.ceil(rules.nearest * len(others)))]]
            yield Pairing(query, (int(generator.choice(near)),))


def ways(found: RegionTable) -> dict[str, Callable[[], list[Pairing]]]:
    """What is timed, by name."""
    options: dict[str, dict[str, object]] = {
        "exact": {},
        "exact, 5 shots": {"shots": 5},
        "sampled": {"similarity": "sampled"},
        "exact, by cluster": {"balance": "clusters"},
        "exact, 2 distractors": {"distractors": 2},
    }
    loops = {
        name: lambda chosen=chosen: cross_image.draw(found, Keys(**chosen), seed=0) for name, chosen in options.items()
    }
    return {"plain loop": lambda: list(plain(found, Keys())), **loops}


def main() -> None:
    """Time all ways in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=50_000)
    parser.add_argument("--clusters", type=int, default=40)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    timed = ways(table(given.regions, given.clusters))
    speeds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(given.repeat):
        for name, way in timed.items():
            start = time.perf_counter()
            number = len(way())
            speeds[name].append(number / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"{given.regions} regions in {given.clusters} clusters\n{'':24}{'tasks/s':>10}{'ratio':>8}")
    for name, speed in medians.items():
        print(f"{name:24}{speed:10.0f}{speed / medians['plain loop']:8.1f}")
    if given.json:
        about = {"regions": given.regions, "clusters": given.clusters, "tasks_per_second": medians}
        given.json.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
