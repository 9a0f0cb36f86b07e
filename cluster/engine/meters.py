"""What Prometheus reads of a run at work, through Ray: named here alone, and drawn by cluster/deploy/grafana.json.

Ray exports each under its own prefix, `ray_`, and a counter with the ending `_total`. Without a Ray nothing is counted.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

#: Each meter: its kind, what it tells, and by which labels.
METERS = {
    "fss_items": ("Counter", "Images, points or samples that are done", ("stage", "unit")),
    "fss_failed": ("Counter", "Parts of a stage that failed", ("stage",)),
    "fss_left": ("Gauge", "Parts of a stage that are not done yet", ("stage",)),
    "fss_workers": ("Gauge", "Workers of the shard stages, present or waited for", ("state",)),
}


def done(stage: str, unit: str, items: int, failed: int) -> None:
    """Count what a stage has done since this was last called."""
    _add("fss_items", items, stage=stage, unit=unit)
    _add("fss_failed", failed, stage=stage)


def left(stage: str, parts: int) -> None:
    """Tell how many parts of a stage are not done."""
    _set("fss_left", parts, stage=stage)


def workers(present: int, awaited: int) -> None:
    """Tell how many workers there are, and how many were asked for and are not there yet."""
    _set("fss_workers", present, state="present")
    _set("fss_workers", awaited, state="awaited")


def exported(name: str) -> str:
    """The name by which Prometheus knows a meter.

    >>> exported("fss_items"), exported("fss_left")
    ('ray_fss_items_total', 'ray_fss_left')
    """
    return f"ray_{name}{'_total' if METERS[name][0] == 'Counter' else ''}"


def _add(name: str, number: int, **labels: str) -> None:
    if number > 0 and _counts():
        _meter(name).inc(number, labels)


def _set(name: str, number: int, **labels: str) -> None:
    if _counts():
        _meter(name).set(number, labels)


def _counts() -> bool:
    """Whether this process belongs to a Ray; commands that need none do not import it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@functools.cache
def _meter(name: str) -> Any:
    from ray.util import metrics

    kind, text, labels = METERS[name]
    return getattr(metrics, kind)(name, description=text, tag_keys=labels)
