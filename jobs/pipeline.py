"""The whole pipeline: from unlabelled images to a measured few-shot segmentation model.

python -m jobs.pipeline experiment=demo
python -m jobs.pipeline experiment=photos corpus.root=FOLDER dataset.root=VOC2012 backbone=... backbone.weights=...
"""

from __future__ import annotations

from cluster.config import Config
from cluster.engine.run import Run
from cluster.report import summary
from cluster.stages import STAGES
from jobs._config import load, run


def pipeline(config: Config) -> None:
    """Run every stage that is not done, then write the summary and the report."""
    with Run(config, STAGES) as current:
        stages = summary.stages(current)
        current.check(*stages)
        for stage in stages:
            current.ensure(stage)
        print(summary.conclude(current))


if __name__ == "__main__":
    run(load, pipeline)
