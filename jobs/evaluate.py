r"""Measure a model on few-shot episodes, beside the training-free read-out of its backbone.

    python -m jobs.evaluate model=prototype backbone=mobilenet_v2 backbone.weights=FILE dataset=pascal5i \
        dataset.root=DIR dataset.list=FILE fold=0 shots=1 episodes=200 seed=0 save_predictions=true out=DIR
    python -m jobs.evaluate model=FOLDER dataset.root=DIR          # an exported model
    python -m jobs.evaluate model=models:/NAME/1 dataset.root=DIR  # one of MLflow's registry
"""

from __future__ import annotations

import dataclasses
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

#: Of the results in `out`: by it an unfinished copy is known as ours.
_FIRST = "episode_list.parquet"


def evaluate(config: Config) -> None:
    """Run the stage, print its table, copy its results to `out` if it is set.

    Raises:
        ValueError: if `out` is a folder of somebody else's.
    """
    from cluster.engine import publish
    from cluster.engine.places import own_folder
    from cluster.engine.run import Run
    from cluster.evaluate import measured
    from cluster.evaluate.results import results_table, terminal_width
    from cluster.stages import STAGES
    from cluster.storage.bucket import address

    out = own_folder(config.out, "out", _FIRST) if config.out else None
    with Run(_here(config), STAGES) as current:
        manifest = current.ensure("evaluate")
        print(results_table(measured.results(publish.read_json(manifest.path("metrics.json"))), terminal_width()))
        if out:
            copy_results(manifest, out)
        print(f"evaluate: {config.out or address(manifest.folder)}")


def _here(config: Config) -> Config:
    """The same with the folder of a model that MLflow's registry has, below root, or a bucket: all workers find it."""
    from cluster.engine.places import root
    from cluster.serving import registry

    if not (config.model.path or "").startswith(("models:", "s3:")):
        return config
    folder = registry.folder(str(config.model.path), root(config.root) / "registered")
    return dataclasses.replace(config, model=dataclasses.replace(config.model, path=str(folder)))


def copy_results(manifest: Manifest, out: Path) -> None:
    """All that a reader wants: episode list first, results, tables, pictures, predictions, metrics.json last."""
    from cluster.engine import publish
    from cluster.engine.stage import read_file

    inner = ("rows/", "index/", "described/")
    wanted = [file for file in manifest.files if not file.path.startswith(inner)]
    order = {_FIRST: 0, "metrics.json": 2}
    for file in sorted(wanted, key=lambda one: order.get(one.path, 1)):
        publish.write_bytes(out / file.path, read_file(manifest.folder, file))


if __name__ == "__main__":
    run(COMMAND, evaluate)
