r"""Measure a model on few-shot episodes, beside the training-free read-out of its backbone.

    python -m jobs.evaluate model=prototype backbone=mobilenet_v2 backbone.weights=FILE dataset=pascal5i \
        dataset.root=DIR dataset.list=FILE fold=0 shots=1 episodes=200 seed=0 save_predictions=true out=DIR
    python -m jobs.evaluate model=FOLDER dataset.root=DIR          # an exported model
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.config import Config
from jobs._config import Command, run

if TYPE_CHECKING:
    from cluster.engine.stage import Manifest

COMMAND = Command(
    "evaluate",
    __doc__,
    (
        "dataset.root",
        "dataset.list",
        "fold",
        "shots",
        "ways",
        "episodes",
        "seeds",
        "baselines",
        "backbone.weights",
        "save_predictions",
        "out",
        "cluster.workers",
    ),
)


def evaluate(config: Config) -> None:
    """Run the stage, print its table, copy its results to `out` if it is set."""
    from cluster.engine import publish
    from cluster.engine.run import Run
    from cluster.evaluate import measured
    from cluster.evaluate.results import results_table
    from cluster.stages import STAGES

    with Run(config, STAGES) as current:
        manifest = current.ensure("evaluate")
        print(results_table(measured.results(publish.read_json(manifest.path("metrics.json")))))
        if config.out:
            copy_results(manifest, Path(config.out))
        print(f"evaluate: {config.out or manifest.folder}")


def copy_results(manifest: Manifest, out: Path) -> None:
    """All that a reader wants, and metrics.json last: results, tables, pictures, predictions."""
    inner = ("rows/", "index/", "described/")
    wanted = [f.path for f in manifest.files if not f.path.startswith(inner) and f.path != "metrics.json"]
    for name in [*wanted, "metrics.json"]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(manifest.folder / name, out / name)


if __name__ == "__main__":
    run(COMMAND, evaluate)
