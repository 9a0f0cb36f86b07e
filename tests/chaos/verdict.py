"""What a run has to be like in the end, whatever went wrong meanwhile: in its bytes as a quiet one, and in MLflow."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.stages import STAGES
from fss import shards
from tests.chaos.machines import Machines
from tests.chaos.servers import MLFLOW
from tests.chaos.strikes import working
from tests.cluster.killed import leftovers, published

#: The metrics of a run that do not tell how long it took.
_RESULTS = ("result/miou", "result/fb_iou")
#: Seconds in which the processes of a run that has ended are gone.
_GONE = 30.0


@dataclass(frozen=True)
class Outcome:
    """What is compared: the sha256 of every published file, and what MLflow holds of each stage."""

    files: Mapping[str, str]
    tracked: Mapping[str, Any]


def outcome(folder: Path, experiment: str) -> Outcome:
    """Of the run in `folder`."""
    files = {name: shards.sha256(data) for name, data in published(folder, STAGES).items()}
    return Outcome(files, _tracked(experiment))


def _tracked(experiment: str) -> dict[str, Any]:
    """By stage, or `tiny` for the pipeline: how it ended, the losses of its training, and its results."""
    import mlflow

    client = mlflow.MlflowClient(MLFLOW)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found else []
    told = {}
    for run in runs:
        points = client.get_metric_history(run.info.run_id, "curves/loss")
        results = {key: value for key, value in run.data.metrics.items() if key.startswith(_RESULTS)}
        curve = sorted((point.step, point.value) for point in points)
        told[run.info.run_name.split()[0]] = (run.info.status, curve, results)
    return told if len(told) == len(runs) else {**told, "runs": len(runs)}


def differing(quiet: Outcome, found: Outcome) -> list[str]:
    """How a run differs from the quiet one."""
    return [
        *_differing("file", quiet.files, found.files),
        *_differing("in MLflow", quiet.tracked, found.tracked),
    ]


def _differing(kind: str, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    names = [name for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
    if not names:
        return []
    first = names[0]
    return [f"{len(names)} differ ({kind}): {first}: {wanted.get(first)} became {found.get(first)}"[:400]]


def left_behind(folder: Path, machines: Machines) -> list[str]:
    """Half-written files, and processes that still work although nobody drives them."""
    end = time.monotonic() + _GONE
    while (busy := working(machines)) and time.monotonic() < end:
        time.sleep(0.5)
    told = []
    for one in busy:
        with contextlib.suppress(Exception):
            told.append(f"still at work: {one.pid} {one.cmdline()}")
    return [*(f"half-written: {name}" for name in leftovers(folder)), *told]


def stacks(log: str) -> list[str]:
    """What a command said that nobody is to see: a stack that is not one of Ray's workers'."""
    own = [line for line in log.splitlines() if "pid=" not in line]
    return ["a traceback in the driver's log"] if any(line.startswith("Traceback") for line in own) else []
