"""Images per second of building pseudo-tasks end to end: our stages beside the structure of the released UMTFSS.

    python -m benchmarks.tasks --root PHOTOS --weights mobilenet_v2.pth [--tasks 1000] [--images 250] [--json FILE]

Ours: the stages sample, kmeans, label and pair, in this process, as a worker runs them. The other side is a plain loop
of library calls with the structure of the released pipeline: the network takes one image at a time, once for the
embeddings and once more for the assignment; Felzenszwalb runs in the main process; the most similar regions of every
cluster are lists in memory; masks and tasks are files, one by one. Both have the same photos, network, threads, number
of clusters and tasks, and both start from JPEG bytes of the same size.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.segmentation import felzenszwalb

from benchmarks.label import photos
from cluster.engine.run import Run
from cluster.stages import STAGES
from fss import backbones
from fss.clustering import kmeans
from fss.imaging import images
from jobs._config import load

CLUSTERS, POINTS, ITERATIONS = 40, 64, 20


class Here:
    """The stages' pool, without processes."""

    size = present = 1

    def map(self, function: Callable[[Any], Any], units: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """(position, result) of every unit."""
        for index, unit in enumerate(units):
            yield index, function(unit)

    def each(self, function: Callable[[Any], Any], units: Iterable[Any]) -> Iterator[Any]:
        """The results of all units as they come, in order."""
        return map(function, units)

    def on_all(self, function: Callable[[Any], Any]) -> None:
        """Run `function(None)`."""
        function(None)

    def serve(self, folder: Path) -> None:
        """Nothing: there is one machine."""

    def rest(self) -> None:
        """Nothing: there are no workers to end."""

    def on_each(self, function: Callable[[Any], Any], units: Iterable[Any]) -> list[Any]:
        """The results of all units, in order."""
        return list(self.each(function, units))


def clocks() -> np.ndarray:
    """Seconds of the clock and of this process's CPU, (2,): on a busy machine only the second says anything."""
    return np.array([time.perf_counter(), time.process_time()])


def ours(folder: Path, output: Path, arguments: argparse.Namespace, source: str) -> tuple[np.ndarray, int]:
    """`clocks` of our stages after `shard`, and the tasks that they made."""
    each = -(-arguments.tasks // arguments.images)
    config = load(
        [
            "experiment=photos",
            f"source={source}",
            "name=tasks",
            f"root={output}",
            f"corpus.root={folder}",
            "backbone=mobilenet_v2",
            f"backbone.weights={arguments.weights}",
            "backbone.padding=zeros",
            f"source.clusters={CLUSTERS}",
            f"source.iterations={ITERATIONS}",
            f"pair.tasks_per_image={each}",
            "tracking.enabled=false",
        ]
    )
    run = Run(config, STAGES)
    run.__dict__["pool"] = Here()  # where cached_property keeps the pool that it makes
    run.ensure("shard")
    start = clocks()
    run.ensure("pair")
    return clocks() - start, sum(file.count for file in run.manifest("pair").named(".tar"))


class Loop:
    """The released pipeline's structure over a folder of photos."""

    def __init__(self, folder: Path, weights: str):
        self.paths = sorted(folder.glob("*.jpg"))
        self.network = backbones.build("mobilenet_v2", weights, stride=16, seed=0)

    @torch.inference_mode()
    def embed(self, path: Path) -> tuple[Image.Image, torch.Tensor]:
        """The picture and its (C, h, w) embeddings of length 1."""
        picture = images.decode(path.read_bytes())
        features = self.network(images.to_tensor(picture, 417)[None])
        return picture, F.normalize(torch.cat([features["mid"], features["high"]], dim=1), dim=1)[0]

    def __call__(self, output: Path, tasks: int) -> None:
        """All of it, `tasks` tasks as folders of files below `output`."""
        generator = np.random.default_rng(0)
        rows = []
        for path in self.paths:
            cells = self.embed(path)[1].flatten(1).T.numpy()
            rows.append(cells[generator.choice(len(cells), POINTS, replace=False)])
        centroids = torch.from_numpy(_kmeans(np.concatenate(rows)))
        names, regions = [], []
        for path in self.paths:
            labels, means = self.label(path, centroids)
            (output / f"{path.stem}.png").write_bytes(images.encode_png(labels.astype(np.uint8)))
            names += [(path, number) for number, _ in means]
            regions += [mean for _, mean in means]
        self.pair(output, names, np.stack(regions), tasks, generator)

    def label(self, path: Path, centroids: torch.Tensor) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
        """Cluster numbers of the pixels after the vote, and (number, mean embedding) of every cluster that is there."""
        picture, field = self.embed(path)
        scores = 2 * torch.einsum("kc,chw->khw", centroids, field) - centroids.square().sum(1)[:, None, None]
        large = F.interpolate(scores[None], size=picture.size[::-1], mode="bilinear", align_corners=True)[0]
        labels = large.argmax(0).numpy()
        cut = felzenszwalb(np.asarray(picture), scale=100, sigma=0.8, min_size=200)
        for number in range(int(cut.max()) + 1):
            labels[cut == number] = np.bincount(labels[cut == number]).argmax()
        small = torch.from_numpy(labels)[None, None].float()
        cells = F.interpolate(small, size=field.shape[1:], mode="nearest")[0, 0].long().numpy()
        array = field.numpy()
        return labels, [(int(number), array[:, cells == number].mean(1)) for number in np.unique(cells)]

    @staticmethod
    def pair(output: Path, names: list[Any], means: np.ndarray, tasks: int, generator: np.random.Generator) -> None:
        """Top-k lists of every region in memory, then tasks as files."""
        means = means / np.linalg.norm(means, axis=1, keepdims=True)
        clusters = np.array([number for _, number in names])
        lists = []
        for index, number in enumerate(clusters):
            others = np.flatnonzero(clusters == number)
            order = np.argsort(-(means[others] @ means[index]))
            lists.append(others[order][1 : 1 + len(others) // 2])
        usable = [index for index, found in enumerate(lists) if len(found)]
        for task in range(tasks):
            query = int(generator.choice(usable))
            for role, index in (("query", query), ("support", int(generator.choice(lists[query])))):
                path, number = names[index]
                labels = images.decode_labels((output / f"{path.stem}.png").read_bytes())
                (output / f"{task:06d}.{role}.jpg").write_bytes(path.read_bytes())
                mask = (labels == number).astype(np.uint8)
                (output / f"{task:06d}.{role}.png").write_bytes(images.encode_png(mask))


def _kmeans(rows: np.ndarray) -> np.ndarray:
    centroids = kmeans.initial_centroids(rows, CLUSTERS, seed=0)
    for iteration in range(ITERATIONS):
        centroids = kmeans.step(kmeans.partial_sums(rows, centroids), centroids, seed=iteration)
    return centroids


def main() -> None:
    """Measure, print one table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--sources", nargs="+", default=["clusters", "superpixels"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    table: list[dict[str, Any]] = []

    def add(pipeline: str, spent: np.ndarray, tasks: int) -> None:
        row = {"pipeline": pipeline, "seconds": float(spent[0]), "cpu_seconds": float(spent[1]), "tasks": tasks}
        table.append(row)
        rate = given.images / row["seconds"]
        ratios = " ".join(f"{table[0][name] / row[name]:>9.2f}" for name in ("seconds", "cpu_seconds"))
        print(f"{pipeline:<26} {spent[0]:>8.1f} {spent[1]:>8.1f} {tasks:>6} {rate:>9.1f} {ratios}", flush=True)

    print("pipeline                    seconds      CPU  tasks  images/s     ratio    of CPU")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        folder.mkdir()
        for key, members in photos(given.root, given.images):
            (folder / f"{key}.jpg").write_bytes(members["jpg"])
        loop, output = Loop(folder, given.weights), Path(scratch) / "loop"
        output.mkdir()
        start = clocks()
        loop(output, given.tasks)
        add("released structure", clocks() - start, given.tasks)
        for source in given.sources:
            add(f"ours, source={source}", *ours(folder, Path(scratch) / source, given, source))
    if given.json:
        given.json.write_text(json.dumps({"images": given.images, "threads": given.threads, "rows": table}, indent=1))


if __name__ == "__main__":
    main()
