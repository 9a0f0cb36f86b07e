"""Ray workers that apply a function to units of work, a bounded number of them in flight."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

from cluster.config import ClusterConfig
from cluster.engine import room
from cluster.engine.ending import ends
from cluster.engine.seen import Mark
from cluster.engine.workers import OtherClassError, Workers

logger = logging.getLogger(__name__)

#: Times that Ray itself does a unit again whose worker died, and times that a unit is handed out again after that, with
#: nothing beside it on its worker: so a unit is tried four times by its own count, and no other's death is on it.
_RETRIES, _ROUNDS = 1, 2
#: Seconds before that, for Ray to see what is left.
_PAUSE = 1.0
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


class Pool:
    """`size` workers at most, each with the CPUs and GPUs of the configuration. A context manager that ends them.

    They are asked for when there is a unit for each, and begin as they come: machines may be added while a map runs. A
    killed worker or node is replaced by Ray and its unit runs again, so functions must publish atomically and be
    idempotent; they may keep module-level caches. Every worker must see `mark`, if one is given, and be of the compute
    class of the stage that is served.
    """

    def __init__(self, config: ClusterConfig, mark: Mark | None = None):
        there = room.room(config)
        self.size = _size(config, there)
        self._lends = there.grows or config.gpus_per_worker > 0
        self._workers = Workers(config, self.size, _RETRIES, mark)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if not ends():  # with the command, whose Ray may be gone
            self._workers.end()

    def serve(self, folder: Path) -> None:
        """Work for the stage of this folder from now on, see `Workers.serve`."""
        self._workers.serve(folder)

    def rest(self) -> None:
        """Between stages, end workers that hold GPUs, or machines that would go; they come again with the next unit."""
        if self._lends:
            self._workers.end()

    def map(self, function: Callable[[Any], Any], units: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        """Yield (position, result) as units finish, in no order; a unit that raised yields a `Failure`.

        At most two units a worker are in flight: one at work, one waiting, whatever the number of units. When a worker
        dies of one of two, nobody knows of which: it gets them again one at a time. At the end workers that have
        nothing left to do take over what others still hold, if no unit has finished for a while: the others may be on a
        node that is gone and that nobody replaces. The first result counts.
        """
        feed = iter(enumerate(units))
        first = list(itertools.islice(feed, self.size))
        if not first:
            return
        self._workers.bring(len(first))
        flights = _Flights(ray.put(function), itertools.chain(first, feed), self._workers)
        for most in (1, 2):  # one each first
            for actor in self._workers.present:
                flights.fill(actor, most)
        while flights.pending:
            flight, result = flights.next()
            if flight is None:
                continue
            if isinstance(result, OtherClassError):
                flights.move(flight, result)
                continue
            if isinstance(result, _GONE) and flights.retried(flight):
                continue
            others = flights.drop(flight.index)
            if isinstance(result, _GONE):
                result = _failure(flight.index, result, self._workers.host(flight.actor))
            yield flight.index, result
            for actor in (flight.actor, *others):
                flights.fill(actor)

    def on_each(self, function: Callable[[Any], Any], units: Sequence[Any]) -> list[Any]:
        """Run unit i on worker i modulo `present`, always the same one, and return the results in order."""
        return list(self.each(function, units))

    def each(self, function: Callable[[Any], Any], units: Sequence[Any]) -> Iterator[Any]:
        """Yield what `on_each` returns as it comes, in order; `function` travels once to each node.

        At most four units a worker are handed out beyond the result that is awaited, so that large results do not pile
        up. A killed worker comes back without what it kept in memory.

        Raises:
            ValueError: for a unit whose function raised, or whose worker died again and again.
        """
        if not units:
            return
        self._workers.bring(len(units))
        self._workers.arrived()
        actors, shared = tuple(self._workers.present), ray.put(function)
        pending: deque[ray.ObjectRef] = deque()
        for index in range(len(units)):
            while len(pending) < 4 * len(actors) and index + len(pending) < len(units):
                ahead = index + len(pending)
                pending.append(self._workers.run(actors[ahead % len(actors)], shared, units[ahead]))
            yield self._awaited(pending.popleft(), actors[index % len(actors)], shared, units[index], index)

    def on_all(self, function: Callable[[Any], Any]) -> None:
        """Run `function(None)` on each worker that is there."""
        shared = ray.put(function)
        ray.get([self._workers.run(actor, shared, None) for actor in self._workers.present])

    @property
    def present(self) -> int:
        """The workers that are there; units that have a worker of their own move when it changes."""
        return len(self._workers.present)

    def _awaited(self, reference: Any, actor: Any, shared: Any, unit: Any, index: int) -> Any:
        """The result of a unit; where its worker died, all that was in flight there has failed, and it goes alone."""
        for left in range(_ROUNDS, -1, -1):
            while not ray.wait([reference], timeout=_QUIET)[0]:
                _tell([f"part {index} on {self._workers.host(actor)}"])
            result = _result(reference, index)
            if not (isinstance(result, _GONE) and left):
                break
            logger.warning("part %d: its worker died on %s; it is done again", index, self._workers.host(actor))
            time.sleep(_PAUSE)
            reference = self._workers.run(actor, shared, unit)
        if isinstance(result, _GONE):
            result = _failure(index, result, self._workers.host(actor))
        if isinstance(result, OtherClassError):
            raise ValueError(f"{result}; run again to go on")
        if isinstance(result, Failure):
            raise ValueError(result.message) from result.error
        return result


@dataclass(frozen=True)
class _Flight:
    """A unit that an actor was given."""

    index: int
    unit: Any
    actor: Any
    deaths: int = 0
    """Of the worker while it had this unit alone, each after all that Ray did."""
    company: bool = False
    """Whether another unit was in flight beside it when its worker died."""

    @property
    def name(self) -> str:
        """Of the unit, for the log."""
        return str(getattr(self.unit, "name", self.index))


class _Flights:
    """What is in flight: by reference in `pending`; by actor in `_again` what an actor gets again, one at a time."""

    def __init__(self, function: Any, feed: Iterator[tuple[int, Any]], workers: Workers):
        self.pending: dict[Any, _Flight] = {}
        self._function, self._feed, self._workers = function, feed, workers
        self._again: defaultdict[Any, deque[_Flight]] = defaultdict(deque)
        self._idle: list[Any] = []

    def fill(self, actor: Any, most: int = 2) -> None:
        """Give the actor work: up to `most` units, or what it gets again, alone."""
        flying = sum(flight.actor is actor for flight in self.pending.values())
        if self._again[actor]:
            if not flying:
                self._submit(self._again[actor].popleft())
            return
        for index, unit in itertools.islice(self._feed, most - flying):
            self._submit(_Flight(index, unit, actor))
            flying += 1
        if not flying and actor not in self._idle:
            self._idle.append(actor)

    def _submit(self, flight: _Flight) -> None:
        if flight.actor in self._idle:
            self._idle.remove(flight.actor)
        self.pending[self._workers.run(flight.actor, self._function, flight.unit)] = flight

    def next(self) -> tuple[_Flight | None, Any]:
        """What has finished, and its result; None if a worker came, or nothing did for long, which is seen to."""
        patience = _PATIENCE if self._idle else _QUIET
        done, _ = ray.wait([*self._workers.coming, *self.pending], num_returns=1, timeout=patience)
        if done and done[0] in self.pending:
            flight = self.pending.pop(done[0])
            return flight, _result(done[0], flight.index)
        for actor in self._workers.arrived():
            self.fill(actor)
        if not done and self._idle:
            self._take_over()
        elif not done:
            _tell(sorted(f"{flight.name} on {self._workers.host(flight.actor)}" for flight in self.pending.values()))
        return None, None

    def retried(self, flight: _Flight) -> bool:
        """Whether a unit whose worker died is done all the same: by another worker, or again."""
        beside = [reference for reference, other in self.pending.items() if other.actor is flight.actor]
        for reference in beside:
            self.pending[reference] = dataclasses.replace(self.pending[reference], company=True)
        deaths = flight.deaths + (0 if beside or flight.company else 1)
        held = any(other.index == flight.index for other in self.pending.values())
        if not held and deaths >= _ROUNDS:
            return False
        if not held:
            host = self._workers.host(flight.actor)
            logger.warning("unit %s: its worker died on %s; the unit is done again", flight.name, host)
            self._again[flight.actor].append(dataclasses.replace(flight, deaths=deaths, company=False))
            time.sleep(_PAUSE)
        self.fill(flight.actor)
        return True

    def move(self, flight: _Flight, why: OtherClassError) -> None:
        """Give all that the unit's worker had to others: it came back where it may not work."""
        logger.warning("%s; others do its units", why)
        gone = [flight, *(one for one in self.pending.values() if one.actor is flight.actor)]
        gone += self._again.pop(flight.actor, ())
        self.pending = {reference: one for reference, one in self.pending.items() if one.actor is not flight.actor}
        held = {one.index for one in self.pending.values()}
        self._feed = itertools.chain([(one.index, one.unit) for one in gone if one.index not in held], self._feed)
        self._workers.replace(flight.actor)
        for actor in self._workers.present:
            self.fill(actor)

    def drop(self, index: int) -> list[Any]:
        """Expect no other result of the unit; the actors that still had it."""
        twins = [reference for reference, other in self.pending.items() if other.index == index]
        return [self.pending.pop(reference).actor for reference in twins]

    def _take_over(self) -> None:
        """Give units in flight, each to one more worker at most, to idle workers that do not have them already."""
        held = Counter(flight.index for flight in self.pending.values())
        for flight in list(self.pending.values()):
            others = [actor for actor in self._idle if actor is not flight.actor]
            if held[flight.index] == 1 and others:
                host = self._workers.host(flight.actor)
                logger.warning(
                    "unit %s has been under way for long on %s; another worker has it too", flight.name, host
                )
                self._submit(dataclasses.replace(flight, actor=others[0], deaths=0, company=False))


def _tell(names: Sequence[str]) -> None:
    """Say which units are under way that nothing has come of for so long."""
    logger.warning("nothing was finished for %g s; under way: %s", _QUIET, ", ".join(names))


def _result(reference: Any, index: int) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        logger.debug("unit %d failed", index, exc_info=True)
        cause = error.cause if error.cause is not None else error
        if isinstance(cause, OtherClassError):
            return cause
        return Failure(index, f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else error}", cause)
    except _GONE as error:
        return error


def _failure(index: int, error: Exception, host: str) -> Failure:
    """Ray's text is a page long; what mostly kills workers is the machine's lack of memory, which it cannot see."""
    logger.debug("unit %d: %s", index, error)
    return Failure(
        index,
        f"the worker died again and again ({type(error).__name__}, first on {host}), mostly of too little memory; "
        "lower cluster.workers or see the machine's log (dmesg)",
    )


def _size(config: ClusterConfig, there: room.Room) -> int:
    """How many workers a pool may have.

    Raises:
        ValueError: if there can never be one, or nobody knows how many there can be.
    """
    taken = room.worker(config)
    keys = "cluster.cpus_per_worker or cluster.gpus_per_worker"
    if problems := room.lacking(1, taken, "worker", keys, there):
        raise ValueError(problems[0])
    most = there.may_fit(taken)
    fitting = there.fits(taken) if most is None else most
    size = config.workers or fitting
    if not size:
        raise ValueError(
            f"cluster.workers: expected a number, for no worker of {room.told(taken)} fits the cluster now and it does "
            "not say how far it grows, got none; set cluster.workers=NUMBER"
        )
    if most is not None and size > most:
        logger.warning(
            "cluster.workers=%d, but at most %d fit the cluster: the others wait until it is larger; lower "
            "cluster.workers if it never is",
            size,
            most,
        )
    return size
