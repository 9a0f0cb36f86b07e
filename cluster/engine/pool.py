"""Ray workers that apply a function to units of work, a bounded number of them in flight."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

from cluster.config import ClusterConfig
from cluster.engine.files import damaged_in
from cluster.tracking import redact

logger = logging.getLogger(__name__)

#: Times that a unit is handed out again when its worker could not be reached (another unit killed it, the network
#: failed), and the seconds in between; Ray's own retries do not cover this.
_TRIES, _PAUSE = 5, 1.0
#: Times that Ray itself does a unit again whose worker died of it.
_RETRIES = 3
#: What Ray says of a unit whose worker is gone for good: the process, for want of memory, or with its machine.
_GONE = (RayActorError, OutOfMemoryError, NodeDiedError)
#: Seconds without any result after which idle workers take over units that others hold.
_PATIENCE = 10.0
#: Seconds without any result after which the log says what is under way.
_QUIET = 300.0


@dataclass(frozen=True)
class Failure:
    """A unit whose function raised: the unit's position, what it said, and the exception if it came whole."""

    index: int
    message: str
    error: BaseException | None = dataclasses.field(default=None, compare=False)


class _Worker:
    """Stays alive between stages, so that backbones and features which a function caches are reused."""

    def __init__(self, threads: int):
        import os

        os.environ["OMP_NUM_THREADS"] = str(threads)
        redact.install()
        import torch

        torch.set_num_threads(threads)
        try:
            import faiss
        except ImportError:
            pass
        else:
            faiss.omp_set_num_threads(threads)

    def run(self, function: Callable[[Any], Any], unit: Any) -> Any:
        try:
            return function(unit)
        except Exception as error:
            if damaged := next(damaged_in(error), None):
                raise damaged from None  # what caused an error does not cross processes, only the error itself does
            raise


class Pool:
    """`size` Ray actors, each with the CPUs and GPUs of the configuration. A context manager that ends them.

    A killed worker or node is replaced by Ray and its unit runs again, so functions must publish atomically and be
    idempotent; they may keep module-level caches.
    """

    def __init__(self, config: ClusterConfig):
        fitting = _fitting(config)
        self.size = config.workers or fitting
        if self.size > fitting:
            logger.warning(
                "cluster.workers=%d, but only %d fit the cluster now: their units wait until it has grown; "
                "lower cluster.workers if it does not grow",
                self.size,
                fitting,
            )
        remote = ray.remote(
            num_cpus=config.cpus_per_worker, num_gpus=config.gpus_per_worker, max_restarts=-1, max_task_retries=_RETRIES
        )(_Worker)
        self._actors: list[Any] = [remote.remote(config.cpus_per_worker) for _ in range(self.size)]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def map(self, function: Callable[[Any], Any], units: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield (position, result) as units finish, in no order; a unit that raised yields a `Failure`.

        At most two units a worker are in flight: one at work, one waiting, whatever the number of units. At the end
        workers that have nothing left to do take over what others still hold, if no unit has finished for a while: the
        others may be on a node that is gone and that nobody replaces. The first result counts.
        """
        shared = ray.put(function)
        pending: dict[ray.ObjectRef, _Flight] = {}
        idle: list[Any] = []
        feed = enumerate(units)
        for actor in self._actors * 2:
            _submit(actor, shared, feed, pending)
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1, timeout=_PATIENCE if idle else _QUIET)
            if not done:
                _take_over(idle, shared, pending) if idle else _tell(pending)
                continue
            flight = pending.pop(done[0])
            result = _result(done[0], flight.index)
            if isinstance(result, ActorUnavailableError) and flight.tries < _TRIES:
                time.sleep(_PAUSE)
                again = dataclasses.replace(flight, tries=flight.tries + 1)
                pending[flight.actor.run.remote(shared, flight.unit)] = again
                continue
            twins = [reference for reference, other in pending.items() if other.index == flight.index]
            if isinstance(result, _GONE) and twins:
                continue
            for twin in twins:
                pending.pop(twin)
            yield flight.index, _failure(flight.index, result) if isinstance(result, _GONE) else result
            if not _submit(flight.actor, shared, feed, pending):
                idle.append(flight.actor)

    def on_each(self, function: Callable[[Any], Any], units: Sequence[Any]) -> list[Any]:
        """Run unit i on worker i modulo the size, always the same one, and return the results in order."""
        return list(self.each(function, units))

    def each(self, function: Callable[[Any], Any], units: Sequence[Any]) -> Iterator[Any]:
        """Yield what `on_each` returns as it comes, in order; `function` travels once to each node.

        At most four units a worker are handed out beyond the result that is awaited, so that large results do not pile
        up. A killed worker comes back without what it kept in memory.

        Raises:
            ValueError: for a unit whose function raised, or whose worker died again and again.
        """
        shared = ray.put(function)
        pending: deque[ray.ObjectRef] = deque()
        for index in range(len(units)):
            while len(pending) < 4 * self.size and index + len(pending) < len(units):
                pending.append(self._place(shared, units, index + len(pending)))
            yield self._awaited(pending.popleft(), shared, units, index)

    def _place(self, shared: Any, units: Sequence[Any], index: int) -> Any:
        return self._actors[index % self.size].run.remote(shared, units[index])

    def _awaited(self, reference: Any, shared: Any, units: Sequence[Any], index: int) -> Any:
        for _ in range(_TRIES):
            result = _result(reference, index)
            if not isinstance(result, ActorUnavailableError):
                break
            time.sleep(_PAUSE)
            reference = self._place(shared, units, index)
        if isinstance(result, _GONE):
            result = _failure(index, result)
        if isinstance(result, Failure):
            raise ValueError(result.message) from result.error
        return result


@dataclass(frozen=True)
class _Flight:
    """A unit that an actor was given; `tries` before this one in which the actor could not be reached."""

    index: int
    unit: Any
    actor: Any
    tries: int = 0


def _submit(actor: Any, shared: Any, feed: Iterator[tuple[int, Any]], pending: dict[Any, _Flight]) -> bool:
    for index, unit in feed:
        pending[actor.run.remote(shared, unit)] = _Flight(index, unit, actor)
        return True
    return False


def _tell(pending: Mapping[Any, _Flight]) -> None:
    """Say which units are under way that nothing has come of for so long."""
    names = sorted(str(getattr(flight.unit, "name", flight.index)) for flight in pending.values())
    logger.warning("nothing was finished for %g s; under way: %s", _QUIET, ", ".join(names))


def _take_over(idle: list[Any], shared: Any, pending: dict[Any, _Flight]) -> None:
    """Give units in flight, each to one more worker at most, to idle workers that do not have them already."""
    held = Counter(flight.index for flight in pending.values())
    for flight in list(pending.values()):
        others = [actor for actor in idle if actor is not flight.actor]
        if held[flight.index] == 1 and others:
            idle.remove(others[0])
            logger.warning("unit %d has been under way for long; another worker takes it over", flight.index)
            pending[others[0].run.remote(shared, flight.unit)] = dataclasses.replace(flight, actor=others[0], tries=0)


def _result(reference: Any, index: int) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        logger.debug("unit %d failed", index, exc_info=True)
        cause = error.cause if error.cause is not None else error
        return Failure(index, f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else error}", cause)
    except _GONE as error:
        return error


def _failure(index: int, error: Exception) -> Failure:
    """Ray's text is a page long; what mostly kills workers is the machine's lack of memory, which it cannot see."""
    logger.debug("unit %d: %s", index, error)
    return Failure(
        index,
        f"the worker died again and again ({type(error).__name__}), mostly of too little memory; lower cluster.workers "
        "or see the machine's log (dmesg)",
    )


def _fitting(config: ClusterConfig) -> int:
    resources = ray.cluster_resources()
    fitting = int(resources.get("CPU", 1) // config.cpus_per_worker)
    if config.gpus_per_worker:
        fitting = min(fitting, int(resources.get("GPU", 0) // config.gpus_per_worker))
    if fitting < 1:
        raise ValueError(
            f"expected a cluster with {config.cpus_per_worker} CPUs and {config.gpus_per_worker} GPUs free for one "
            f"worker, got {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs; "
            "lower cluster.cpus_per_worker or cluster.gpus_per_worker"
        )
    return fitting
