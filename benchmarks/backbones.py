"""What backbones are worth: read-outs, anchors and a head trained without labels, on the same episodes.

    python -m benchmarks.backbones --root VOC2012 --weights NAME=FILE ... [--json FILE] [key=value ...]

NAME is a preset of conf/backbone, FILE its weights, or `random`. Each backbone runs experiment=photos on the unlabelled
training photos of --root and is measured on its validation photos; `key=value` are those of jobs.pipeline, so that
model=foris goes without a trained head. Differences are to a backbone's last row, paired, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.compare.compare import Comparison, compare
from cluster.config.compare import CompareConfig
from cluster.engine.run import Run
from cluster.stages import STAGES
from jobs._config import load

Row = Mapping[str, Any]


def evaluated(backbone: str, weights: str, root: Path, given: Sequence[str]) -> Path:
    """The folder of the backbone's evaluation; what is there already is not computed again."""
    arguments = [
        "experiment=photos",
        "baselines=[prototype,smoothed,anchors]",
        f"name=backbones_{backbone.replace('/', '_')}",
        f"backbone={backbone}",
        f"backbone.weights={weights}",
        f"corpus.root={root}/JPEGImages",
        f"corpus.list={root}/ImageSets/Segmentation/train.txt",
        f"dataset.root={root}",
    ]
    with Run(load([*arguments, *given]), STAGES) as run:
        return run.ensure("evaluate").folder


def rows(backbone: str, found: Comparison) -> Iterator[Row]:
    """mIoU of each model by shots, in per cent, with its interval, and the difference to the last one but for that."""
    for model in found.models:
        for group in found.groups:
            figure, gap = (of.get((model.label, group, "miou")) for of in (found.figures, found.gaps))
            assert figure is not None
            yield {
                "backbone": backbone,
                "model": model.label,
                "shots": group[1],
                "miou": [100 * value for value in (figure.value, figure.low, figure.high)],
                "difference": gap and [100 * value for value in (gap.value, gap.low, gap.high)],
            }


def table(measured: Sequence[Row]) -> str:
    """The rows as Markdown, a line for each backbone and model."""
    shots = sorted({row["shots"] for row in measured})
    heading = [f"{k}-shot mIoU | its difference to the last" for k in shots]
    lines = [f"| backbone | model | {' | '.join(heading)} |", "|---|---|" + "---:|---:|" * len(shots)]
    by_model: dict[tuple[str, str], list[str]] = {}
    for row in measured:
        value, gap = _interval(row["miou"], ""), _interval(row["difference"], "+")
        by_model.setdefault((row["backbone"], row["model"]), []).append(f"{value} | {gap}")
    return "\n".join([*lines, *(f"| {' | '.join([*key, *cells])} |" for key, cells in by_model.items())])


def _interval(values: Sequence[float] | None, sign: str) -> str:
    if values is None:
        return ""
    value, low, high = (f"{one:{sign}.1f}" for one in values)
    return f"{value} [{low}, {high}]"


def main() -> None:
    """Measure one backbone after the other; print the table as it grows, and write it with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, type=Path, help="folder in PASCAL VOC's layout")
    parser.add_argument("--weights", required=True, nargs="+", metavar="NAME=FILE")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    chosen, given = parser.parse_known_args()
    measured: list[Row] = []
    for pair in chosen.weights:
        backbone, _, weights = pair.partition("=")
        folder = evaluated(backbone, weights, chosen.root.resolve(), given)
        measured += rows(backbone, compare(CompareConfig(runs=[str(folder)])))
        print(table(measured), flush=True)
        if chosen.json:
            chosen.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
