"""CPU milliseconds of a query with 5 supports, as `Segmenter` and `jobs.predict` answer it: one thread, medians.

    python -m benchmarks.predict --root VOC2012 [--list FILE] --weights FILE [--heads smoothed umtfss] [--queries 20]

`prepare` is for the supports together, all else for one query: the backbone alone, all of the answer (with what the
head does and enlarging), borders along the photo's (`edges`), and the files. Heads are as they are before training,
which takes no other time. Photos have their own sizes, 500 pixels mostly.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from cluster.config.predict import PredictConfig
from cluster.serving import answers
from fss import backbones, heads
from fss.backbones.extractor import Extractor
from fss.datasets import Dataset, open_dataset
from fss.segmenter import edges
from fss.segmenter.thing import Answer, Thing

_SHOTS = 5
Row = dict[str, float]


def milliseconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    begin = time.process_time()
    work()
    return 1000 * (time.process_time() - begin)


def query(thing: Thing, image: Image.Image, out: Path) -> Row:
    """What one query costs, by part."""
    made: list[Answer] = []
    row = {"backbone": milliseconds(lambda: thing.extractor([image]))}
    row["answer"] = milliseconds(lambda: made.append(thing.answer(image)))
    row["edges"] = milliseconds(lambda: edges.sharpened(image, made[0].probabilities))
    plain = PredictConfig(edges=False)
    row["files"] = milliseconds(lambda: answers.write(out, Path("query.jpg"), image, made[0], plain))
    return row


def measure(name: str, extractor: Extractor, dataset: Dataset, queries: int) -> Row:
    """The medians of one head."""
    backbone = extractor.backbone
    head = heads.build(name, {}, backbone.channels, corners=backbone.corners).eval()
    shown, asked = dataset.names[:_SHOTS], dataset.names[_SHOTS : _SHOTS + queries]
    pairs = [(dataset.image(name), _mask(dataset, name)) for name in shown]
    Thing.of(head, extractor, pairs)  # first calls choose kernels
    things: list[Thing] = []
    row = {"prepare": milliseconds(lambda: things.append(Thing.of(head, extractor, pairs)))}
    with tempfile.TemporaryDirectory() as folder:
        rows = [query(things[0], dataset.image(name), Path(folder)) for name in asked]
    return row | {part: statistics.median(one[part] for one in rows) for part in rows[0]}


def _mask(dataset: Dataset, name: str) -> torch.Tensor:
    labels = dataset.mask(name)
    return torch.from_numpy((labels == max(set(labels[labels < 255].ravel().tolist()))).astype("uint8"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder in PASCAL VOC's layout")
    parser.add_argument("--list", default=None)
    parser.add_argument("--weights", required=True, help="MobileNetV2's weights")
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--heads", nargs="+", default=["smoothed", "umtfss"])
    parser.add_argument("--queries", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    extractor = Extractor(backbones.build("mobilenet_v2", given.weights), given.size)
    dataset = open_dataset("pascal5i", given.root, given.list)
    parts = ["prepare", "backbone", "answer", "edges", "files"]
    print(f"| head | {' | '.join(parts)} |\n|---|{'---:|' * len(parts)}")
    for name in given.heads:
        row = measure(name, extractor, dataset, given.queries)
        print(f"| {name} | {' | '.join(f'{row[part]:.0f}' for part in parts)} |", flush=True)


if __name__ == "__main__":
    main()
