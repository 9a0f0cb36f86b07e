"""What refined masks do to the final mIoU, on a dev part of the train photos: validation lists stay untouched.

    python -m benchmarks.refine --root voc2012 --weights FILE [--rounds 0 1 2] [--seeds 0 1] [--json FILE]

One process, the library alone. The train list is divided by a hash of its names: the first part is unlabelled, and of
the rest the class masks are read for episodes. For each number of rounds masks are refined, voted on, clustered and
paired, half of the tasks on segments inside; a short meta-training of one head follows, for each seed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learning import Corpus, Course, Exam, choose, meta_train, network
from benchmarks.pseudo_tasks import HEAD, Labelled, Variant, make_tasks
from fss import grid, heads
from fss.heads.parts.head import Head
from fss.imaging import images
from fss.labelling import pseudo
from fss.labelling.refine import Keys, consensus
from fss.labelling.refine.layers import layers
from fss.labelling.refine.sharpen import sharpen
from fss.tasks.pairing import cross_image

LEVELS = ("mid", "high")
#: Its maps are at the images' own size.
PIXELS = Variant(
    "refined", pseudo.EmbeddingOptions("superpixel", "pixels"), rules=cross_image.Keys(tasks_per_image=6, inside=0.5)
)


def label(corpus: Corpus, keys: Keys) -> dict[str, Labelled]:
    """Every image's label maps in its own size, and its regions; of those whose mask fits."""
    fields = {key: corpus.field(key, LEVELS) for key in corpus.jpegs}
    masks = consensus.refine(list(fields.values()), keys)
    pixels: dict[str, np.ndarray] = {}
    cells: dict[str, np.ndarray] = {}
    for (key, field), soft in zip(fields.items(), masks, strict=True):
        if soft is not None:
            mask = sharpen(images.decode(corpus.jpegs[key]), soft, corpus.corners)
            coarse = (grid.cells(mask.astype(np.uint8), field.shape[1], corpus.corners)[1] >= 0.5).numpy()
            if consensus.fits(coarse, keys):
                pixels[key], cells[key] = mask, coarse
    maps = layers(list(cells.values()), [fields[key] for key in cells], keys, seed=corpus.seed)
    return {
        key: Labelled(_enlarged(coarse, pixels[key], corpus.corners), regions)
        for key, (coarse, regions) in zip(cells, maps, strict=True)
    }


def _enlarged(maps: np.ndarray, mask: np.ndarray, corners: bool) -> np.ndarray:
    """(1 + L, h, w) maps at the pixels of the (H, W) mask, which takes the place of layer 0."""
    size = (mask.shape[0], mask.shape[1])
    return np.stack([mask * maps[0].max(), *(grid.enlarge_labels(layer, size, corners) for layer in maps[1:])])


def measure(exam: Exam, head: Head) -> dict[str, float]:
    """mIoU in percent with one and with five shots."""
    return {f"miou_{shots}": exam(head, shots)["miou"] for shots in (1, 5)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder in PASCAL VOC's layout")
    parser.add_argument("--weights", required=True, help="MobileNetV2's weights")
    parser.add_argument("--unlabelled", type=int, default=900)
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--rounds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=250, help="of each fold")
    parser.add_argument("--json", help="file for the measurements, rewritten after every row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(options.root)
    extractor = network(options.weights, options.size, "zeros")
    names = choose(root, 10**9, 0)
    unlabelled, dev = names[: options.unlabelled], names[options.unlabelled :]
    exam = Exam(root, extractor, options.episodes, names=dev)
    corpus = Corpus(root / "JPEGImages", unlabelled, extractor, 0, 2)
    channels = extractor.backbone.channels
    rows: list[dict[str, Any]] = []

    def add(**row: Any) -> None:
        rows.append(row)
        print(row, flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps({"options": vars(options), "rows": rows}, indent=2) + "\n")

    add(name="smoothed read-out", **measure(exam, heads.build("smoothed", {}, channels, corners=True).eval()))
    for rounds in options.rounds:
        start = time.perf_counter()
        labelled = label(corpus, Keys(rounds=rounds))
        made, about = make_tasks(corpus, PIXELS, labelled)
        seconds = time.perf_counter() - start
        for seed in options.seeds:
            fresh = heads.build("correlation", HEAD, channels, corners=True, seed=seed)
            head = meta_train(corpus, made, fresh, Course(options.steps), seed)
            figures = measure(exam, head)
            add(name=f"{rounds} rounds", seed=seed, masks=len(labelled), **about, seconds=seconds, **figures)


if __name__ == "__main__":
    main()
