"""The processes of a pool: asked for when there is work, each given some once it is there, wherever it came to be."""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.config import ClusterConfig
from cluster.engine import compute, manifest, meters, room
from cluster.engine.compute import ComputeClass, Makers
from cluster.engine.files import damaged_in
from cluster.engine.seen import Mark
from cluster.tracking import redact
from fss.threads import one_for_sums

#: Seconds that the first worker waits for others that there is room for; and where they are of several compute classes.
_GATHERING, _SETTLING = 10.0, 60.0
#: Seconds that a worker may take to start where there is room for it, before the log speaks of waiting.
_STARTING = 20.0
#: The label by which Ray knows each machine.
_NODE = "ray.io/node-id"


@dataclass(frozen=True)
class Arrival:
    """Where a worker came to be, and what is wrong there."""

    host: str
    node: str
    problem: str | None
    compute: ComputeClass


class OtherClassError(Exception):
    """A worker that Ray has started again is on a machine whose compute class may not make the stage."""


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
        node = ray.get_runtime_context().get_node_id()
        return Arrival(socket.gethostname(), node, self._problem, compute.here())

    def run(self, function: Callable[[Any], Any], unit: Any, classes: Sequence[ComputeClass] | None = None) -> Any:
        """What `function` makes of `unit`.

        Raises:
            ValueError: if Ray has started this again on a machine that does not see what the run writes.
            OtherClassError: if it has on one that is of none of `classes`.
        """
        if self._problem:
            raise ValueError(self._problem)
        if classes is not None and compute.here() not in classes:
            *others, own = compute.words([*classes, compute.here()])
            raise OtherClassError(
                f"a worker came back on {socket.gethostname()}, of another compute class ({own}, not {others[0]})"
            )
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
        self._classes: dict[str, ComputeClass] = {}
        self._makers: Makers | None = None
        self.present: list[Any] = []
        """Those that are there, in the order in which they came."""

    @property
    def coming(self) -> list[Any]:
        """References that are there when one that was asked for is there."""
        return list(self._coming)

    def serve(self, folder: Path) -> None:
        """Work for the stage of this folder from now on, on machines of one compute class unless they may be mixed.

        Workers on others end when `bring` is called next.
        """
        repair = manifest.read_manifest(folder / manifest.PROMISED) is not None
        self._makers = Makers(folder, self._config.mixed, repair)

    def run(self, actor: Any, function: Any, unit: Any) -> Any:
        """A reference to what `Worker.run` returns there."""
        return actor.run.remote(function, unit, None if self._makers is None else self._makers.classes)

    def bring(self, number: int) -> None:
        """Ask for as many as that, or as many as there may be; wait for the first one, as long as it takes.

        Those that were asked for just now, and that there is room for, are waited for a little.

        Raises:
            ValueError: if there is no machine that may make the stage, and none may come.
        """
        self._sift(self.present)
        asked = self._ask(min(number, self._most) - len(self.present) - len(self._coming))
        self._gather(asked)
        self._sift(self.present)
        while not self.present:
            self._gather(len(self._coming))
            self._sift(self.present)

    def arrived(self) -> list[Any]:
        """Those that have come since this was last asked, and may work.

        Raises:
            ValueError: if one came to a machine that does not see what the run writes.
        """
        came = self._greet()
        self._sift(came)
        return [actor for actor in came if actor in self.present]

    def replace(self, actor: Any) -> None:
        """Ask for another in place of a worker that came back where it may not work; wait until there is one at all."""
        self._dismiss(actor)
        self.bring(len(self.present) + len(self._coming) + 1)

    def _ask(self, number: int) -> int:
        """Ask for so many, on machines that may make the stage; for how many there may be room."""
        barred = self._barred()
        there = room.room(self._config, barred)
        if barred and not there.grows:
            number = min(number, there.fits(self._taken) - len(self.present) - len(self._coming))
        where = {"label_selector": {_NODE: f"!in({','.join(barred)})"}} if barred else {}
        for _ in range(number):
            actor = self._remote.options(**where).remote(self._config.cpus_per_worker, self._mark)
            self._coming[actor.arrival.remote()] = actor
        self._count()
        return max(0, number)

    def _gather(self, asked: int) -> None:
        """Wait for the first one, and a little for those that were asked for and that there is room for."""
        if not self.present:
            next(room.awaited(self.coming, self._told, soon=_STARTING))
            self._greet()
        fitting = room.room(self._config, self._barred()).fits(self._taken)
        wanted = min(len(self.present) + len(self._coming), fitting) if asked else 0
        start = time.monotonic()
        while len(self.present) < wanted and (left := start + self._patience() - time.monotonic()) > 0:
            ray.wait(self.coming, num_returns=1, timeout=left)
            self._greet()

    def _patience(self) -> float:
        """Seconds to wait for all; longer where they are not alike, and most of them are to settle which may work."""
        return _GATHERING if len(compute.distinct(self._classes.values())) < 2 else _SETTLING

    def _greet(self) -> list[Any]:
        """Those that have come, whether they may work or not."""
        done, _ = ray.wait(self.coming, num_returns=len(self._coming), timeout=0) if self._coming else ([], [])
        came = [self._coming.pop(reference) for reference in done]
        for actor, arrival in zip(came, ray.get(done), strict=True):
            if arrival.problem:
                raise ValueError(arrival.problem)
            self._arrivals[actor] = arrival
            self._classes[arrival.node] = arrival.compute
        self.present += came
        self._count()
        return came

    def _sift(self, actors: Sequence[Any]) -> None:
        """Of these, end those that may not work for the stage, and ask for others in their place."""
        if self._makers is None or not actors:
            return
        classes = [self._arrivals[actor].compute for actor in actors]
        self._makers.choose(classes)
        others = [actor for actor in actors if not self._makers.admits(self._arrivals[actor].compute)]
        if len(others) == len(self.present):
            there = room.room(self._config, self._barred())
            if not there.grows and not there.fits(self._taken):
                self._makers.give_in(classes)
                return self._sift(actors)
        for actor in others:
            self._dismiss(actor)
        self._ask(len(others))

    def _barred(self) -> list[str]:
        """The machines that may not make the stage, as far as workers have been there."""
        makers = self._makers
        if makers is None or makers.mixed or not makers.classes:
            return []
        return sorted(node for node, one in self._classes.items() if not makers.admits(one))

    def _dismiss(self, actor: Any) -> None:
        self.present.remove(actor)
        ray.kill(actor)

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
        self._count()

    def _count(self) -> None:
        meters.workers(len(self.present), len(self._coming))

    def _told(self) -> str:
        return f"the first of {len(self._coming)} workers of {room.told(self._taken)} each"
