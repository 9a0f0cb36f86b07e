"""What a GPU makes of each hot path: one table of rates, with their share of the device's own matrix product.

    python -m benchmarks.gpu [--backbones resnet50 mobilenet_v2] [--batches 1 4 16 64] [--heads correlation umtfss]
        [--threads N] [--json FILE]
    python -m benchmarks.gpu --smoke

Scenes are rendered and weights are random, so no file is needed; without a GPU the processor does the same. --smoke
does a little of everything in a minute or two: whether it runs, not how fast.
* `product`: a large square matrix product, the peak that shares are of, by precision;
* `network`: a frozen backbone on ready inputs, by batch; the stages take 16 images at a time on a GPU, see
  `fss.backbones.extractor`;
* `label`: the stage's own function, from a shard's bytes to those it publishes. Its share is that of the images that
  the network takes in the same rounds: far below 1, decoding (more --threads) or what follows the network bounds it;
* `k-means`: nearest centroids of points in the device's memory, FAISS's beside them where it has the device;
* `train`: steps of a head on ready features, forward, backward and AdamW, in episodes;
* `evaluate`: one-shot episodes at two resolutions, cold (no image was seen) and warm (all were).
A share that is low at every batch is bounded by memory or by the launching of kernels; one that grows with the batch,
by the launching alone. Operations are torch's own count.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import label
from benchmarks.meta_train import Row
from fss import backbones
from fss.backbones.extractor import Extractor, device_by_name
from fss.clustering import assign
from fss.datasets import areas, open_dataset
from fss.evaluation import episodes, running
from fss.evaluation.cache import FeatureStore, Memory
from fss.heads.parts import losses
from fss.scenes import scene
from fss.training.step import MetaModule

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    product: int = 16_384
    """Side of the matrices."""
    photo: int = 417
    """Pixels of a side that backbones see; scenes have as many."""
    scenes: int = 240
    episodes: int = 1000
    """Of all folds together."""
    points: int = 10_000_000
    dims: int = 768
    clusters: int = 4096
    blocks: tuple[int, ...] = (4096, 16_384, 65_536, 262_144)
    """Points that a product takes at a time."""
    steps: tuple[int, ...] = (8, 64)
    """Episodes of a training step."""
    rounds: int = 5


SMOKE = Sizes(256, 128, 16, 8, 4096, 32, 16, (1024,), (2,), 1)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A row of the table."""

    path: str
    what: str
    precision: str
    rate: float
    unit: str
    share: float | None = None


class Bench:
    """The device, how much is done on it, and its peaks."""

    def __init__(self, sizes: Sizes, threads: int):
        self.device, self.sizes, self.threads = device_by_name(), sizes, threads
        self.peaks: dict[str, float] = {}
        """Operations a second of the plain product, by precision."""

    def seconds(self, work: Callable[[], Any]) -> float:
        """The median of a call, after one that compiles, allocates and warms up."""
        work()
        return statistics.median(label.seconds(work)[0] for _ in range(self.sizes.rounds))

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Numbers of a normal distribution, the same in every call."""
        generator = torch.Generator(self.device).manual_seed(0)
        return torch.randn(*shape, device=self.device, dtype=dtype, generator=generator)

    def autocast(self, precision: str) -> torch.autocast:
        """Where networks compute in `precision`."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")

    def product(self) -> Iterator[Figure]:
        """The device's peaks, as far as one product reaches them."""
        side = self.sizes.product
        for precision, dtype in PRECISIONS.items():
            square = self.normal(side, side, dtype=dtype)
            self.peaks[precision] = 2 * side**3 / self.seconds(lambda square=square: square @ square)
            yield Figure("product", f"{side}^3", precision, self.peaks[precision] / 1e12, "TFLOP/s", 1.0)

    def network(self, names: Sequence[str], batches: Sequence[int]) -> Iterator[Figure]:
        """Frozen backbones by batch."""
        for name in names:
            extractor = self.extractor(name)
            inputs = self.normal(max(batches), 3, self.sizes.photo, self.sizes.photo)
            net = extractor.backbone.folded(inputs[:1])
            for precision in PRECISIONS:
                for batch in batches:
                    yield self._network(net, inputs[:batch], precision)

    @torch.inference_mode()
    def _network(self, net: backbones.Backbone, inputs: torch.Tensor, precision: str) -> Figure:
        with self.autocast(precision):
            operations = _operations(lambda: net(inputs))
            seconds = self.seconds(lambda: net(inputs))
        share = operations / seconds / self.peaks[precision]
        return Figure("network", f"{net.name}, {len(inputs)}", precision, len(inputs) / seconds, "images/s", share)

    def extractor(self, name: str) -> Extractor:
        """A frozen backbone of random weights on the device."""
        return Extractor(backbones.build(name).to(self.device), self.sizes.photo)

    def label(self, names: Sequence[str], root: Path) -> Iterator[Figure]:
        """The stage's function; of each photo its clusters by pixel and by ncut segments."""
        for name in names:
            for precision in PRECISIONS:
                given = argparse.Namespace(
                    root=root,
                    size=self.sizes.photo,
                    precision=precision,
                    segments=["none", "ncut"],
                    threads=self.threads,
                    rounds=self.sizes.rounds,
                )
                for row in label.rows(given, f"{name}=random:{self.sizes.scenes}"):
                    what = f"{name}, segments {row['segments']}"
                    share = row["backbone"] / row["label"]
                    yield Figure("label", what, precision, 1e3 / row["label"], "images/s", share)

    def kmeans(self) -> Iterator[Figure]:
        """Nearest centroids: `fss.clustering.assign.nearest` by block, and FAISS, which the points travel to."""
        sizes = self.sizes
        work = 2.0 * sizes.dims * sizes.clusters
        for precision, dtype in PRECISIONS.items():
            # float32 is slower: a tenth of the points
            points = self.normal(sizes.points // (10 if precision == "fp32" else 1), sizes.dims, dtype=dtype)
            centroids = self.normal(sizes.clusters, sizes.dims, dtype=dtype)
            for block in sizes.blocks:
                seconds = self.seconds(
                    lambda points=points, centroids=centroids, block=block, precision=precision: assign.nearest(
                        points, centroids, block, precision=precision
                    )
                )
                yield self._assigned(f"blocks of {block}", precision, len(points) / seconds, work)
        if assign.faiss_gpu_works():
            rows, targets = self.normal(sizes.points // 10, sizes.dims).cpu().numpy(), centroids.float().cpu().numpy()
            rate = len(rows) / self.seconds(lambda: assign.assign(rows, targets))
            yield self._assigned("FAISS, with transfer", "fp32", rate, work)

    def _assigned(self, what: str, precision: str, rate: float, work: float) -> Figure:
        return Figure("k-means", what, precision, rate / 1e6, "1e6 points/s", rate * work / self.peaks[precision])

    def train(self, backbone: str, heads: Sequence[str]) -> Iterator[Figure]:
        """Training steps of heads, each as its preset has it."""
        extractor = self.extractor(backbone)
        for name in heads:
            for precision in PRECISIONS:
                for batch in self.sizes.steps:
                    yield self._train(extractor, name, precision, batch)

    def _train(self, extractor: Extractor, name: str, precision: str, batch: int) -> Figure:
        blank = extractor.features(self.normal(1, 3, extractor.size, extractor.size))
        query = {level: self.normal(batch, *values.shape[1:]) for level, values in blank.items()}
        support = {level: values[:, None].flip(0) for level, values in query.items()}
        shares = self.normal(batch, 2, extractor.grid, extractor.grid).softmax(dim=1)
        head = Row(name, name).head(extractor.backbone.channels, 0).to(self.device).train()
        module = MetaModule(head, losses.by_name("cross_entropy_dice"), extractor.backbone.corners)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)

        def step() -> None:
            with self.autocast(precision):
                loss = module(query, support, shares[:, None], shares)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        operations, seconds = _operations(step), self.seconds(step)
        share = operations / seconds / self.peaks[precision]
        return Figure("train", f"{name}, {batch}", precision, batch / seconds, "episodes/s", share)

    def evaluate(self, backbone: str, heads: Sequence[str], root: Path) -> Iterator[Figure]:
        """Episodes of the val scenes: in the first round features are computed, later ones find all they need."""
        dataset = open_dataset("scenes", str(root), None)
        drawn = self._episodes(dataset)
        for name in heads:
            extractor = self.extractor(backbone)
            head = Row(name, name).head(extractor.backbone.channels, 0).to(self.device).eval()
            with tempfile.TemporaryDirectory() as folder:
                store = FeatureStore(Path(folder), 8 << 30)
                photos = running.Photos(dataset, extractor, store, Memory(8 << 30))

                def measured(photos: running.Photos = photos, head: Any = head) -> None:
                    photos.prepare(dataset.names, self.threads)
                    for _ in running.run(head, photos, drawn, self.sizes.photo):
                        pass

                cold = label.seconds(measured)[0]
                warm = statistics.median(label.seconds(measured)[0] for _ in range(self.sizes.rounds))
            yield Figure("evaluate", f"{name}, cold", "fp32", len(drawn) / cold, "episodes/s")
            yield Figure("evaluate", f"{name}, warm", "fp32", len(drawn) / warm, "episodes/s")

    def _episodes(self, dataset: Any) -> list[episodes.Episode]:
        pixels = {name: areas(dataset, name) for name in dataset.names}
        rules = episodes.EpisodeRules(min_area=self.sizes.photo**2 // 100)
        count = max(1, self.sizes.episodes // len(dataset.folds))
        pools = [episodes.pool(pixels, classes, rules) for classes in dataset.folds]
        return sorted((one for pool in pools for one in episodes.draw(pool, count=count, seed=0)), key=_by_query)


def _by_query(episode: episodes.Episode) -> str:
    return episode.query


def _operations(work: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def figures(bench: Bench, given: argparse.Namespace, root: Path) -> Iterator[Figure]:
    """All rows, one after the other."""
    scene.write(root, 2 * bench.sizes.scenes, size=bench.sizes.photo, val=0.5)
    yield from bench.product()
    yield from bench.network(given.backbones, given.batches)
    yield from bench.label(given.backbones, root / "JPEGImages")
    yield from bench.kmeans()
    yield from bench.train(given.backbones[0], given.heads)
    yield from bench.evaluate(given.backbones[0], ["prototype", "smoothed", *given.heads], root)


def main() -> None:
    """Measure, print each row as it comes, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "mobilenet_v2"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--heads", nargs="+", default=["correlation", "panet", "pfenet", "cyctr", "umtfss"])
    parser.add_argument("--threads", type=int, default=4, help="that decode")
    parser.add_argument("--smoke", action="store_true", help="sizes for a processor")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    given = parser.parse_args()
    bench = Bench(SMOKE if given.smoke else Sizes(), given.threads)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "processor"
    print(f"{name}, PyTorch {torch.__version__}\n")
    print("| path | what | precision | rate | unit | share |\n|---|---|---|---:|---|---:|")
    found = []
    with tempfile.TemporaryDirectory() as root:
        for one in figures(bench, given, Path(root)):
            found.append(one)
            share = "" if one.share is None else f"{one.share:.2f}"
            print(f"| {one.path} | {one.what} | {one.precision} | {one.rate:.4g} | {one.unit} | {share} |", flush=True)
    if given.json:
        about = {"device": name, "sizes": dataclasses.asdict(bench.sizes)}
        given.json.write_text(json.dumps(about | {"rows": [dataclasses.asdict(one) for one in found]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
