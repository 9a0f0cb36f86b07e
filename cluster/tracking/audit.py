"""What a journal holds and the server does not, whatever the sender remembers: looked up point by point, sent again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cluster.tracking.events import clean_key, metric_key, slices
from cluster.tracking.journal import read_events

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Key, step, time and value of a metric.
Point = tuple[str, int, int, float]


def repair(client: MlflowClient, run_id: str, path: Path) -> int:
    """Send again what the journal at `path` has and its MLflow run lacks; the number of metric points and params."""
    from mlflow.entities import Metric, Param

    points, params = _journaled(path)
    held = {point for key in {key for key, *_ in points} for point in _held(client, run_id, key)}
    missing = [point for point in points if point not in held]
    there = client.get_run(run_id).data.params
    absent = {key: value for key, value in params.items() if key not in there}
    for part in slices(missing, 900, lambda item: len(item[0]) + 80):
        client.log_batch(run_id, metrics=[Metric(key, value, time, step) for key, step, time, value in part])
    for words in slices(list(absent.items()), 100, lambda item: len(item[0]) + len(item[1])):
        client.log_batch(run_id, params=[Param(*item) for item in words])
    return len(missing) + len(absent)


def gaps(path: Path) -> list[int]:
    """Numbers of the events that the journal at `path` once had and that are damaged, in order."""
    there = {event["seq"] for event in read_events(path)[0]}
    return [number for number in range(1, max(there, default=0)) if number not in there]


def _journaled(path: Path) -> tuple[dict[Point, None], dict[str, str]]:
    points: dict[Point, None] = {}
    params: dict[str, str] = {}
    for event in read_events(path)[0]:
        if event["kind"] == "metrics":
            values = event["values"].items()
            points |= {(metric_key(name), event["step"], event["time"], value): None for name, value in values}
        elif event["kind"] == "params":
            params = {clean_key(name): value for name, value in event["values"].items()} | params
    return points, params


def _held(client: MlflowClient, run_id: str, key: str) -> list[Point]:
    return [(key, metric.step, metric.timestamp, metric.value) for metric in client.get_metric_history(run_id, key)]
