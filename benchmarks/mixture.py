"""Which mixture of pseudo-tasks teaches a head best: regions paired across images, halves of salient regions, or both.

    python -m benchmarks.mixture --root voc2012 --weights FILE [--heads umtfss panet] [--splits 0 0.3 1] [--json FILE]

Every row trains the same head on as many episodes, of which a share are MaskSplit's (salient regions by normalised cut,
split by an upright line with a slope) and the rest UMTFSS's (agglomerated segments, clustered, paired across images),
in the order that train.mix draws them. Otherwise as `benchmarks.meta_train`: the library alone, features of fixed
views, the same one-shot and five-shot episodes for all rows.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.learning import Corpus, Course, Exam, choose, meta_train, network
from benchmarks.pseudo_tasks import VARIANTS, make_tasks, region_table
from fss import heads
from fss.evaluation.cache import FeatureStore
from fss.imaging import images
from fss.labelling.sources import Block, Photo
from fss.labelling.sources.saliency import SaliencyLabeller
from fss.tasks import task
from fss.tasks.mixture import Mixture
from fss.tasks.pairing import mask_split

ROOT = Path(__file__).parents[1]
LEVELS = ("mid", "high")
#: As conf/experiment/masksplit.yaml.
RULES = mask_split.Keys(tasks_per_image=1, min_area=0.0064, max_area=1.0, max_border=1.0, empty_lines=0.0)
SHOTS = (1, 5)


def split_tasks(corpus: Corpus) -> list[task.Task]:
    """MaskSplit's tasks of a corpus: one of each image whose salient region has two halves."""
    maps, regions = {}, {}
    for key, jpeg in corpus.jpegs.items():
        photo = Photo(key, torch.empty(0), images.upright_size(jpeg)[::-1])
        block = Block([photo], corpus.field(key, LEVELS)[None], corpus.corners)
        ((maps[key], regions[key]),) = SaliencyLabeller().maps(block)
    table = region_table(regions)
    tasks = []
    for pairing in mask_split.draw(table, RULES, seed=corpus.seed):
        key = str(table.key[pairing.query])
        masks = mask_split.split(maps[key][0] == 1, RULES.split, pairing.seed)
        if masks is not None:
            jpeg = corpus.jpegs[key]
            tasks.append(task.Task((key, key), (jpeg, jpeg), tuple(images.encode_png(mask) for mask in masks)))
    return tasks


def mixed(parts: Sequence[Sequence[task.Task]], weights: Sequence[int], count: int, seed: int) -> list[task.Task]:
    """The first `count` episodes of a mixture of parts, of which those of weight 0 are left out."""
    used = [(part, weight) for part, weight in zip(parts, weights, strict=True) if weight]
    schedules = tuple(task.Schedule((len(part),), seed) for part, _ in used)
    mixture, tasks = Mixture(schedules, tuple(weight for _, weight in used)), []
    for episode in range(count):
        _, number, position = mixture.locate(episode)
        tasks.append(used[number][0][position])
    return tasks


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    lines = [
        "| head | share of split tasks | seed | mIoU 1-shot | 5-shot | area 1-shot |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        one, five = (row["figures"][str(shots)] for shots in SHOTS)
        lines.append(
            f"| {row['head']} | {row['splits']:g} | {row['seed']} | {one['miou']:.1f} | {five['miou']:.1f} "
            f"| {one['area_ratio']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write after every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder in PASCAL VOC's layout")
    parser.add_argument("--weights", required=True, help="MobileNetV2's weights")
    parser.add_argument("--heads", nargs="+", default=["umtfss", "panet"], help="presets of conf/model")
    parser.add_argument("--splits", type=float, nargs="+", default=[0, 0.2, 0.5, 1], help="shares in thousandths")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, default=1300)
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=125, help="of each fold")
    parser.add_argument("--features", help="folder that keeps the features for the next run")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    extractor = network(given.weights, given.size, "reflect")
    store = FeatureStore(Path(given.features), 16 << 30) if given.features else None
    exam = Exam(given.root, extractor, given.episodes, store)
    corpus = Corpus(given.root / "JPEGImages", choose(given.root, given.images, seed=0), extractor, 0, 2, store)
    pairs, _ = make_tasks(corpus, next(one for one in VARIANTS if one.name == "agglomerate 2,3,5"))
    parts, course, rows = (pairs, split_tasks(corpus)), Course(given.steps), []
    print(f"{len(parts[0])} tasks across images, {len(parts[1])} of halves", flush=True)
    for seed, name, share in itertools.product(given.seeds, given.heads, given.splits):
        preset = yaml.safe_load((ROOT / f"conf/model/{name}.yaml").read_text())
        head = heads.build(preset["name"], preset["options"], extractor.backbone.channels, corners=True, seed=seed)
        weight = round(1000 * share)
        made, start = mixed(parts, (1000 - weight, weight), course.steps * course.batch, seed), time.perf_counter()
        trained = meta_train(corpus, made, head, course, seed)
        figures = {str(shots): exam(trained, shots) for shots in SHOTS}
        seconds = time.perf_counter() - start
        rows.append({"head": name, "splits": share, "seed": seed, "figures": figures, "seconds": seconds})
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        if given.json:
            about = {key: str(value) for key, value in vars(given).items()}
            given.json.write_text(json.dumps({"options": about, "rows": rows}, indent=1) + "\n")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
