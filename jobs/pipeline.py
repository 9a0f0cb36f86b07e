r"""The whole pipeline: from unlabelled images to a measured few-shot segmentation model.

    python -m jobs.pipeline experiment=demo
    python -m jobs.pipeline experiment=photos corpus.root=PHOTOS dataset.root=VOC2012 backbone=mobilenet_v2 \
        backbone.weights=FILE

Stages that are done are not done again; the summary, the report and what MLflow shows come last.
"""

from __future__ import annotations

from cluster.config import Config
from jobs._config import Command, run

COMMAND = Command(
    "pipeline",
    __doc__,
    (
        "name",
        "root",
        "seed",
        "corpus.root",
        "corpus.list",
        "backbone.weights",
        "source.clusters",
        "train.steps",
        "dataset.root",
        "fold",
        "shots",
        "episodes",
        "cluster.address",
        "cluster.workers",
        "cluster.train_workers",
        "tracking.uri",
    ),
)


def pipeline(config: Config) -> None:
    """Run every stage that is not done, then write the summary and the report."""
    from cluster.engine.outlook import ahead
    from cluster.engine.run import Run
    from cluster.report import summary
    from cluster.stages import STAGES

    with Run(config, STAGES) as current:
        stages = summary.stages(current)
        current.check(*stages)
        print(ahead(current, stages), flush=True)
        for stage in stages:
            current.ensure(stage)
        print(summary.conclude(current))


if __name__ == "__main__":
    run(COMMAND, pipeline)
