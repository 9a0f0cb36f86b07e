"""What each segment step and granularity does to the final mIoU: the same images, head, steps and episodes for all.

    python -m benchmarks.pseudo_tasks --root voc2012 --weights FILE --json FILE

One process, the library alone: features of fixed views once; then for each recipe segments, k-means, pairing, and a
short meta-training of one head from the same start; measured on the same one-shot episodes of the labelled images.
Schedules are shorter than a real run's, so compare rows, not with other tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fss import backbones, episodes, evaluation, losses, models, pseudo, rng, tasks, views
from fss.bank import FeatureBank, batch_features, inputs
from fss.clustering import kmeans
from fss.datasets import Dataset, areas, open_dataset
from fss.evaluation import Photos
from fss.extract import Extractor
from fss.imaging import images
from fss.meta import MetaModule
from fss.models.head import Head
from fss.pairing import pairs
from fss.pairing.rules import Rules
from fss.store import FeatureStore, Memory

LOSS_CELLS = 65


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row of the table."""

    name: str
    recipe: pseudo.Recipe
    clusters: int = 40
    rules: Rules = dataclasses.field(default_factory=Rules)


_INNER = Rules(keep_clusters=0.5, max_border=0.25, same_image=0.2)
VARIANTS = (
    Variant("ncut 2,3,5", pseudo.Recipe("ncut", "segments", (2, 3, 5))),
    Variant("ncut 2,3,5; inner half", pseudo.Recipe("ncut", "segments", (2, 3, 5)), rules=_INNER),
    Variant("superpixels vote", pseudo.Recipe("superpixel", "pixels")),
    Variant("agglomerate 2,3,5", pseudo.Recipe("agglomerate", "segments", (2, 3, 5))),
    Variant("pixels", pseudo.Recipe("none", "pixels")),
    Variant("ncut 3,5,8", pseudo.Recipe("ncut", "segments", (3, 5, 8))),
    Variant("ncut 8", pseudo.Recipe("ncut", "segments", (8,))),
    Variant("ncut 3", pseudo.Recipe("ncut", "segments", (3,))),
    Variant("ncut 2,3,5, pixels vote", pseudo.Recipe("ncut", "pixels", (2, 3, 5))),
    Variant("ncut 5", pseudo.Recipe("ncut", "segments", (5,))),
    Variant("superpixels pooled", pseudo.Recipe("superpixel", "segments")),
    Variant("ncut 2", pseudo.Recipe("ncut", "segments", (2,))),
    Variant("ncut 5,8,12; inner half", pseudo.Recipe("ncut", "segments", (5, 8, 12)), rules=_INNER),
    Variant("agglomerate 2,3,5; inner half", pseudo.Recipe("agglomerate", "segments", (2, 3, 5)), rules=_INNER),
    Variant("agglomerate 3,5,8", pseudo.Recipe("agglomerate", "segments", (3, 5, 8))),
)


class Corpus:
    """The unlabelled images: bytes, features of their fixed views, and the embeddings that are cut up."""

    def __init__(self, folder: Path, names: Sequence[str], extractor: Extractor, seed: int, num_views: int):
        self.jpegs = {name.lower(): (folder / f"{name}.jpg").read_bytes() for name in names}
        self.bank = FeatureBank(extractor, 8 << 30)
        self.seed, self.num_views = seed, num_views
        for key, jpeg in self.jpegs.items():
            width, height = images.upright_size(jpeg)
            chosen = [views.draw(seed, key, number, views.Augment(), (height, width)) for number in range(num_views)]
            self.bank.get({(key, view): inputs(jpeg, view, extractor.size) for view in chosen})

    @property
    def corners(self) -> bool:
        """The geometry of the grid."""
        return self.bank.extractor.backbone.corners

    def cut(self, key: str, recipe: pseudo.Recipe) -> tuple[torch.Tensor, np.ndarray]:
        """The image's (h, w, D) embeddings, and its superpixels where the recipe wants them."""
        superpixel = recipe.segments == "superpixel"
        return self.field(key, recipe.levels), pseudo.cut_up(
            images.decode(self.jpegs[key]), recipe
        ) if superpixel else None

    def enlarge(self, key: str, labels: np.ndarray, recipe: pseudo.Recipe) -> np.ndarray:
        """One layer of labels at the image's own size."""
        size = images.upright_size(self.jpegs[key])[::-1]
        return pseudo.enlarge(labels[None], size, recipe, self.corners)[0]

    def field(self, key: str, levels: Sequence[str]) -> torch.Tensor:
        """(h, w, D) embeddings of the image as it is."""
        name = (key, views.View())
        features = {level: values.float() for level, values in self.bank.get({name: None})[name].items()}
        return pseudo.tokens(features, levels)


@dataclasses.dataclass
class Labelled:
    """One image under a recipe: its label maps, of cells or pixels, and its regions."""

    maps: np.ndarray
    regions: list[pseudo.Region]


def find_clusters(corpus: Corpus, variant: Variant) -> pseudo.Clusters:
    """k-means of what the recipe takes of each image."""
    recipe, parts = variant.recipe, []
    for key in corpus.jpegs:
        field, cut = corpus.cut(key, recipe)
        generator = rng.numpy_rng(corpus.seed, "sample", key)
        parts += pseudo.embeddings(field[None], [cut], recipe, [generator], corpus.corners)
    rows = np.concatenate(parts)
    centre = rows.mean(axis=0, dtype=np.float64)
    points = pseudo.centred(rows, centre)
    centroids, _ = kmeans.fit(points, variant.clusters, seed=corpus.seed, iterations=30, spherical=True)
    return pseudo.Clusters(centroids, centre.astype(np.float32))


def label(corpus: Corpus, variant: Variant) -> dict[str, Labelled]:
    """Every image's label maps and regions."""
    clusters, found = find_clusters(corpus, variant), {}
    for key in corpus.jpegs:
        field, cut = corpus.cut(key, variant.recipe)
        ((maps, cells),) = pseudo.label_maps(field[None], [cut], clusters, variant.recipe, corpus.corners)
        found[key] = Labelled(maps, pseudo.regions(cells, field))
    return found


def make_tasks(corpus: Corpus, variant: Variant) -> tuple[list[tasks.Task], dict[str, float]]:
    """The pseudo-tasks of a recipe, and what they look like."""
    labelled = label(corpus, variant)
    table = _table({key: each.regions for key, each in labelled.items()})
    usable = pairs.usable(table, variant.rules)
    made = []
    for pairing in pairs.draw(table, variant.rules, seed=corpus.seed):
        chosen = (pairing.query, *pairing.supports)
        keys = tuple(str(table.key[row]) for row in chosen)
        masks = [
            images.encode_png(
                (corpus.enlarge(key, labelled[key].maps[table.layer[row]], variant.recipe) == table.label[row])
                * np.uint8(1)
            )
            for key, row in zip(keys, chosen, strict=True)
        ]
        made.append(tasks.Task(keys, tuple(corpus.jpegs[key] for key in keys), tuple(masks)))
    regions = float(usable.sum()) / len(labelled)
    return made, {"regions": regions, "area": float(np.median(table.area[usable])), "tasks": len(made)}


def _table(found: dict[str, list[pseudo.Region]]) -> pairs.Table:
    columns = defaultdict(list)
    for key, regions in found.items():
        for region in regions:
            columns["key"].append(key)
            for name, value in vars(region).items():
                columns[name].append(value)
    return pairs.Table(**{name: np.array(values) for name, values in columns.items()})


def meta_train(corpus: Corpus, made: Sequence[tasks.Task], options: argparse.Namespace) -> tuple[Head, float]:
    """The head after `options.steps` steps, and the mean area ratio on training tasks of the last quarter."""
    extractor = corpus.bank.extractor
    torch.manual_seed(corpus.seed)
    head = models.build("correlation", extractor.backbone.channels, seed=corpus.seed, dim=48, residual=True)
    module = MetaModule(head, losses.by_name("cross_entropy_dice"), extractor.backbone.corners)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = tasks.Schedule((len(made),), corpus.seed)
    layout = tasks.Layout(LOSS_CELLS, extractor.grid, extractor.backbone.corners, extractor.size)
    data = tasks.Batches(schedule, lambda *_: made, options.batch, corpus.seed, corpus.num_views, layout)
    average = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98))
    ratios = []
    for step in range(options.steps):
        batch = data[step]
        query, support = batch_features(corpus.bank, batch)
        figures = module(query, support, batch.support, batch.truth)
        warm = min(1.0, (step + 1) / 30)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * warm * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        optimizer.zero_grad()
        figures["loss"].backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(module)
        ratios.append(float(figures["area_ratio"]))
    return average.module.head.eval(), float(np.mean(ratios[-options.steps // 4 :]))


def measure(head: Head, photos: Photos, dataset: Dataset, options: argparse.Namespace) -> dict[str, float]:
    """mIoU, FB-IoU and predicted over true area, in percent, of one-shot episodes of all folds."""
    found = {name: areas(dataset, name) for name in dataset.names}
    fold_ious, fb, predicted, true = [], np.zeros(4, np.int64), 0, 0
    for classes in dataset.folds:
        per_class: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(2, np.int64))
        chosen = episodes.draw(
            episodes.pool(found, classes, episodes.Rules(min_area=2048)), count=options.episodes, seed=0
        )
        for result in evaluation.run(head, photos, chosen, side=options.size):
            (c,) = result.counts
            per_class[result.episode.ways[0].class_id] += (c.intersection, c.union)
            fb += (c.intersection, c.union, c.background_intersection, c.background_union)
            predicted, true = predicted + c.predicted, true + c.true
        fold_ious.append(np.mean([i / u for i, u in per_class.values()]))
    fb_iou = (fb[0] / fb[1] + fb[2] / fb[3]) / 2
    return {"miou": 100 * float(np.mean(fold_ious)), "fb_iou": 100 * float(fb_iou), "area_ratio": predicted / true}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    lines = [
        "| pseudo-tasks | regions an image | median area | mIoU | FB-IoU | area | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        about = f"{row['regions']:.1f} | {row['area']:.2f}" if "regions" in row else "|"
        lines.append(
            f"| {row['name']} | {about} | {row['miou']:.1f} | {row['fb_iou']:.1f} | {row['area_ratio']:.2f} "
            f"| {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder in PASCAL VOC's layout")
    parser.add_argument("--weights", required=True, help="MobileNetV2's weights")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--padding", default="reflect", help="of the backbone's convolutions")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=250, help="of each fold")
    parser.add_argument("--only", nargs="+", help="names of rows; all by default")
    parser.add_argument("--json", help="file for the measurements, rewritten after every row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(options.root)
    names = (root / "ImageSets/Segmentation/train.txt").read_text().split()
    chosen = sorted(names, key=lambda name: rng.mix(options.seed, "which", name))[: options.images]
    network = backbones.build("mobilenet_v2", options.weights, stride=16, padding=options.padding)
    extractor = Extractor(network, options.size)
    dataset = open_dataset("pascal5i", str(root), None)
    features = tempfile.TemporaryDirectory()
    photos = Photos(dataset, extractor, FeatureStore(Path(features.name), 8 << 30), Memory(1 << 30))
    corpus = Corpus(root / "JPEGImages", chosen, extractor, options.seed, options.views)
    rows: list[dict[str, Any]] = []
    for name in ("prototype", "smoothed"):
        start = time.perf_counter()
        head = models.build(name, extractor.backbone.channels).eval()
        rows.append({"name": models.TRAINING_FREE[name], **measure(head, photos, dataset, options)})
        rows[-1]["seconds"] = time.perf_counter() - start
        print(table(rows).splitlines()[-1], flush=True)
    for variant in VARIANTS:
        if options.only and variant.name not in options.only:
            continue
        start = time.perf_counter()
        made, about = make_tasks(corpus, variant)
        head, _ = meta_train(corpus, made, options)
        row = {"name": variant.name, **about, **measure(head, photos, dataset, options)}
        rows.append({**row, "seconds": time.perf_counter() - start})
        print(table(rows).splitlines()[-1], flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps({"options": vars(options), "rows": rows}, indent=2) + "\n")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
