"""What training adds once the threshold is right: one trained head, measured at several thresholds and shares.

    python -m benchmarks.threshold --root voc2012 --weights FILE [--list val] [--features FOLDER] [--json FILE]

The library alone, as `benchmarks.pseudo_tasks`: regions of agglomerate 2, 3, 5 of 900 train photos, paired across
images, teach the correlation head, once for each seed and read-out that it is added to. The same head then answers with
`model.options.otsu` at several shares, `by_shots` on and off, and `own` at several weights, on the same episodes of the
other 400 train photos, or of the val list. With `--corpus` photos of another folder teach it.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning import Corpus, Course, Exam, choose, meta_train, network
from benchmarks.pseudo_tasks import HEAD, Variant, make_tasks
from fss import heads
from fss.evaluation.cache import FeatureStore
from fss.heads.parts.residual import Residual
from fss.heads.smoothed import Options, SmoothedReadout
from fss.labelling import pseudo
from fss.tasks.pairing import cross_image

SHOTS = (1, 5)


def measure(
    exam: Exam, head: Residual | SmoothedReadout, shares: Sequence[float], owns: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """Figures for each setting and number of shots; of a read-out only the threshold is set."""
    learned = isinstance(head, Residual)
    settings = itertools.product((False, True) if learned else (False,), shares, owns if learned else (0.0,))
    for by_shots, share, own in settings:
        head.otsu = share
        if isinstance(head, Residual):
            head.by_shots, head.own = by_shots, own
        for shots in SHOTS:
            yield {"by_shots": by_shots, "otsu": share, "own": own, "shots": shots, **exam(head, shots)}


def trained(corpus: Corpus, nearest: float, seed: int, steps: int, residual: str) -> Residual:
    """The correlation head, added to a read-out, after a short course on tasks of plain regions."""
    recipe = pseudo.EmbeddingOptions("agglomerate", "segments", (2, 3, 5))
    made, _ = make_tasks(corpus, Variant("plain", recipe, rules=cross_image.Keys(nearest=nearest)))
    model = HEAD | {"residual": residual}
    fresh = heads.build("correlation", model, corpus.bank.extractor.backbone.channels, corners=True, seed=seed)
    head = meta_train(corpus, made, fresh, Course(steps), seed)
    assert isinstance(head, Residual)
    return head


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    lines = [
        "| head | seed | by_shots | otsu | own | mIoU 1-shot | area | mIoU 5-shot | area |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one, five in zip(rows[::2], rows[1::2], strict=True):
        seed = one.get("seed", "")
        figures = " | ".join(f"{row['miou']:.1f} | {row['area_ratio']:.2f}" for row in (one, five))
        lines.append(f"| {one['name']} | {seed} | {one['by_shots']} | {one['otsu']:g} | {one['own']:g} | {figures} |")
    return "\n".join(lines)


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
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.25, 0.4], help="of model.options.otsu")
    parser.add_argument("--owns", type=float, nargs="+", default=[0], help="model.options.own")
    parser.add_argument("--residuals", nargs="+", default=["smoothed"], help="model.options.residual")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", type=Path, help="file for the measurements, rewritten after every head")
    options = parser.parse_args()
    torch.set_num_threads(1)
    exam, corpus = photos(options)
    rows: list[dict[str, Any]] = []

    def add(head: Residual | SmoothedReadout, **about: Any) -> None:
        new = [about | row for row in measure(exam, head, options.shares, options.owns)]
        rows.extend(new)
        print(table(new), flush=True)
        if options.json:
            given = {key: str(value) for key, value in vars(options).items()}
            options.json.write_text(json.dumps({"options": given, "rows": rows}, indent=1) + "\n")

    channels = corpus.bank.extractor.backbone.channels
    add(SmoothedReadout(channels, Options()).eval(), name="smoothed read-out")
    for residual, seed in itertools.product(options.residuals, options.seeds):
        head = trained(corpus, options.nearest, seed, options.steps, residual)
        add(head, name=f"correlation, {residual}", seed=seed)


if __name__ == "__main__":
    main()
