"""What a plan says to its reader, and writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from cluster.config import Config
from cluster.engine import publish
from cluster.engine.places import own_file
from cluster.engine.stage import Stage
from cluster.planning import calibrate, forecast, plan

#: The key by which a plan that was written is known.
_MARK = "bottleneck"


def conclude(config: Config, stages: Mapping[str, Stage]) -> str:
    """Measure, compute, write `config.out` as JSON if it is given, and return the table with its notes.

    Raises:
        ValueError: if `config.out` is somebody else's file, or as `calibrate`.
    """
    out = own_file(config.out, "out", _MARK) if config.out else None
    chosen = config.plan
    measured = calibrate.calibrate(config, stages)
    machines = plan.Machines(
        workers=chosen.workers or measured.workers,
        cpus=config.cluster.cpus_per_worker,
        gpus=config.cluster.gpus_per_worker,
        network=chosen.network_gbit and chosen.network_gbit * 1e9 / 8,
        disk=chosen.disk_mb_s * 1e6 if chosen.disk_mb_s else measured.disk,
    )
    assert chosen.corpus_size is not None
    rows = forecast.predict(config, measured, machines)
    if out:
        value = {
            "corpus_size": chosen.corpus_size,
            "machines": dataclasses.asdict(machines),
            "measured": dataclasses.asdict(measured),
            "rows": [dataclasses.asdict(one) for one in rows],
            _MARK: plan.bottleneck(rows),
        }
        publish.write_bytes(out, (json.dumps(value, indent=2) + "\n").encode())
    return "\n".join(
        [
            f"\n{chosen.corpus_size:.3g} images on {machines.workers} workers; measured in {measured.seconds:.0f} s",
            *plan.table(rows),
            f"bottleneck: {plan.bottleneck(rows)}",
            *(f"note: {note}" for note in forecast.notes(config, measured, rows, machines)),
        ]
    )
