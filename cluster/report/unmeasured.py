"""What is told of a run without labelled images: how its model does on the tasks that training held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from cluster.engine.stage import Manifest
from cluster.report import page as report
from cluster.train import candidates
from cluster.train.recipe import HOLDOUT
from fss import segmenter


def _selection(train: Manifest) -> Mapping[str, Any]:
    """Which step was exported, and its IoU on the held-out tasks, None without any."""
    selection: Mapping[str, Any] = segmenter.read_about(train.folder / "model")["facts"]["selection"]
    return selection


def holdout(train: Manifest) -> float | None:
    """IoU of the exported step on the held-out tasks, None without any."""
    value: float | None = _selection(train)[HOLDOUT]
    return value


def text(train: Manifest) -> str:
    """One or two sentences."""
    chosen = _selection(train)
    if chosen[HOLDOUT] is None:
        return "No task was held out and no labelled images were given, so nothing was measured."
    return (
        f"IoU {100 * chosen[HOLDOUT]:.1f} % on held-out pseudo-tasks (step {chosen['step']} of "
        f"{train.counts['steps']}). No label was looked at. With"
        " dataset.root=FOLDER the same command goes on and measures it on labelled images."
    )


def headlines(train: Manifest) -> list[report.Headline]:
    """The figures of the exported step on the held-out tasks."""
    chosen = _selection(train)
    if chosen[HOLDOUT] is None:
        return []
    step = next((one for one in candidates.read(train.folder) if one.step == chosen["step"]), None)
    told = [report.Headline(f"{100 * chosen[HOLDOUT]:.1f}", "IoU [%], held-out pseudo-tasks", "no label was looked at")]
    if step is not None and "holdout_area_ratio" in step.figures:
        told.append(
            report.Headline(f"{step.figures['holdout_area_ratio']:.2f}", "predicted / pseudo area", "1 is right")
        )
    return [
        *told,
        report.Headline(f"{train.counts['episodes']:,}", "training episodes", f"{train.counts['steps']} steps"),
    ]


def gallery(train: Manifest) -> report.Gallery | None:
    """The last picture of held-out tasks that training drew."""
    drawn = sorted((train.folder / "examples").glob("step-*.png"))
    if not drawn:
        return None
    with Image.open(drawn[-1]) as image:
        tile = report.Tile(image.convert("RGB"), drawn[-1].stem)
    return report.Gallery("Held-out tasks", [tile], "Pseudo-tasks that training did not see, a row each.", 700)
