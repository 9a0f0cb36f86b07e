"""Meta-learners on the same tasks, steps and episodes: without labels, and fold-wise with 5, 20 and 100 % of them.

    python -m benchmarks.meta_train --root voc2012 --weights FILE --json FILE [--only ROW ...] [--seeds 0 1]

The library alone, no stages: features of two fixed views of every train image once, pseudo-tasks once, then every
row trains its head from scratch (or from the unsupervised head of the same name and seed, which lies in --heads) and is
measured on the same one-shot and five-shot episodes of the val images. A labelled row trains four heads, each on the
classes that its fold does not test. A seed sets first weights and the order of tasks; the tasks are the same.
Schedules are short and the last averaged weights are measured, so compare rows, not with other tables.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from benchmarks.learning import Corpus, Course, Exam, choose, meta_train, network
from benchmarks.pseudo_tasks import VARIANTS, label, make_tasks
from fss import heads
from fss.datasets import Dataset, areas, open_training
from fss.evaluation.cache import FeatureStore
from fss.heads.parts.head import Head
from fss.imaging import images
from fss.tasks import labelled
from fss.tasks import task as tasks

ROOT = Path(__file__).parents[1]
MIN_AREA = 2048
SHOTS = (1, 5)


@dataclasses.dataclass(frozen=True)
class Row:
    """A head, as its preset of conf/model has it but for `changes`, and what it learns from."""

    name: str
    preset: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ratio: float | None = None
    """Share of the labelled images; none = pseudo-tasks."""
    start: str | None = None
    """Unsupervised row whose head training starts from."""
    shots: int = 1
    """Supports of each pseudo-task."""

    def head(self, channels: Mapping[str, int], seed: int) -> Head:
        """The head with its first weights; added to the smoothed read-out where its preset wants a corpus's index."""
        preset = yaml.safe_load((ROOT / f"conf/model/{self.preset}.yaml").read_text())
        options = preset.get("options", {}) | self.changes
        if options.get("residual") in heads.looking_up():
            options["residual"] = "smoothed"
        return heads.build(preset["name"], options, channels, corners=True, seed=seed)


_ALONE = {"residual": "none", "maps": False}


def _labelled(ratio: float) -> tuple[Row, Row]:
    name = f"umtfss, {ratio:.0%} of the labels"
    return Row(name, "umtfss", ratio=ratio), Row(f"{name}, fine-tuned", "umtfss", ratio=ratio, start="umtfss")


FLOORS = (Row("prototype read-out", "prototype"), Row("smoothed read-out", "smoothed"))
UNSUPERVISED = (
    Row("umtfss", "umtfss"),
    Row("umtfss, no residual", "umtfss", _ALONE),
    Row("panet", "panet"),
    Row("pfenet", "pfenet"),
    Row("cyctr", "cyctr"),
    Row("masksplit", "masksplit"),
    Row("pixel_meta", "pixel_meta"),
    Row("sst", "sst"),
    Row("sst, no inner step", "sst", {"step": 0}),
    Row("mining", "mining"),
    Row("mining, without FG", "mining", {"rectify": 0}),
    Row("mining, without BG", "mining", {"background": 0}),
    Row("mining, without Mine", "mining", {"mine": 0}),
    Row("mining, levels mid and high", "mining", {"levels": ["mid", "high"]}),
    Row("umtfss, no residual, vanilla attention", "umtfss", _ALONE | {"attention": "vanilla"}),
    Row("umtfss, residual prototype", "umtfss", {"residual": "prototype", "maps": False}),
    Row("umtfss, residual smoothed", "umtfss", {"maps": False}),
    Row("panet, residual smoothed", "panet", {"residual": "smoothed"}),
    Row("pfenet, residual smoothed", "pfenet", {"residual": "smoothed"}),
    Row("cyctr, residual smoothed", "cyctr", {"residual": "smoothed"}),
    Row("correlation, residual smoothed", "correlation"),
    *(
        Row(f"{name}, residual smoothed", name, {"residual": "smoothed"})
        for name in ("masksplit", "pixel_meta", "sst", "mining")
    ),
    *(
        Row(
            f"umtfss, no residual, {foreground}/{background} prototypes",
            "umtfss",
            _ALONE | {"foreground_prototypes": foreground, "background_prototypes": background},
        )
        for foreground, background in ((50, 100), (5, 10))
    ),
    Row("umtfss, no residual, shots averaged", "umtfss", _ALONE | {"shots": "average"}),
    Row("umtfss, no residual, learned from 5 shots", "umtfss", _ALONE, shots=5),
    Row("umtfss, learned from 5 shots", "umtfss", shots=5),
)
LABELLED = tuple(row for ratio in (1.0, 0.05, 0.2) for row in _labelled(ratio))
ROWS = FLOORS + UNSUPERVISED + LABELLED


class Labels:
    """The labelled train images, as far as a corpus has them."""

    def __init__(self, root: Path, corpus: Corpus):
        self.root, self.corpus = root, corpus
        dataset, _ = self._open(0)
        self.areas = {name: areas(dataset, name) for name in dataset.names if name.lower() in corpus.jpegs}

    def tasks(self, ratio: float, fold: int, count: int, seed: int) -> Sequence[tasks.Task]:
        """`count` one-shot episodes of the classes that `fold` does not test, on a share of the images."""
        dataset, classes = self._open(fold)
        kept = {name: self.areas[name] for name in labelled.subset(list(self.areas), ratio, seed)}
        drawn, _ = labelled.episodes(kept, classes, shots=1, min_area=MIN_AREA, held=0, seed=seed)
        return [self._task(dataset, *drawn.draw(i, i // drawn.count)) for i in range(count)]

    def _open(self, fold: int) -> tuple[Dataset, tuple[int, ...]]:
        return open_training("pascal5i", str(self.root), "ImageSets/Segmentation/train.txt", fold)

    def _task(self, dataset: Dataset, class_id: int, query: str, supports: tuple[str, ...]) -> tasks.Task:
        names = (query, *supports)
        keys = tuple(name.lower() for name in names)
        masks = tuple(images.encode_png(dataset.binary_mask(name, class_id)) for name in names)
        return tasks.Task(keys, tuple(self.corpus.jpegs[key] for key in keys), masks)


class Study:
    """Trains and measures rows; trained unsupervised heads are kept in `heads`, for those that start from them."""

    def __init__(self, options: argparse.Namespace, shots: Sequence[int]):
        root = Path(options.root)
        self.extractor = network(options.weights, options.size, options.padding)
        store = FeatureStore(Path(options.features), 16 << 30) if options.features else None
        self.exam = Exam(root, self.extractor, options.episodes, store)
        names = choose(root, options.images, seed=0)
        self.corpus = Corpus(root / "JPEGImages", names, self.extractor, 0, options.views, store)
        variant = next(one for one in VARIANTS if one.name == options.tasks)
        labels = label(self.corpus, variant)
        self.pseudo = {number: make_tasks(self.corpus, variant, labels, number) for number in shots}
        self.about = {shots: about for shots, (_, about) in self.pseudo.items()}
        self.labels = Labels(root, self.corpus)
        self.course, self.heads = Course(options.steps, options.batch, options.lr), Path(options.heads)

    def head(self, row: Row, seed: int) -> Head:
        """The row's head as training finds it."""
        head = row.head(self.extractor.backbone.channels, seed)
        if row.start is not None:
            head.load_state_dict(load_file(self._file(row.start, seed)))
        return head

    def trained(self, row: Row, seed: int) -> Head | list[Head]:
        """The trained head, or one for each fold where labels were used."""
        if row in FLOORS:
            return self.head(row, seed).eval()
        if row.ratio is None:
            head = meta_train(self.corpus, self.pseudo[row.shots][0], self.head(row, seed), self.course, seed)
            self.heads.mkdir(parents=True, exist_ok=True)
            save_file(head.state_dict(), self._file(row.name, seed))
            return head
        count, trained = self.course.steps * self.course.batch, []
        for fold in range(len(self.exam.dataset.folds)):
            made = self.labels.tasks(row.ratio, fold, count, seed)
            trained.append(meta_train(self.corpus, made, self.head(row, seed), self.course, seed))
        return trained

    def _file(self, name: str, seed: int) -> Path:
        return self.heads / f"{name.replace(' ', '-').replace('/', '-').replace(',', '')}-{seed}.safetensors"

    def measure(self, row: Row, seed: int) -> dict[str, Any]:
        """The row's figures under one seed."""
        begin = time.perf_counter()
        head = self.trained(row, seed)
        trained = time.perf_counter()
        figures = {str(shots): self.exam(head, shots) for shots in SHOTS}
        spent = {"train_seconds": trained - begin, "test_seconds": time.perf_counter() - trained}
        return {"name": row.name, "seed": seed, "figures": figures, **spent}


def jobs(rows: Sequence[Row], options: argparse.Namespace) -> list[tuple[Row, int]]:
    """What is to be measured: rows with their seeds, one seed after the other; floors have nothing to draw."""
    by_name = {row.name: row for row in rows}
    chosen = [by_name[name] for name in options.only or by_name if name in by_name]
    return [(row, seed) for place, seed in enumerate(options.seeds) for row in chosen if not (place and row in FLOORS)]


def known(found: Sequence[Mapping[str, Any]], row: Row, seed: int) -> bool:
    """Whether this was measured before."""
    return any((one["name"], one["seed"]) == (row.name, seed) for one in found)


def measured(study: Study, chosen: Sequence[tuple[Row, int]], processes: int) -> Iterator[dict[str, Any]]:
    """Figures as they come; forked processes of one thread share the features."""
    if processes == 1:
        yield from itertools.starmap(study.measure, chosen)
        return
    _study.append(study)
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(_measure, chosen)


_study: list[Study] = []


def _measure(job: tuple[Row, int]) -> dict[str, Any]:
    return _study[-1].measure(*job)


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """The measurements as Markdown: means over the seeds, plus or minus half the range where there are several."""
    lines = [
        "| head | seeds | mIoU 1-shot | 5-shot | FB-IoU 1-shot | 5-shot | area 1-shot | 5-shot | training [s] |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in found:
        by_name[one["name"]].append(one)
    for name, runs in by_name.items():
        cells = [
            _spread([run["figures"][str(shots)][key] for run in runs], digits)
            for key, digits in (("miou", 1), ("fb_iou", 1), ("area_ratio", 2))
            for shots in SHOTS
        ]
        seconds = min(run["train_seconds"] for run in runs)  # the others waited for the machine
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ±{(max(values) - min(values)) / 2:.{digits}f}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder in PASCAL VOC's layout")
    parser.add_argument("--weights", required=True, help="MobileNetV2's weights")
    parser.add_argument("--images", type=int, default=1300)
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--padding", default="reflect", help="of the backbone's convolutions")
    parser.add_argument("--tasks", default="agglomerate 2,3,5", help="row of benchmarks.pseudo_tasks that makes them")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--episodes", type=int, default=125, help="of each fold")
    parser.add_argument("--only", nargs="+", help="names of rows, in the order wanted; all by default")
    parser.add_argument("--processes", type=int, default=1, help="that measure rows at once, one thread each")
    parser.add_argument("--features", help="folder that keeps the features for the next run")
    parser.add_argument("--heads", default="heads", help="folder for the unsupervised heads")
    parser.add_argument(
        "--json", help="file for the measurements, added to after every row; what it has is not measured again"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    unknown = set(options.only or ()) - {row.name for row in ROWS}
    if unknown:
        raise SystemExit(f"--only: expected names of {[row.name for row in ROWS]}, got {sorted(unknown)}")
    study = Study(options, sorted({row.shots for row in ROWS if not options.only or row.name in options.only}))
    print(f"{study.about}", flush=True)
    kept = Path(options.json) if options.json else None
    rows: list[dict[str, Any]] = json.loads(kept.read_text())["rows"] if kept and kept.is_file() else []
    for chosen in (FLOORS + UNSUPERVISED, LABELLED):  # the latter may start from heads of the former
        for one in measured(study, [job for job in jobs(chosen, options) if not known(rows, *job)], options.processes):
            rows.append(one)
            print(table(rows[-1:]).splitlines()[-1], flush=True)
            if kept:
                about = {"options": vars(options), "tasks": study.about, "rows": rows}
                kept.write_text(json.dumps(about, indent=1) + "\n")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
