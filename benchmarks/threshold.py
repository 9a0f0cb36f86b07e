"""What training adds once the threshold is right: trained heads, measured at several thresholds and shares.

    python -m benchmarks.threshold --root voc2012 --weights FILE [--list val] [--features FOLDER] [--json FILE]

The library alone, as `benchmarks.pseudo_tasks`: regions of agglomerate 2, 3, 5 of 900 train photos, or with `--tasks
refined` masks of whole things, paired across images, teach each head, once for each seed and read-out that it is added
to, as experiment=refined adds it. The same head then answers with `model.options.otsu` at several shares, `by_shots` on
and off, and `own` at several weights, on the same episodes of the other 400 train photos, or of the val list. With
`--corpus` photos of another folder teach it. Differences are to the first row, paired, with 95 % intervals; the rows
called untrained are what each read-out is worth before any head learns.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import refine
from benchmarks.learning import Corpus, Course, Exam, Marks, choose, meta_train, network
from benchmarks.pseudo_tasks import Variant, make_tasks
from fss import heads
from fss.evaluation.cache import FeatureStore
from fss.heads.parts.residual import Residual
from fss.heads.smoothed import Options, SmoothedReadout
from fss.labelling import pseudo
from fss.labelling.refine import Keys
from fss.tasks import task
from fss.tasks.pairing import cross_image

ROOT = Path(__file__).parents[1]
SHOTS = (1, 5)
TASKS = ("plain", "refined")


def measure(
    exam: Exam,
    head: Residual | SmoothedReadout,
    shares: Sequence[float],
    owns: Sequence[float],
    by_shots: Sequence[int] = (0, 1),
) -> Iterator[tuple[dict[str, Any], Marks]]:
    """What it did by setting and number of shots; of a read-out only the threshold is set."""
    learned = isinstance(head, Residual)
    for divided, share, own in itertools.product(by_shots if learned else (0,), shares, owns if learned else (0.0,)):
        head.otsu = share
        if isinstance(head, Residual):
            head.by_shots, head.own = bool(divided), own
        for shots in SHOTS:
            yield {"by_shots": bool(divided), "otsu": share, "own": own, "shots": shots}, exam.marks(head, shots)


def make(corpus: Corpus, kind: str, nearest: float) -> Sequence[task.Task]:
    """The tasks: of `plain` regions, or of `refined` masks and the segments inside of them."""
    if kind == "refined":
        return make_tasks(corpus, refine.PIXELS, refine.label(corpus, Keys()))[0]
    recipe = pseudo.EmbeddingOptions("agglomerate", "segments", (2, 3, 5))
    return make_tasks(corpus, Variant("plain", recipe, rules=cross_image.Keys(nearest=nearest)))[0]


def fresh(name: str, residual: str, channels: Mapping[str, int], seed: int) -> Residual:
    """A head as its preset of conf/model has it, added to a read-out as experiment=refined adds it."""
    preset = yaml.safe_load((ROOT / f"conf/model/{name}.yaml").read_text())
    added = yaml.safe_load((ROOT / "conf/experiment/refined.yaml").read_text())["model"]["options"]
    options = preset["options"] | added | {"residual": residual}
    head = heads.build(preset["name"], options, channels, corners=True, seed=seed)
    assert isinstance(head, Residual)
    return head


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    shots = " | ".join(f"mIoU {k}-shot | area | to the first" for k in SHOTS)
    lines = [f"| head | seed | by_shots | otsu | own | {shots} |", "|---|---:|---|---:|---:|" + "---:|---:|---:|" * 2]
    for one, five in zip(rows[::2], rows[1::2], strict=True):
        seed = one.get("seed", "")
        figures = " | ".join(
            f"{row['miou']:.1f} | {row['area_ratio']:.2f} | {_interval(row['difference'])}" for row in (one, five)
        )
        lines.append(f"| {one['name']} | {seed} | {one['by_shots']} | {one['otsu']:g} | {one['own']:g} | {figures} |")
    return "\n".join(lines)


def _interval(values: Sequence[float]) -> str:
    value, low, high = (f"{one:+.1f}" for one in values)
    return f"{value} [{low}, {high}]"


def add_photos(parser: argparse.ArgumentParser, unlabelled: int, episodes: int) -> None:
    """The arguments that `photos` reads, with these numbers by default."""
    parser.add_argument("--root", required=True, help="folder in PASCAL VOC's layout")
    parser.add_argument("--weights", required=True, help="MobileNetV2's weights")
    parser.add_argument("--list", choices=("dev", "val"), default="dev", help="photos of the episodes")
    parser.add_argument("--unlabelled", type=int, default=unlabelled, help="train photos that tasks are made of")
    parser.add_argument("--corpus", type=Path, help="folder of photos that tasks are made of instead")
    parser.add_argument("--episodes", type=int, default=episodes, help="of each fold")
    parser.add_argument("--size", type=int, default=417)
    parser.add_argument("--padding", default="reflect", help="of the backbone's convolutions")
    parser.add_argument("--features", help="folder that keeps the features for the next run")


def photos(options: argparse.Namespace) -> tuple[Exam, Corpus]:
    """The episodes' photos, and those that are learned from: the first of the train list, whose others are dev.

    With `--corpus` all photos of that folder are learned from instead.
    """
    extractor = network(options.weights, options.size, options.padding)
    store = FeatureStore(Path(options.features), 16 << 30) if options.features else None
    root = Path(options.root)
    names = choose(root, 10**9, 0)
    dev = names[options.unlabelled :] if options.list == "dev" else None
    exam = Exam(root, extractor, options.episodes, store, dev)
    folder = options.corpus or root / "JPEGImages"
    learned = sorted(photo.stem for photo in folder.glob("*.jpg")) if options.corpus else names[: options.unlabelled]
    return exam, Corpus(folder, learned, extractor, 0, 2, store)


def main() -> None:
    """Measure, print, write after every head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photos(parser, 900, 250)
    parser.add_argument("--nearest", type=float, default=0.5, help="pair.nearest")
    parser.add_argument("--tasks", choices=TASKS, default="plain", help="what teaches the heads")
    parser.add_argument("--heads", nargs="+", default=["correlation"], help="presets of conf/model")
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.25, 0.4], help="of model.options.otsu")
    parser.add_argument("--owns", type=float, nargs="+", default=[0], help="model.options.own")
    parser.add_argument("--by-shots", type=int, nargs="+", default=[0, 1], help="model.options.by_shots, 0 and 1")
    parser.add_argument("--residuals", nargs="+", default=["smoothed"], help="model.options.residual")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path, help="file for the measurements, rewritten after every head")
    options = parser.parse_args()
    torch.set_num_threads(1)
    exam, corpus = photos(options)
    rows: list[dict[str, Any]] = []
    first: dict[int, Marks] = {}

    def add(head: Residual | SmoothedReadout, **about: Any) -> None:
        new = []
        for setting, marks in measure(exam, head, options.shares, options.owns, options.by_shots):
            gap = marks.over(first.setdefault(setting["shots"], marks))
            difference = [100 * value for value in (gap.value, gap.low, gap.high)]
            new.append(about | setting | marks.figures() | {"difference": difference})
        rows.extend(new)
        print(table(new), flush=True)
        if options.json:
            given = {key: str(value) for key, value in vars(options).items()}
            options.json.write_text(json.dumps({"options": given, "rows": rows}, indent=1) + "\n")

    channels = corpus.bank.extractor.backbone.channels
    add(SmoothedReadout(channels, Options()).eval(), name="smoothed read-out")
    made = make(corpus, options.tasks, options.nearest)
    for residual in options.residuals:
        start = fresh("correlation", residual, channels, 0)
        add(meta_train(corpus, made, start, Course(0)), name=f"untrained, {residual}")
        for name, seed in itertools.product(options.heads, options.seeds):
            head = meta_train(corpus, made, fresh(name, residual, channels, seed), Course(options.steps), seed)
            add(head, name=f"{name}, {residual}", seed=seed)


if __name__ == "__main__":
    main()
