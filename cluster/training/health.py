"""Whether training is well: what goes wrong silently shows in the logged figures, and is said with a remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster.engine import publish
from cluster.training.meter import Figures

FILE = "health.json"
#: A share of the steps after which a task that can be learned has been learned a little.
PATIENCE = 1 / 3


def check_finite(name: str, step: int, loss: float) -> None:
    """Stop a training whose loss is no number any more.

    Raises:
        RuntimeError: with the remedy.
    """
    if not math.isfinite(loss):
        raise RuntimeError(
            f"{name}: the loss is {loss} at step {step}; lower {name}.lr, or train in fp32 ({name}.precision=fp32)"
        )


def check_moving(name: str, step: int, figures: Mapping[str, float]) -> None:
    """Stop a training of which no step since the last log line was made: its weights stay what they are for ever.

    Raises:
        RuntimeError: with the remedy.
    """
    if figures["skipped_steps"] and "grad_norm" not in figures:
        raise RuntimeError(
            f"{name}: all {figures['skipped_steps']:.0f} steps up to step {step} were skipped, because their gradients "
            f"are not finite; lower {name}.lr, train in fp32 ({name}.precision=fp32), or look for a loss with an "
            "infinite slope"
        )


def _all_background(figures: Mapping[str, float], prefix: str) -> bool:
    return figures.get(f"{prefix}area_ratio", 1.0) < 0.05


def _all_foreground(figures: Mapping[str, float], prefix: str) -> bool:
    # Where everything really is foreground, saying so is right.
    return figures.get(f"{prefix}predicted_share", 0.0) > 0.95 and figures.get(f"{prefix}area_ratio", 1.0) > 1.1


def _above(name: str, limit: float) -> Callable[[Mapping[str, float], str], bool]:
    return lambda figures, prefix: figures.get(f"{prefix}{name}", 0.0) > limit


#: name -> (what a figure must look like, what to say and to do)
_SIGNS: dict[str, tuple[Callable[[Mapping[str, float], str], bool], str]] = {
    "all_background": (
        _all_background,
        "the model predicts almost only background; lower train.lr, or use train.loss=dice",
    ),
    "all_foreground": (
        _all_foreground,
        "the model predicts almost only foreground; lower train.lr, or use train.loss=cross_entropy_dice",
    ),
    "empty_masks": (
        _above("empty_share", 0.2),
        "more than a fifth of the episodes show nothing in the query or in all supports; raise pair.min_area, "
        "train.augment.keep or train.augment.crop",
    ),
    "dead_prototypes": (
        _above("dead_prototypes", 0.5),
        "no point chooses more than half of the prototypes; lower model.options.foreground_prototypes and "
        "model.options.background_prototypes, or use a finer grid (backbone.stride, backbone.size)",
    ),
}


@dataclass
class Health:
    """Looks at the figures of each log line and validation; each sign is told once a run, also when it is resumed.

    Keeps what it must remember in the file `health.json` of `folder`: the figures at the start and what was said.
    """

    folder: Path
    steps: int
    name: str = "train"
    """The training's, under which its settings stand."""
    start: Figures = field(default_factory=dict)
    said: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        about = publish.read_sealed(self.folder / FILE)
        if about is None:  # a new run; a damaged file costs a warning said twice
            return
        self.start, self.said = dict(about["start"]), dict(about["said"])

    def check(self, step: int, figures: Figures) -> dict[str, str]:
        """What is wrong by the `figures` of `step` and was not said before: name -> words with the remedy.

        Figures, each of training and, as `holdout_...`, of validation: `area_ratio`, predicted over true foreground;
        `predicted_share` of the cells; `empty_share` of the episodes; `dead_prototypes`, a share; `loss` and `iou`.
        """
        before = (dict(self.start), dict(self.said))
        for key in ("loss", "holdout_iou"):
            if key in figures and math.isfinite(figures[key]):
                self.start.setdefault(key, figures[key])
        signs = {
            name: remedy
            for name, (sign, remedy) in _SIGNS.items()
            if self._settled(name, step) and any(sign(figures, prefix) for prefix in ("", "holdout_"))
        }
        signs |= self._unlearned(step, figures, before[0])
        new = {name: words for name, words in signs.items() if name not in self.said}
        self.said |= dict.fromkeys(new, step)
        if (self.start, self.said) != before:
            publish.write_sealed(self.folder / FILE, {"start": self.start, "said": self.said})
        return {name: f"at step {step} {words}" for name, words in new.items()}

    def _settled(self, name: str, step: int) -> bool:
        """Fresh heads may well predict one side only: that counts after a tenth of the steps."""
        return not name.startswith("all_") or step >= self.steps / 10

    def _unlearned(self, step: int, figures: Figures, start: Figures) -> dict[str, str]:
        """Compares the hold-out IoU, or without one the training loss, with its value at the `start`."""
        if step < self.steps * PATIENCE:
            return {}
        if "holdout_iou" in start:
            now, first = figures.get("holdout_iou"), start["holdout_iou"]
            if now is None or now > first:
                return {}
            told = f"the IoU on held-out tasks is {100 * now:.1f} %, {100 * first:.1f} % before the first step"
        else:
            now, first = figures.get("loss"), start.get("loss", math.inf)
            if now is None or now < 0.98 * first or math.isinf(first):
                return {}
            told = f"the loss is {now:.4g}, {first:.4g} at the first log line"
        return {"unlearned": f"{told}: nothing was learned; {self._remedy()}"}

    def _remedy(self) -> str:
        if self.name != "train":
            return f"raise or lower {self.name}.lr, or raise {self.name}.steps"
        return (
            "check the tasks (jobs.quality), raise or lower train.lr, or start from the read-out "
            "(model.options.residual=prototype)"
        )
