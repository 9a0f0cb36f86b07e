"""Measure a model on few-shot episodes, beside the training-free read-out of its backbone.

    python -m jobs.evaluate model=prototype backbone=mobilenet_v2 backbone.weights=FILE dataset=pascal5i \
        dataset.root=DIR dataset.list=FILE fold=0 shots=1 episodes=200 seed=0 save_predictions=true out=DIR
    python -m jobs.evaluate model=FOLDER dataset.root=DIR          # an exported model
"""

from __future__ import annotations

from pathlib import Path

from cluster.config import Config
from cluster.engine import publish
from cluster.engine.run import Run
from cluster.engine.stage import Manifest, read_file
from cluster.evaluate import measured
from cluster.evaluate.results import results_table
from cluster.stages import STAGES
from jobs._config import load, run


def evaluate(config: Config) -> None:
    """Run the stage, print its table, copy its results to `out` if it is set."""
    with Run(config, STAGES) as current:
        manifest = current.ensure("evaluate")
        print(results_table(measured.results(publish.read_json(manifest.path("metrics.json")))))
        if config.out:
            copy_results(manifest, Path(config.out))
        print(f"evaluate: {config.out or manifest.folder}")


def copy_results(manifest: Manifest, out: Path) -> None:
    """All that a reader wants, and metrics.json last: results, tables, pictures, predictions."""
    inner = ("rows/", "index/", "described/")
    wanted = [file for file in manifest.files if not file.path.startswith(inner)]
    for file in sorted(wanted, key=lambda one: one.path == "metrics.json"):
        publish.write_bytes(out / file.path, read_file(manifest.folder, file))


if __name__ == "__main__":
    run(load, evaluate)
