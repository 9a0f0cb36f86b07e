"""What an exported model reached in the evaluations of its run, for its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.engine import publish
from cluster.engine.manifest import Manifest, read_manifest
from cluster.evaluate import measured
from cluster.evaluate.results import results_markdown
from cluster.storage import paths
from fss.segmenter.card import Figure

#: How far above a model's folder its run's folder is: RUN/train/FINGERPRINT/model.
_DEPTH = 3


def evaluations(folder: Path, about: Mapping[str, Any]) -> list[measured.Figures]:
    """The figures of the run's evaluations of the model in `folder`, by their fingerprints; `about` is its model.json.

    A model that lies in no run, as one that MLflow delivers, has none.
    """
    found = (paths.matching(above, "evaluate/*/manifest.json") for above in folder.resolve().parents[:_DEPTH])
    manifests = [
        manifest
        for path in next(filter(None, found), [])
        if (manifest := read_manifest(path)) and _is_of(manifest, about)
    ]
    return [publish.read_json(manifest.path("metrics.json")) for manifest in manifests]


def _is_of(manifest: Manifest, about: Mapping[str, Any]) -> bool:
    """Whether an evaluation read the stage that made the model, or the model's own files."""
    exported = manifest.settings["exported"] or {"files": None}
    made = about["facts"].get("fingerprint")
    return exported["files"] == about["sha256"] or made in [manifest.inputs.get(name) for name in ("train", "index")]


def told(figures: measured.Figures) -> str:
    """One evaluation as Markdown: its tables, and what one has to know to compare them."""
    notes = "\n".join(f"* {line}" for line in measured.notes_on(figures))
    return f"{results_markdown(measured.results(figures))}\n\n{notes}"


def figures_of(figures: measured.Figures) -> Iterator[Figure]:
    """The mean mIoU of the last model, which is the one that was asked for, by the number of shots."""
    *_, by_shots = figures["models"].values()
    for number, of_shots in by_shots.items():
        yield Figure(figures["dataset"]["name"], f"{number}-shot mIoU", of_shots["mean"]["miou"])
