"""Say beforehand what a corpus will cost: time, CPU- and GPU-hours, bytes and memory of every step, and the bottleneck.

    python -m jobs.plan corpus_size=1e9 experiment=photos corpus.root=PHOTOS dataset.root=VOC2012
    python -m jobs.plan corpus_size=1e6 experiment=tiny plan.workers=64 plan.network_gbit=100 out=FILE

The stages from shard to pair, and a few optimiser steps, run on some of the configured images (plan.images=64) on this
cluster, in a folder below root that is removed again. plan.workers, plan.network_gbit and plan.disk_mb_s describe other
machines of the same kind. Training takes its configured steps, whatever the corpus; evaluation is not planned.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.config import Config
from jobs._config import Command, load, run


def load_plan(arguments: Sequence[str]) -> Config:
    """The configuration of a run; `corpus_size=N` is short for `plan.corpus_size=N`.

    Raises:
        ValueError: for wrong keys or values, or without a corpus size.
    """
    return load([f"plan.{one}" if one.startswith("corpus_size=") else one for one in arguments], _problems)


def _problems(config: Config) -> list[str]:
    size = config.plan.corpus_size
    if size is None or size < 1:
        return [f"plan.corpus_size: expected the number of images to plan for, corpus_size=1e9, got {size}"]
    return []


COMMAND = Command(
    "plan",
    __doc__,
    (
        "plan.corpus_size",
        "plan.images",
        "plan.workers",
        "plan.network_gbit",
        "plan.disk_mb_s",
        "corpus.root",
        "backbone.weights",
        "cluster.cpus_per_worker",
        "cluster.gpus_per_worker",
        "out",
    ),
    reader=load_plan,
    kept="a plan keeps nothing; the same command begins again",
)


def plan(config: Config) -> None:
    """Measure, compute, print, and write `out` as JSON if it is given."""
    from cluster.planning import conclusion
    from cluster.stages import STAGES

    print(conclusion.conclude(config, STAGES))


if __name__ == "__main__":
    run(COMMAND, plan)
