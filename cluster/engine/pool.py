"""Ray workers that apply a function to units of work, a bounded number of them in flight."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from cluster.config import ClusterConfig
from cluster.engine.files import damaged_in
from cluster.tracking import redact

logger = logging.getLogger(__name__)

#: Times that a unit is begun whose worker dies or cannot be reached any more, until it is given up.
_TRIES = 4
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

    @ray.method(max_task_retries=-1)
    def there(self) -> None:
        """Returns once the worker is there, again if it has died."""

    def run(self, function: Callable[[Any], Any], unit: Any, there: None = None) -> Any:
        try:
            return function(unit)
        except Exception as error:
            if damaged := next(damaged_in(error), None):
                raise damaged from None  # what caused an error does not cross processes, only the error itself does
            raise


class Pool:
    """`size` Ray actors, each with the CPUs and GPUs of the configuration. A context manager that ends them.

    A killed worker or node is replaced by Ray and its unit runs again, so functions must publish atomically and be
    idempotent; they may keep module-level caches. Each death counts for the unit that was at work, which is given up
    after some of them, and not for those that waited behind it.
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
            num_cpus=config.cpus_per_worker, num_gpus=config.gpus_per_worker, max_restarts=-1, max_task_retries=0
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
        flights = _Flights(ray.put(function))
        idle: list[Any] = []
        feed = enumerate(units)
        for actor in self._actors * 2:
            flights.submit_next(actor, feed)
        while flights.pending:
            done, _ = ray.wait(list(flights.pending), num_returns=1, timeout=_PATIENCE if idle else _QUIET)
            if not done:
                flights.take_over(idle) if idle else flights.tell()
                continue
            for flight, result in flights.land(done[0]):
                yield flight.index, result
                if not flights.submit_next(flight.actor, feed):
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
            yield self._awaited(pending, shared, units, index)

    def _place(self, shared: Any, units: Sequence[Any], index: int, there: Any = None) -> Any:
        return self._actors[index % self.size].run.remote(shared, units[index], there)

    def _awaited(self, pending: deque[ray.ObjectRef], shared: Any, units: Sequence[Any], index: int) -> Any:
        """The result of unit `index`, the first of `pending`; with it a dead worker gets again what waited behind."""
        reference = pending.popleft()
        result = _result(reference, index)
        for _ in range(_TRIES - 1):
            if not isinstance(result, RayActorError):
                break
            there = self._actors[index % self.size].there.remote()
            reference = self._place(shared, units, index, there)
            for place, other in enumerate(range(index + 1, index + 1 + len(pending))):
                if other % self.size == index % self.size:
                    pending[place] = self._place(shared, units, other, there)
            result = _result(reference, index)
        if isinstance(result, RayActorError):
            result = _failure(index, result)
        if isinstance(result, Failure):
            raise ValueError(result.message) from result.error
        return result


@dataclass(frozen=True)
class _Flight:
    """A unit that an actor was given, which does what it was given in the order of `number`."""

    index: int
    unit: Any
    actor: Any
    number: int


class _Flights:
    """Units under way, by the reference of what they will come to, and how often a worker died of each."""

    def __init__(self, function: Any):
        self.pending: dict[ray.ObjectRef, _Flight] = {}
        self._function, self._numbers = function, itertools.count()
        self._deaths: Counter[int] = Counter()

    def submit_next(self, actor: Any, feed: Iterator[tuple[int, Any]]) -> bool:
        """Give `actor` the next unit; False if there is none."""
        for index, unit in feed:
            self._submit(index, unit, actor)
            return True
        return False

    def _submit(self, index: int, unit: Any, actor: Any, there: Any = None) -> None:
        reference = actor.run.remote(self._function, unit, there)
        self.pending[reference] = _Flight(index, unit, actor, next(self._numbers))

    def land(self, reference: ray.ObjectRef) -> list[tuple[_Flight, Any]]:
        """What the flight of `reference` came to, and others with it if its worker died; those to do again are not."""
        flight = self.pending.pop(reference)
        result = _result(reference, flight.index)
        landed = self._after_death(flight, result) if isinstance(result, RayActorError) else [(flight, result)]
        for one, _ in landed:
            for twin in self._twins(one):
                self.pending.pop(twin)
        return landed

    def _twins(self, flight: _Flight) -> list[ray.ObjectRef]:
        return [reference for reference, other in self.pending.items() if other.index == flight.index]

    def _after_death(self, flight: _Flight, error: RayActorError) -> list[tuple[_Flight, Any]]:
        """All flights of the worker that died: its results, and a failure of the unit that has killed too many."""
        own = [reference for reference, other in self.pending.items() if other.actor is flight.actor]
        ended = [(flight, error), *((other := self.pending.pop(one), _result(one, other.index)) for one in own)]
        ended.sort(key=lambda pair: pair[0].number)
        landed = [pair for pair in ended if not isinstance(pair[1], RayActorError)]
        guilty, *innocent = (one for one, result in ended if isinstance(result, RayActorError))
        self._deaths[guilty.index] += 1
        if self._deaths[guilty.index] >= _TRIES:
            landed.append((guilty, _failure(guilty.index, error)))
        again = [one for one in (*innocent, guilty) if self._deaths[one.index] < _TRIES and not self._twins(one)]
        there = flight.actor.there.remote() if again else None
        for one in again:
            self._submit(one.index, one.unit, one.actor, there)
        return landed

    def tell(self) -> None:
        """Say which units are under way that nothing has come of for so long."""
        names = (str(getattr(flight.unit, "name", flight.index)) for flight in self.pending.values())
        logger.warning("nothing was finished for %g s; under way: %s", _QUIET, ", ".join(sorted(names)))

    def take_over(self, idle: list[Any]) -> None:
        """Give units in flight, each to one more worker at most, to idle workers that do not have them already."""
        held = Counter(flight.index for flight in self.pending.values())
        for flight in list(self.pending.values()):
            others = [actor for actor in idle if actor is not flight.actor]
            if held[flight.index] == 1 and others:
                idle.remove(others[0])
                logger.warning("unit %d has been under way for long; another worker takes it over", flight.index)
                self._submit(flight.index, flight.unit, others[0])


def _result(reference: Any, index: int) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        logger.debug("unit %d failed", index, exc_info=True)
        cause = error.cause if error.cause is not None else error
        return Failure(index, f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else error}", cause)
    except RayActorError as error:
        return error


def _failure(index: int, error: RayActorError) -> Failure:
    return Failure(index, f"the worker died again and again, {_TRIES} times: {error}")


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
