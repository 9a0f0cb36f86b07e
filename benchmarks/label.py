"""Images per second of `label` beside what bounds it: decoding alone and the backbone alone.

    python -m benchmarks.label --root PHOTOS [--backbones mobilenet_v2=FILE:48 resnet50=random:16]
        [--segments none ncut agglomerate superpixel] [--threads N] [--cores N] [--json FILE]

A backbone is NAME=WEIGHTS:PHOTOS. Decode: JPEG bytes to network inputs, by N threads. Backbone: the same inputs, the
same batch, type and threads. Label: the stage's own function, from a shard's file to the bytes that it publishes. The
three take turns and medians are compared; the roof is the slower of the first two. On a CPU, where the process is
pinned to as many cores, all of it shares them, so no overlap can hide work: `of cores` compares with what these cores
can do, their number / (CPU seconds of all steps one after the other). On a busy machine take one thread (two that wait
for each other are slowed by whatever else runs) and look at `by CPU`, the roof's CPU seconds over the label stage's.
`refined` are the CPU seconds of label, when it keeps embeddings, and of refine on them, over those of label alone.
With a GPU in sight the backbone runs there; hide it (CUDA_VISIBLE_DEVICES=) to measure the CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.engine.stage import Unit, write_file
from cluster.features.backbone import BackboneSpec
from cluster.features.feature_pass import FeaturePass
from cluster.label import kept
from cluster.label import stage as label
from cluster.label.files import encoded
from cluster.refine.stage import RefineGroup
from cluster.sample import stage as sample
from fss import shards
from fss.clustering import kmeans
from fss.imaging import images
from fss.labelling import pseudo
from fss.labelling.refine import Keys
from fss.labelling.sources import Photo
from fss.labelling.sources.clusters import ClusterLabeller

GRANULARITIES = (3, 5, 8)
#: What follows the backbone.
STEPS = ("tokens", "superpixels", "clusters", "regions", "maps")


def photos(root: Path, number: int) -> list[shards.Sample]:
    """The first photos below a folder, as a corpus shard holds them."""
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:number]
    if not paths:
        raise SystemExit(f"expected .jpg files below {root}, found none; set --root")
    pictures = (images.fit(images.decode(path.read_bytes()), 512) for path in paths)
    return [
        (f"{i:06d}", {"jpg": images.encode_jpeg(picture), "json": b'{"path":""}'}) for i, picture in enumerate(pictures)
    ]


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and CPU time of a call, with the GPU's work done."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - busy


@dataclasses.dataclass(frozen=True)
class Bench:
    """Everything that one segment step's figures need."""

    features: FeaturePass
    samples: list[shards.Sample]
    unit: Unit
    threads: int
    dims: int = 256
    """Of the embeddings that are kept for refine."""

    def decode(self) -> list[Photo]:
        """JPEG bytes to network inputs, by threads; superpixels are not part of it."""
        plain = dataclasses.replace(self.features, recipe=pseudo.EmbeddingOptions(segments="none"))
        with ThreadPoolExecutor(self.threads) as threads:
            return list(threads.map(plain._photo, self.samples))

    def backbone(self, inputs: list[torch.Tensor]) -> None:
        """The network alone, in the stage's batches."""
        extractor = self.features.spec.load()
        for start in range(0, len(inputs), extractor.call):
            extractor.features(torch.stack(inputs[start : start + extractor.call]))

    def clusters(self, number: int = 40) -> pseudo.Clusters:
        """Clusters of the shard's own rows: what they are makes no difference to the time."""
        rows = np.load(_first(sample.SampleShard(self.features, 0)(self.unit).files), allow_pickle=False)
        centre = rows.mean(axis=0)
        first = pseudo.centred(rows, centre)
        return pseudo.Clusters(kmeans.initial_centroids(first, number, seed=0, method="random"), centre)

    def measure(self, rounds: int) -> dict[str, float]:
        """Milliseconds an image: medians over rounds in which the three take turns."""
        clusters = self.clusters()
        stage = label.LabelShard(self.features, ClusterLabeller(clusters, self.features.recipe))
        inputs = [photo.tensor for photo in self.decode()]
        times: dict[str, list[tuple[float, float]]] = {"decode": [], "backbone": [], "label": [], "refined": []}
        refined = self.refined(stage)
        for _ in range(rounds):
            times["decode"].append(seconds(self.decode))
            times["backbone"].append(seconds(lambda: self.backbone(inputs)))
            times["label"].append(seconds(lambda: stage(self.unit)))
            times["refined"].append(seconds(refined))
        figures = {}
        for name, each in times.items():
            wall, busy = (1e3 * statistics.median(column) / len(inputs) for column in zip(*each, strict=True))
            figures |= {name: wall, f"{name}_cpu": busy}
        return figures | self.steps(clusters)

    def refined(self, stage: label.LabelShard) -> Callable[[], Any]:
        """Label, which keeps embeddings, and refine on them; along which directions was found before."""
        (directions,) = kept.SeekDirections(self.features, self.dims)(self.unit).files.values()
        along, folder = np.load(io.BytesIO(directions), allow_pickle=False), self.features.corpus
        keeping = dataclasses.replace(stage, along=along)
        group = RefineGroup(folder, folder, Keys(), 0, self.features.spec.load().backbone.corners, along)

        def work() -> None:
            files = keeping(self.unit).files
            (name,) = (name for name in files if name.endswith(kept.FIELDS))
            written = write_file(folder, name, files[name], len(self.samples))
            group(Unit("00000", ((self.unit.payload,), (written,))))

        return work

    @torch.inference_mode()
    def steps(self, clusters: pseudo.Clusters) -> dict[str, float]:
        """Milliseconds of this thread an image in each step after the backbone, one after the other."""
        spent = dict.fromkeys(STEPS, 0.0)
        recipe, extractor = self.features.recipe, self.features.spec.load()
        corners = extractor.backbone.corners
        for _, members in self.samples:
            picture = images.decode(members["jpg"])
            features = extractor([picture])
            watch = Watch(spent)
            field = pseudo.tokens(features, recipe.levels)
            watch("tokens")
            cut = pseudo.cut_up(picture, recipe)
            watch("superpixels")
            cuts = None if cut is None else [cut]
            ((layers, cells),) = pseudo.label_maps(field, cuts, clusters, recipe, corners)
            watch("clusters")
            pseudo.regions(cells, field[0])
            watch("regions")
            maps = pseudo.enlarge(layers, picture.size[::-1], recipe, corners)
            encoded("", maps)
            watch("maps")
        return {name: 1e3 * total / len(self.samples) for name, total in spent.items()}


class Watch:
    """Adds this thread's time since the last call to the step that is named."""

    def __init__(self, spent: dict[str, float]):
        self.spent, self.start = spent, time.thread_time()

    def __call__(self, name: str) -> None:
        """The time since the last call was spent on `name`."""
        now = time.thread_time()
        self.spent[name] += now - self.start
        self.start = now


def _first(files: Mapping[str, bytes]) -> io.BytesIO:
    return io.BytesIO(next(iter(files.values())))


def rows(given: argparse.Namespace, backbone: str) -> Iterator[dict[str, Any]]:
    """One row of the table for each segment step under a backbone, NAME=WEIGHTS:PHOTOS."""
    name, _, rest = backbone.partition("=")
    weights, _, number = rest.rpartition(":")
    spec = BackboneSpec(name, weights, None, given.size, 0, given.precision)
    samples = photos(given.root, int(number))
    with tempfile.TemporaryDirectory() as folder:
        file = write_file(Path(folder), "corpus-000000.tar", shards.pack(samples), len(samples))
        for segments in given.segments:
            unit = "pixels" if segments in ("none", "superpixel") else "segments"
            recipe = pseudo.EmbeddingOptions(segments=segments, unit=unit, granularities=GRANULARITIES)
            features = FeaturePass(Path(folder), spec, recipe, given.threads)
            bench = Bench(features, samples, Unit("part-000000", file), given.threads)
            yield {"network": name, "segments": segments, "photos": len(samples)} | bench.measure(given.rounds)


def main() -> None:
    """Measure, print one table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--backbones", nargs="+", default=["mobilenet_v2=random:48"])
    parser.add_argument("--segments", nargs="+", default=["none", "ncut", "agglomerate", "superpixel"])
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cores", type=int, help="that a CPU's process is pinned to; as many as threads if not given")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.cores = given.cores or given.threads
    if not torch.cuda.is_available() and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    table = []
    for backbone in given.backbones:
        for row in rows(given, backbone):
            table.append(row | _ratios(row, given.cores))
            _print(table[-1], header=len(table) == 1)
    _print_steps(table)
    if given.json:
        about = {k: str(v) for k, v in vars(given).items() if k != "json"}
        given.json.write_text(json.dumps({"settings": about, "ms_per_image": table}, indent=1))


def _ratios(row: dict[str, Any], cores: int) -> dict[str, Any]:
    roof = max(("decode", "backbone"), key=lambda name: row[name])
    together = row["decode_cpu"] + row["backbone_cpu"] + sum(row[name] for name in STEPS)
    return {
        "roof": roof,
        "label_of_roof": row[roof] / row["label"],
        "label_of_roof_cpu": row[f"{roof}_cpu"] / row["label_cpu"],
        "label_of_cores": together / cores / row["label"],
        "refined_of_label_cpu": row["refined_cpu"] / row["label_cpu"],
    }


def _print(row: dict[str, Any], header: bool) -> None:
    if header:
        columns = "decode backbone   label  roof     label/roof  of cores    by CPU   refined"
        print(f"images/s:               segments      {columns}")
    rates = " ".join(f"{1e3 / row[name]:>8.1f}" for name in ("decode", "backbone", "label"))
    print(
        f"{row['network']:>16} {row['segments']:>15}    {rates}  {row['roof']:<8}"
        f" {row['label_of_roof']:>9.2f} {row['label_of_cores']:>9.2f} {row['label_of_roof_cpu']:>9.2f}"
        f" {row['refined_of_label_cpu']:>9.2f}",
        flush=True,
    )


def _print_steps(table: list[dict[str, Any]]) -> None:
    names = ("decode", "backbone", *STEPS)
    print("\nms of CPU an image (share): " + ", ".join(names))
    for row in table:
        spent = [row["decode_cpu"], row["backbone_cpu"], *(row[name] for name in STEPS)]
        shares = " ".join(f"{each:>7.1f} ({each / sum(spent):>4.0%})" for each in spent)
        print(f"{row['network']:>16} {row['segments']:>15} {shares}")


if __name__ == "__main__":
    main()
