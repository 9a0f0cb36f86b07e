"""The processes of a pool: asked for when there is work, each given some once it is there, wherever it came to be."""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from cluster.config import ClusterConfig
from cluster.engine import room
from cluster.engine.files import damaged_in
from cluster.engine.seen import Mark
from cluster.tracking import redact
from fss.threads import one_for_sums

#: Seconds that the first worker waits for others that there is room for, where units have a worker of their own.
_GATHERING = 10.0


@dataclass(frozen=True)
class Arrival:
    """Where a worker came to be, and what is wrong there."""

    host: str
    node: str
    problem: str | None


class Worker:
    """Stays alive between stages, so that backbones and features which a function caches are reused."""

    def __init__(self, threads: int, mark: Mark | None):
        self._mark = mark
        redact.install()
        one_for_sums()
        with contextlib.suppress(ImportError):
            import faiss

            faiss.omp_set_num_threads(threads)  # its labels are the same for any number, see fss.clustering.assign

    @functools.cached_property
    def _problem(self) -> str | None:
        return None if self._mark is None else self._mark.problem()

    def arrival(self) -> Arrival:
        """Where this is; the first call, whose answer says that the worker is there."""
        return Arrival(socket.gethostname(), ray.get_runtime_context().get_node_id(), self._problem)

    def run(self, function: Callable[[Any], Any], unit: Any) -> Any:
        """What `function` makes of `unit`.

        Raises:
            ValueError: if Ray has started this again on a machine that does not see what the run writes.
        """
        if self._problem:
            raise ValueError(self._problem)
        try:
            return function(unit)
        except Exception as error:
            if damaged := next(damaged_in(error), None):
                raise damaged from None  # what caused an error does not cross processes, only the error itself does
            raise


class Workers:
    """`most` Ray actors at most, each with the CPUs and GPUs of the configuration.

    Actors that no machine has room for yet make an autoscaler add machines. Those whose process or machine dies are
    started again by Ray, `retries` times for each call, wherever there is room.
    """

    def __init__(self, config: ClusterConfig, most: int, retries: int, mark: Mark | None):
        taken = room.worker(config)
        self._remote: Any = ray.remote(
            num_cpus=config.cpus_per_worker,
            num_gpus=config.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=retries,
        )(Worker)
        self._config, self._taken, self._most, self._mark = config, taken, most, mark
        self._coming: dict[Any, Any] = {}
        self._arrivals: dict[Any, Arrival] = {}
        self.present: list[Any] = []
        """Those that are there, in the order in which they came."""

    @property
    def coming(self) -> list[Any]:
        """References that are there when one that was asked for is there."""
        return list(self._coming)

    def bring(self, number: int) -> None:
        """Ask for as many as that, or as many as there may be; wait for the first one, as long as it takes.

        Those that were asked for just now, and that there is room for, are waited for a little.
        """
        asked = range(len(self.present) + len(self._coming), min(number, self._most))
        for _ in asked:
            actor = self._remote.remote(self._config.cpus_per_worker, self._mark)
            self._coming[actor.arrival.remote()] = actor
        if not self.present:
            next(room.awaited(self.coming, self._told))
            self.arrived()
        wanted = min(asked.stop, room.room(self._config).fits(self._taken)) if asked else 0
        end = time.monotonic() + _GATHERING
        while len(self.present) < wanted and (left := end - time.monotonic()) > 0:
            ray.wait(self.coming, num_returns=1, timeout=left)
            self.arrived()

    def arrived(self) -> list[Any]:
        """Those that have come since this was last asked.

        Raises:
            ValueError: if one came to a machine that does not see what the run writes.
        """
        done, _ = ray.wait(self.coming, num_returns=len(self._coming), timeout=0) if self._coming else ([], [])
        came = [self._coming.pop(reference) for reference in done]
        for actor, arrival in zip(came, ray.get(done), strict=True):
            if arrival.problem:
                raise ValueError(arrival.problem)
            self._arrivals[actor] = arrival
        self.present += came
        return came

    def host(self, actor: Any) -> str:
        """The machine on which a worker was when it came, and whether that has left the cluster."""
        came = self._arrivals[actor]
        return came.host if came.node in room.hosts() else f"{came.host}, which has left the cluster"

    def end(self) -> None:
        """End all; they come again when they are asked for."""
        for actor in (*self.present, *self._coming.values()):
            ray.kill(actor)
        self._coming.clear()
        self._arrivals.clear()
        self.present.clear()

    def _told(self) -> str:
        return f"the first of {len(self._coming)} workers of {room.told(self._taken)} each"
