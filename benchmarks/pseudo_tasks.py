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
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning import Corpus, Course, Exam, choose, meta_train, network
from fss import heads, rng
from fss.clustering import kmeans
from fss.imaging import images
from fss.labelling import pseudo
from fss.tasks import task
from fss.tasks.pairing import cross_image
from fss.tasks.pairing.parts import pairs

HEAD = {"dim": 48, "residual": "smoothed"}


@dataclasses.dataclass(frozen=True)
class Variant:
    """A row of the table."""

    name: str
    recipe: pseudo.EmbeddingOptions
    clusters: int = 40
    rules: cross_image.Keys = dataclasses.field(default_factory=cross_image.Keys)


_INNER = cross_image.Keys(keep_clusters=0.5, max_border=0.25, same_image=0.2)
VARIANTS = (
    Variant("ncut 2,3,5", pseudo.EmbeddingOptions("ncut", "segments", (2, 3, 5))),
    Variant("ncut 2,3,5; inner half", pseudo.EmbeddingOptions("ncut", "segments", (2, 3, 5)), rules=_INNER),
    Variant("superpixels vote", pseudo.EmbeddingOptions("superpixel", "pixels")),
    Variant("agglomerate 2,3,5", pseudo.EmbeddingOptions("agglomerate", "segments", (2, 3, 5))),
    Variant("pixels", pseudo.EmbeddingOptions("none", "pixels")),
    Variant("ncut 3,5,8", pseudo.EmbeddingOptions("ncut", "segments", (3, 5, 8))),
    Variant("ncut 8", pseudo.EmbeddingOptions("ncut", "segments", (8,))),
    Variant("ncut 3", pseudo.EmbeddingOptions("ncut", "segments", (3,))),
    Variant("ncut 2,3,5, pixels vote", pseudo.EmbeddingOptions("ncut", "pixels", (2, 3, 5))),
    Variant("ncut 5", pseudo.EmbeddingOptions("ncut", "segments", (5,))),
    Variant("superpixels pooled", pseudo.EmbeddingOptions("superpixel", "segments")),
    Variant("ncut 2", pseudo.EmbeddingOptions("ncut", "segments", (2,))),
    Variant("ncut 5,8,12; inner half", pseudo.EmbeddingOptions("ncut", "segments", (5, 8, 12)), rules=_INNER),
    Variant(
        "agglomerate 2,3,5; inner half", pseudo.EmbeddingOptions("agglomerate", "segments", (2, 3, 5)), rules=_INNER
    ),
    Variant("agglomerate 3,5,8", pseudo.EmbeddingOptions("agglomerate", "segments", (3, 5, 8))),
)


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
    clusters, labelled = find_clusters(corpus, variant), {}
    for key in corpus.jpegs:
        field, cut = corpus.cut(key, variant.recipe)
        ((maps, cells),) = pseudo.label_maps(field[None], [cut], clusters, variant.recipe, corpus.corners)
        labelled[key] = Labelled(maps, pseudo.regions(cells, field))
    return labelled


def make_tasks(
    corpus: Corpus, variant: Variant, labelled: Mapping[str, Labelled] | None = None, shots: int = 1
) -> tuple[list[task.Task], dict[str, float]]:
    """The pseudo-tasks of a recipe, with `shots` supports each, and what they look like."""
    labelled = label(corpus, variant) if labelled is None else labelled
    rules = dataclasses.replace(variant.rules, shots=shots)
    table = region_table({key: each.regions for key, each in labelled.items()})
    usable = pairs.usable(table, rules)
    made = []
    for pairing in cross_image.draw(table, rules, seed=corpus.seed):
        chosen = (pairing.query, *pairing.supports)
        keys = tuple(str(table.key[row]) for row in chosen)
        masks = [
            images.encode_png(
                (corpus.enlarge(key, labelled[key].maps[table.layer[row]], variant.recipe) == table.label[row])
                * np.uint8(1)
            )
            for key, row in zip(keys, chosen, strict=True)
        ]
        made.append(task.Task(keys, tuple(corpus.jpegs[key] for key in keys), tuple(masks)))
    regions = float(usable.sum()) / len(labelled)
    return made, {"regions": regions, "area": float(np.median(table.area[usable])), "tasks": len(made)}


def region_table(found: Mapping[str, Sequence[pseudo.Region]]) -> pairs.RegionTable:
    """The regions of images as pairing takes them."""
    columns = defaultdict(list)
    for key, regions in found.items():
        for region in regions:
            columns["key"].append(key)
            for name, value in vars(region).items():
                columns[name].append(value)
    return pairs.RegionTable(**{name: np.array(values) for name, values in columns.items()})


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
    extractor = network(options.weights, options.size, options.padding)
    exam = Exam(root, extractor, options.episodes)
    chosen = choose(root, options.images, options.seed)
    corpus = Corpus(root / "JPEGImages", chosen, extractor, options.seed, options.views)
    course = Course(options.steps, options.batch)
    rows: list[dict[str, Any]] = []
    for name in ("prototype", "smoothed"):
        start = time.perf_counter()
        head = heads.build(name, {}, extractor.backbone.channels, corners=extractor.backbone.corners).eval()
        rows.append({"name": heads.training_free()[name], **exam(head)})
        rows[-1]["seconds"] = time.perf_counter() - start
        print(table(rows).splitlines()[-1], flush=True)
    for variant in VARIANTS:
        if options.only and variant.name not in options.only:
            continue
        start = time.perf_counter()
        made, about = make_tasks(corpus, variant)
        start_head = heads.build("correlation", HEAD, extractor.backbone.channels, corners=True, seed=options.seed)
        head = meta_train(corpus, made, start_head, course, options.seed)
        row = {"name": variant.name, **about, **exam(head)}
        rows.append({**row, "seconds": time.perf_counter() - start})
        print(table(rows).splitlines()[-1], flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps({"options": vars(options), "rows": rows}, indent=2) + "\n")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
