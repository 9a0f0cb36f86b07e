"""Which figures that need no labels foretell what tasks teach: rank correlations with the final mIoU over many sources.

    python -m benchmarks.proxies --root voc2012 --weights FILE [--features FOLDER] [--json FILE]

The library alone, as `benchmarks.pseudo_tasks`, whose rows are the sources here. Each is cut up, clustered and paired;
a short meta-training of one head follows, measured on episodes of the other train photos. Beside stand the figures of
tasks that `jobs.quality` prints, with masks and without, and how well held-out tasks are answered before and after.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning import LOSS_CELLS, Corpus, Course, Exam, meta_train
from benchmarks.pseudo_tasks import HEAD, VARIANTS, Labelled, Variant, label, make_tasks, region_table
from benchmarks.threshold import add_photos, photos
from fss import heads
from fss.datasets import Dataset
from fss.heads.parts import losses
from fss.heads.parts.head import Head
from fss.labelling import partners, quality
from fss.tasks import task
from fss.tasks.pairing.parts import pairs
from fss.training.bank import batch_features
from fss.training.step import MetaModule

#: Figures of a source: without masks, and with them.
LABEL_FREE = ("regions", "area", "border", "likeness", "mutual", "before", "after", "gain")
WITH_MASKS = ("object", "inside", "same_class", "clean")
#: Tasks that are not learned from, and how many are answered at once.
HELD, BATCH = 64, 8


def figures_of_tasks(
    corpus: Corpus, variant: Variant, labelled: Mapping[str, Labelled], dataset: Dataset
) -> dict[str, float]:
    """Those of `jobs.quality`, over the usable regions, with the class masks of `dataset`."""
    table = region_table({key: each.regions for key, each in labelled.items()})
    table = table.take(pairs.usable(table, variant.rules))
    fits = partners.ObjectFits.empty(len(table))
    fits.known[:] = True
    for rows in pairs.parts_of(np.arange(len(table)), np.unique(table.key, return_inverse=True)[1]):
        key = str(table.key[rows[0]])
        mask = dataset.mask(key)
        layers = [corpus.enlarge(key, layer, variant.recipe) for layer in labelled[key].maps]
        found = [partners.fit(quality.overlap(layer, mask)) for layer in layers]
        for row in rows:
            fitting = found[table.layer[row]].get(int(table.label[row]), (0, 0.0, 0.0))
            fits.thing[row], fits.iou[row], fits.inside[row] = fitting
    return partners.sum_tasks(vars(table), fits).figures()


def divided(made: Sequence[task.Task]) -> tuple[list[task.Task], list[task.Task]]:
    """The tasks to learn from, and `HELD` others, evenly spaced: no label says which."""
    held = set(np.linspace(0, len(made) - 1, min(HELD, len(made) // 2)).astype(int).tolist())
    return [one for i, one in enumerate(made) if i not in held], [made[i] for i in sorted(held)]


@torch.inference_mode()
def answered(corpus: Corpus, made: Sequence[task.Task], head: Head) -> float:
    """Mean IoU of a head's answers with the masks of these tasks, images as they are."""
    extractor = corpus.bank.extractor
    layout = task.BatchLayout(LOSS_CELLS, extractor.grid, extractor.backbone.corners, extractor.size)
    module = MetaModule(head.eval(), losses.by_name("cross_entropy"), extractor.backbone.corners)
    size = min(BATCH, len(made))
    data = task.Batches(task.Schedule((len(made),), 0), lambda *_: list(made), size, corpus.seed, 1, layout)
    values = []
    for number in range(len(made) // size):
        batch = data[number]
        values.append(float(module(*batch_features(corpus.bank, batch), batch.support, batch.truth)["iou"]))
    return float(np.mean(values))


def measure(corpus: Corpus, exam: Exam, variant: Variant, course: Course, seeds: Sequence[int]) -> dict[str, Any]:
    """A row: figures of the tasks, IoU with held-out tasks before and after learning, mIoU of episodes in percent."""
    labelled = label(corpus, variant)
    made, _ = make_tasks(corpus, variant, labelled)
    learned, held = divided(made)
    channels, scores = corpus.bank.extractor.backbone.channels, []
    for seed in seeds:
        fresh = heads.build("correlation", HEAD, channels, corners=True, seed=seed)
        before = answered(corpus, held, fresh)
        head = meta_train(corpus, learned, fresh, course, seed)
        scores.append((before, answered(corpus, held, head), exam(head)["miou"]))
    before, after, miou = np.mean(scores, axis=0).tolist()
    answers = {"before": before, "after": after, "gain": after - before}
    return {"name": variant.name, **figures_of_tasks(corpus, variant, labelled, exam.dataset), **answers, "miou": miou}


def foretold(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """Each figure with Spearman's rank correlation of it to the mIoU over the rows."""
    from scipy.stats import spearmanr

    miou = [row["miou"] for row in rows]
    for name in (*LABEL_FREE, *WITH_MASKS):
        yield name, float(spearmanr([row[name] for row in rows], miou).statistic)


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows, best first, and below the correlations, as Markdown."""
    names = (*LABEL_FREE, *WITH_MASKS)
    lines = [f"| tasks of | {' | '.join(names)} | mIoU |", "|---|" + "---:|" * (len(names) + 1)]
    for row in sorted(rows, key=lambda one: -one["miou"]):
        cells = [f"{row[name]:.0f}" if name == "regions" else f"{row[name]:.2f}" for name in names]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['miou']:.1f} |")
    if len(rows) > 2:
        cells = [f"{value:+.2f}" for _, value in foretold(rows)]
        lines.append(f"| **rank correlation** | {' | '.join(cells)} | |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write after every source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photos(parser, 300, 100)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", help="names of rows; all by default")
    parser.add_argument("--json", type=Path, help="file for the measurements, rewritten after every source")
    options = parser.parse_args()
    torch.set_num_threads(1)
    exam, corpus = photos(options)
    rows: list[dict[str, Any]] = []
    for variant in VARIANTS:
        if not options.only or variant.name in options.only:
            rows.append(measure(corpus, exam, variant, Course(options.steps), options.seeds))
            print(tables(rows[-1:]).splitlines()[-1], flush=True)
            if options.json:
                options.json.write_text(json.dumps({"options": vars(options), "rows": rows}, default=str) + "\n")
    print("\n" + tables(rows))


if __name__ == "__main__":
    main()
