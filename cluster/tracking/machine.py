"""How busy the machine is while a pipeline runs, as MLflow measures it: processor, memory and GPUs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cluster.tracking.journal import Journal
from fss.meanwhile import meanwhile

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

#: MLflow shows what begins so on a page of its own.
_SECTION = "system/"


@contextlib.contextmanager
def watched(journal: Journal, every: float = 10.0) -> Iterator[None]:
    """Write into `journal` every so many seconds, from a thread, how busy this machine is."""
    with meanwhile("machine", _watch, journal, every):
        yield


def _watch(over: threading.Event, journal: Journal, every: float) -> None:
    if over.wait(every):  # a run that is over by then is spared the import
        return
    chosen = monitors()
    look(chosen)  # use of the processor is measured from one look to the next
    while not over.wait(every):
        journal.metrics(look(chosen), step=round(time.time()))  # a step of its own, also after a restart


def monitors() -> Sequence[BaseMetricsMonitor]:
    """MLflow's, of what this machine has."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    found: list[BaseMetricsMonitor] = [CPUMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no GPU, or none that may be asked
        found.append(GPUMonitor())
    return found


def look(chosen: Sequence[BaseMetricsMonitor]) -> dict[str, float]:
    """One value of each metric, such as `system/cpu_utilization_percentage`."""
    values: dict[str, float] = {}
    for one in chosen:
        one.collect_metrics()
        values |= {f"{_SECTION}{key}": value for key, value in one.aggregate_metrics().items()}
        one.clear_metrics()
    return values
