"""Say beforehand what a corpus will cost: time, CPU- and GPU-hours, bytes and memory of every step, and the bottleneck.

    python -m jobs.plan corpus_size=1e9 experiment=NAME [key=value ...] [out=FILE]

The stages from shard to pair, and a few optimiser steps, run on some of the configured images (plan.images=64) on this
cluster, in a folder below root that is removed again. plan.workers, plan.network_gbit and plan.disk_mb_s describe other
machines of the same kind. Training takes its configured steps, whatever the corpus; evaluation is not planned.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from cluster.config import Config
from cluster.engine import publish
from cluster.planning import calibrate, forecast, plan
from cluster.stages import STAGES
from jobs._config import load, run


def load_plan(arguments: Sequence[str]) -> Config:
    """The configuration of a run; `corpus_size=N` is short for `plan.corpus_size=N`.

    Raises:
        ValueError: for a wrong key or value, or without a corpus size.
    """
    config = load([f"plan.{one}" if one.startswith("corpus_size=") else one for one in arguments])
    chosen = config.plan
    if chosen.corpus_size is None or chosen.corpus_size < 1:
        raise ValueError(f"expected the number of images to plan for, corpus_size=1e9, got {chosen.corpus_size}")
    if chosen.images < 16:
        raise ValueError(f"plan.images: expected at least 16 images to measure on, got {chosen.images}")
    for key in ("workers", "network_gbit", "disk_mb_s"):
        value = getattr(chosen, key)
        if value is not None and value <= 0:
            raise ValueError(f"plan.{key}: expected a number above 0, got {value}")
    return config


def predict(config: Config) -> None:
    """Measure, compute, print, and write `out` as JSON if it is given."""
    chosen = config.plan
    measured = calibrate.calibrate(config, STAGES)
    machines = plan.Machines(
        workers=chosen.workers or measured.workers,
        cpus=config.cluster.cpus_per_worker,
        gpus=config.cluster.gpus_per_worker,
        network=chosen.network_gbit and chosen.network_gbit * 1e9 / 8,
        disk=chosen.disk_mb_s * 1e6 if chosen.disk_mb_s else measured.disk,
    )
    assert chosen.corpus_size is not None
    rows = forecast.predict(config, measured, machines)
    print(f"\n{chosen.corpus_size:.3g} images on {machines.workers} workers; measured in {measured.seconds:.0f} s")
    print("\n".join(plan.table(rows)))
    print(f"bottleneck: {plan.bottleneck(rows)}")
    for note in forecast.notes(config, rows, machines):
        print(f"note: {note}")
    if config.out:
        value = {
            "corpus_size": chosen.corpus_size,
            "machines": dataclasses.asdict(machines),
            "measured": dataclasses.asdict(measured),
            "rows": [dataclasses.asdict(one) for one in rows],
            "bottleneck": plan.bottleneck(rows),
        }
        publish.write_bytes(Path(config.out), (json.dumps(value, indent=2) + "\n").encode())


if __name__ == "__main__":
    run(load_plan, predict)
