"""Candidates: the averaged weights at each validation, kept with what was measured, among which the export chooses.

    candidates/step-00000100/model.safetensors    the weights, as an exported model holds them
    candidates/step-00000100/figures.json         step, sha256 of the weights, figures, sealed; written last

A run that goes on from a checkpoint writes those after it again, to the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.engine import publish
from cluster.engine.files import holds
from cluster.storage import paths
from cluster.training import checkpoint
from cluster.training.meter import Figures

logger = logging.getLogger(__name__)

WEIGHTS, FIGURES = "model.safetensors", "figures.json"


@dataclass(frozen=True)
class Candidate:
    """Weights that could be exported. `figures` is what validation measured, without labels; it may be empty."""

    step: int
    path: Path
    """File of the weights: `Segmenter.load(MODEL_FOLDER, weights=path)`."""
    figures: Mapping[str, float]


def write(folder: Path, step: int, weights: bytes, figures: Figures) -> None:
    """Publish the candidate of `step` below the stage's `folder`, in place of an earlier one of this step."""
    target = folder / "candidates" / f"step-{step:08d}"
    written = publish.write_bytes(target / WEIGHTS, weights)
    publish.write_sealed(target / FIGURES, {"step": step, "sha256": written["sha256"], "figures": figures})


def read(folder: Path) -> list[Candidate]:
    """The candidates below the stage's `folder`, in the order of their steps; damaged ones are left out and told."""
    candidates, targets = [], paths.matching(folder / "candidates", "step-*")
    for path, about in zip(targets, publish.read_each_sealed(path / FIGURES for path in targets), strict=True):
        if about is None or not holds(path / WEIGHTS, about["sha256"]):
            logger.warning("candidate %s is damaged, left out", path)
            continue
        candidates.append(Candidate(int(about["step"]), path / WEIGHTS, about["figures"]))
    return candidates


def step_of(weights: str | Path) -> int:
    """The training step of a candidate's file of weights."""
    return int(Path(weights).parent.name.partition("-")[2])


def make_good(folder: Path, steps: Iterable[int]) -> None:
    """Drop the checkpoints that lie past a lost candidate of `steps`, so that training makes the candidate again."""
    kept = {candidate.step for candidate in read(folder)}
    lost = min((step for step in steps if step not in kept), default=None)
    if lost is not None and checkpoint.drop(folder / "checkpoints", lost):
        logger.warning("%s: the candidate of step %d is lost; training goes back to before it", folder, lost)
