"""Episodes per second of evaluation: the field's way, ours from nothing, ours once an image has been seen.

    python -m benchmarks.evaluate --root VOC2012 --weights mobilenet_v2.pth [--json FILE]

Field's way: an episode decodes its images, runs the backbone on each, the head once, enlarges two logits by
`F.interpolate` and counts; batch 1, same network, same process. Cold: features are computed, stored and used, the
workers' memory is empty. Warm: the same workers see the same list again. Both of ours publish their rows as the stage
does, and score at two resolutions where the field's way scores at one. Workers are started and weights loaded before.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from cluster.config import ClusterConfig
from cluster.engine.pool import Failure, Pool
from cluster.engine.session import session
from cluster.engine.stage import Publisher, Unit
from cluster.evaluate.episode_list import Item
from cluster.evaluate.measure import Cache, DataSpec, Describe, MeasuredModel, Prepare, RunBlock, photos
from cluster.evaluate.units import blocks, image_names, image_units
from cluster.features.backbone import BackboneSpec
from fss import heads
from fss.datasets import areas
from fss.evaluation.episodes import EpisodeRules, draw, pool
from fss.grid import cells, enlarge
from fss.heads.parts.capabilities import Fits
from fss.training.bank import stack, stack_shots


@dataclasses.dataclass(frozen=True)
class FieldsWay:
    """Runs episodes one by one from their files."""

    data: DataSpec
    entry: MeasuredModel

    @torch.inference_mode()
    def __call__(self, unit: Unit) -> dict[str, int]:
        """`unit.payload` is a tuple of items."""
        dataset, head, extractor = self.data.open(), self.entry.load(), self.entry.spec.load()
        corners = extractor.backbone.corners
        for item in unit.payload:
            (way,) = item.episode.ways
            query = extractor([dataset.image(item.episode.query)])
            shots = [extractor([dataset.image(name)]) for name in way.supports]
            support = {level: torch.stack([shot[level] for shot in shots], dim=1) for level in query}
            side = query["high"].shape[-1]
            shares = [cells(dataset.binary_mask(name, way.class_id), side, corners) for name in way.supports]
            truth = dataset.binary_mask(item.episode.query, way.class_id)
            large = enlarge(head(query, support, torch.stack(shares)[None]), truth.shape, corners)[0]
            _intersections_and_unions((large[1] > large[0]).numpy(), truth)
        return {"episodes": len(unit.payload)}


def _intersections_and_unions(yes: np.ndarray, truth: np.ndarray) -> list[int]:
    thing, other = truth == 1, truth == 0
    return [int(part.sum()) for part in (yes & thing, (yes & other) | thing, ~yes & other, (~yes & thing) | other)]


@dataclasses.dataclass(frozen=True)
class HeadAlone:
    """Seconds an episode of the head's forward pass, in batches of features that lie ready."""

    data: DataSpec
    entry: MeasuredModel
    cache: Cache
    batch: int = 16

    @torch.inference_mode()
    def __call__(self, unit: Unit) -> float:
        """`unit.payload` is a tuple of items; the best of three passes over them."""
        head, source = self.entry.load(), photos(self.data, self.entry.spec, self.cache)
        batches = []
        for start in range(0, len(unit.payload), self.batch):
            episodes = [item.episode for item in unit.payload[start : start + self.batch]]
            query = stack([source.features(e.query) for e in episodes], source.device)
            ways = [e.ways[0] for e in episodes]
            support = stack_shots([[source.features(n) for n in w.supports] for w in ways], source.device)
            masks = torch.stack([torch.stack([source.support(n, w.class_id) for n in w.supports]) for w in ways])
            batches.append((query, support, masks))
        seconds = []
        for _ in range(3):
            start_time = time.perf_counter()
            for batch in batches:
                head(*batch)
            seconds.append(time.perf_counter() - start_time)
        return min(seconds) / len(unit.payload)


def items(data: DataSpec, count: int, min_area: int) -> list[Item]:
    """`count` one-shot episodes over all folds."""
    dataset = data.open()
    pixels = {name: areas(dataset, name) for name in dataset.names}
    return [
        Item(fold, 1, 1, 0, episode)
        for fold, classes in enumerate(dataset.folds)
        for episode in draw(
            pool(pixels, classes, EpisodeRules(min_area=min_area)), count=count // len(dataset.folds), seed=0
        )
    ]


class Bench:
    """All measurements of one number of workers."""

    def __init__(self, arguments: argparse.Namespace, data: DataSpec, chosen: list[Item], workers: int):
        self.data, self.items, self.workers = data, chosen, workers
        self.few = chosen[:: max(1, len(chosen) // arguments.field_episodes)]
        self.folder = Path(tempfile.mkdtemp(prefix="bench-evaluate-"))
        self.side = arguments.size
        self.pool = Pool(ClusterConfig(workers=workers))

    def close(self) -> None:
        """End the workers and remove what they wrote."""
        self.pool.__exit__()
        shutil.rmtree(self.folder)

    def measure(self, entry: MeasuredModel) -> dict[str, Any]:
        """Episodes a second of the three ways, and the head's own milliseconds."""
        cache = Cache(str(self.folder / f"features-{entry.head}"), 1 << 40, 4 << 30)
        field = FieldsWay(self.data, entry)
        self.pool.on_each(field, [Unit("start", tuple(self.items[:2]))] * self.workers)
        slow = len(self.few) / self._timed(lambda: self._map(field, self._even(self.few)))
        ours = RunBlock(self.data, (entry,), cache, self.side, save_predictions=False, flat=False)
        cold = len(self.items) / self._timed(lambda: self._cold(entry, cache, ours))
        warm = max(len(self.items) / self._timed(lambda: self._run(ours)) for _ in range(3))
        (alone,) = self.pool.on_each(HeadAlone(self.data, entry, cache), [Unit("head", tuple(self.items[:32]))])
        return {
            "model": entry.label,
            "workers": self.workers,
            "field": slow,
            "cold": cold,
            "warm": warm,
            "cold_ratio": cold / slow,
            "warm_ratio": warm / slow,
            "head_ms": 1e3 * alone,
            "warm_over_head": self.workers / (warm * alone),
        }

    def _cold(self, entry: MeasuredModel, cache: Cache, ours: RunBlock) -> None:
        self._map(Prepare(self.data, (entry.spec,), cache), image_units("features", image_names(self.items)))
        self._run(ours)

    def _run(self, ours: RunBlock) -> None:
        self._map(Publisher(ours, self.folder), list(blocks(self.items)))

    def _even(self, chosen: Sequence[Item]) -> list[Unit]:
        return [Unit(f"part{i}", tuple(chosen[i :: self.workers])) for i in range(self.workers)]

    def _map(self, function: Callable[[Unit], Any], units: Sequence[Unit]) -> None:
        for _, result in self.pool.map(function, units):
            if isinstance(result, Failure):
                raise SystemExit(f"benchmark failed: {result.message}")

    @staticmethod
    def _timed(work: Callable[[], None]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


def fitted(entry: MeasuredModel, data: DataSpec, folder: Path) -> MeasuredModel:
    """The entry with its head fitted on the data set's images, if it needs that."""
    head = entry.load()
    if not isinstance(head, Fits):
        return entry
    cache = Cache(str(folder), 1 << 40, 1 << 30)
    output = Describe(data, entry, cache)(Unit("describe", data.open().names))
    (rows,) = output.files.values()
    head.fit(np.load(io.BytesIO(rows)), 0)
    path = folder / "fitted.safetensors"
    path.write_bytes(save({name: value.contiguous() for name, value in head.state_dict().items()}))
    return dataclasses.replace(entry, weights=str(path))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    lines = [
        "| model | workers | field's way [episodes/s] | cold | warm | cold / field | warm / field | head alone [ms] "
        "| warm / head |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        speeds = " | ".join(f"{row[key]:.1f}" for key in ("field", "cold", "warm"))
        ratios = " | ".join(f"{row[key]:.1f}" for key in ("cold_ratio", "warm_ratio"))
        lines.append(
            f"| {row['model']} | {row['workers']} | {speeds} | {ratios} | {row['head_ms']:.2f} "
            f"| {row['warm_over_head']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder in PASCAL VOC's layout")
    parser.add_argument("--weights", required=True, help="MobileNetV2's weights, or random")
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--field-episodes", type=int, default=60, help="of them, run the field's way")
    parser.add_argument("--min-area", type=int, default=2048)
    parser.add_argument("--models", nargs="+", default=list(heads.names()))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", help="file for the measurements")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = DataSpec("pascal5i", str(Path(arguments.root).resolve()), None)
    spec = BackboneSpec("mobilenet_v2", arguments.weights, 16, arguments.size, 0)
    chosen = items(data, arguments.episodes, arguments.min_area)
    rows = []
    with session(ClusterConfig()), tempfile.TemporaryDirectory() as folder:
        entries = [MeasuredModel(heads.training_free().get(name, name), spec, name) for name in arguments.models]
        entries = [fitted(entry, data, Path(folder)) for entry in entries]
        for workers in arguments.workers:
            bench = Bench(arguments, data, chosen, workers)
            for entry in entries:
                rows.append(bench.measure(entry))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
            bench.close()
    images = len(image_names(chosen))
    print(
        f"\n{len(chosen)} one-shot episodes over {images} images, MobileNetV2 at {arguments.size} px\n\n{table(rows)}"
    )
    if arguments.json:
        about = {"episodes": len(chosen), "images": images, "size": arguments.size, "rows": rows}
        Path(arguments.json).write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
