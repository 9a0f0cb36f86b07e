import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import ray

from cluster.config import ClusterConfig
from cluster.engine import compute, pool, room, workers
from cluster.engine.pool import Failure, Pool


def square(number):
    return number * number


def where(_):
    return os.getpid()


class Fails:
    """Raises for some units, with messages of several kinds."""

    def __call__(self, unit):
        if unit == 2:
            raise ValueError("expected 3, got 2\nsecond line")
        if unit == 4:
            raise RuntimeError
        return unit


class KillsItself:
    """Dies of SIGKILL at one unit, the first time."""

    def __init__(self, folder: Path, unit: int):
        self.folder, self.unit = folder, unit

    def __call__(self, unit):
        marker = self.folder / "killed"
        if unit == self.unit and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return unit * 10


def test_results_are_complete(pools):
    assert dict(pools[2].map(square, range(30))) == {i: i * i for i in range(30)}
    assert dict(pools[1].map(square, [7])) == {0: 49}
    assert dict(pools[2].map(square, [])) == {}


def test_arrays_and_closures_travel(pools):
    offset = np.arange(3)
    results = dict(pools[2].map(lambda unit: unit + offset, [np.ones(3), np.zeros(3)]))
    np.testing.assert_array_equal(results[0], [1, 2, 3])
    np.testing.assert_array_equal(results[1], [0, 1, 2])


def test_work_is_spread_and_workers_stay(pools):
    def slow(_):
        time.sleep(0.05)
        return os.getpid()

    first, second = (set(dict(pools[2].map(slow, range(8))).values()) for _ in range(2))
    assert len(first) == 2
    assert first == second
    assert set(dict(pools[1].map(where, range(3))).values()).isdisjoint(first)


@pytest.mark.parametrize("size", [1, 2])
def test_units_in_flight_are_bounded(pools, size):
    taken = []

    def feed():
        for number in range(50):
            taken.append(number)
            yield number

    results = pools[size].map(square, feed())
    assert taken == []
    for finished in range(1, 11):
        next(results)
        assert len(taken) <= 2 * size + finished - 1
    assert len(list(results)) == 40
    assert len(taken) == 50


def test_exceptions_become_failures(pools):
    results = dict(pools[2].map(Fails(), range(6)))
    assert results[2] == Failure(2, "ValueError: expected 3, got 2")
    assert isinstance(results[4], Failure)
    assert results[4].message.startswith("RuntimeError")
    assert {i: results[i] for i in (0, 1, 3, 5)} == {0: 0, 1: 1, 3: 3, 5: 5}


def test_a_killed_worker_is_replaced(pools, tmp_path):
    results = dict(pools[2].map(KillsItself(tmp_path, 3), range(8)))
    assert (tmp_path / "killed").exists()
    assert results == {i: i * 10 for i in range(8)}
    assert len(set(pools[2].on_each(where, [0, 1]))) == 2


def test_a_worker_killed_from_outside_is_replaced(pools):
    def slow(unit):
        time.sleep(0.1)
        return unit, os.getpid()

    results = pools[2].map(slow, range(12))
    _, (first, pid) = next(results)
    os.kill(pid, signal.SIGKILL)
    others = [unit for _, (unit, _) in results]
    assert sorted([first, *others]) == list(range(12))


@pytest.fixture
def impatient(ray_session, monkeypatch):
    """A pool of one worker that gives a unit up after one death; starting a worker again takes seconds."""
    monkeypatch.setattr(pool, "_RETRIES", 0)
    monkeypatch.setattr(pool, "_ROUNDS", 1)
    with Pool(ClusterConfig(workers=1)) as one:
        yield one


def test_a_unit_that_always_kills_is_a_failure_after_some_tries(impatient, tmp_path):
    """It kills once the result of the unit before it has arrived, which else might die with the worker."""
    arrived = tmp_path / "arrived"

    def deadly(unit):
        if unit == 1:
            while not arrived.exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return unit

    results = impatient.map(deadly, range(2))
    assert next(results) == (0, 0)
    arrived.touch()
    ((_, failure),) = results
    assert "died again and again" in failure.message
    assert f"first on {socket.gethostname()}" in failure.message
    with pytest.raises(ValueError, match="died again and again"):
        list(impatient.each(deadly, [1]))


class Deadly:
    """Notes each time that it is begun; dies at some units every time."""

    def __init__(self, folder: Path, units):
        self.folder, self.units = folder, units

    def __call__(self, unit):
        with (self.folder / f"{unit}").open("a") as file:
            file.write("x")
        if unit in self.units:
            os.kill(os.getpid(), signal.SIGKILL)
        return unit

    def begun(self, unit):
        return len((self.folder / f"{unit}").read_text())


@pytest.mark.slow
def test_a_unit_is_tried_by_its_own_count(ray_session, tmp_path, monkeypatch):
    """Here twice alone, and before that two at most with the other unit of its worker, of which either may die."""
    monkeypatch.setattr(pool, "_ROUNDS", 1)
    deadly = {0, 1}
    function = Deadly(tmp_path, deadly)
    with Pool(ClusterConfig(workers=1)) as one:
        found = dict(one.map(function, range(6)))
        assert [i for i in range(6) if isinstance(found[i], Failure)] == sorted(deadly)
        assert all(found[i] == i for i in range(6) if i not in deadly)
        assert all(2 <= function.begun(unit) <= 4 for unit in deadly)
        assert one.on_each(square, range(5)) == [0, 1, 4, 9, 16]


@pytest.mark.slow
def test_a_unit_in_its_place_is_tried_four_times(ray_session, tmp_path):
    function = Deadly(tmp_path, {2})
    with Pool(ClusterConfig(workers=1)) as one:
        with pytest.raises(ValueError, match="died again and again"):
            one.on_each(function, range(4))
        assert 4 <= function.begun(2) <= 6
        assert one.on_each(square, [3]) == [9]


def test_a_worker_that_hangs_loses_its_units_to_idle_ones(pools, tmp_path, monkeypatch):
    """It stops at unit 1 with another unit waiting behind, as if its node were gone; each result comes once."""
    monkeypatch.setattr(pool, "_PATIENCE", 0.3)

    def stops(unit):
        if unit == 1 and not (tmp_path / "pid").exists():
            (tmp_path / "pid").write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return unit

    try:
        found = list(pools[2].map(stops, range(8)))
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)
    assert sorted(found) == [(unit, unit) for unit in range(8)]
    assert len(set(pools[2].on_each(where, [0, 1]))) == 2


class ComesBackElsewhere:
    """At the first unit its worker moves to a machine of another compute class; others wait until that is seen."""

    def __init__(self, folder: Path):
        self.moved, self.seen = folder / "moved", folder / "seen"

    def __call__(self, unit):
        try:
            self.moved.touch(exist_ok=False)
            compute.here = self.elsewhere
        except FileExistsError:
            while not self.seen.exists():  # else the test's own limit ends it
                time.sleep(0.01)
        return unit

    def elsewhere(self):
        self.seen.touch()
        return {**compute.noted(self.moved.parent / "label/1")[0], "processor": "abacus"}


@pytest.fixture
def made_on_one_class(pools, tmp_path):
    """A pool that works for a stage."""
    pools[2].serve(tmp_path / "label/1")
    yield pools[2]
    pools[2]._workers._makers = None


def test_a_worker_that_comes_back_on_another_class_loses_its_units_to_others(made_on_one_class, tmp_path, caplog):
    found = list(made_on_one_class.map(ComesBackElsewhere(tmp_path), range(12)))
    assert sorted(found) == [(unit, unit) for unit in range(12)]
    assert "of another compute class (processor abacus, not " in caplog.text
    assert made_on_one_class.on_each(square, [1, 2]) == [1, 4]


def test_a_machine_that_is_lost_is_named(pools, monkeypatch):
    assert pools[1].on_each(square, [3]) == [9]
    ours = pools[1]._workers
    (actor,) = ours.present
    assert ours.host(actor) == socket.gethostname()
    monkeypatch.setattr(room, "hosts", dict)
    assert ours.host(actor) == f"{socket.gethostname()}, which has left the cluster"


def test_workers_are_asked_for_when_there_is_a_unit_for_each(ray_session):
    with Pool(ClusterConfig(workers=3)) as one:
        assert dict(one.map(square, [])) == {}
        assert one.on_each(square, []) == []
        assert (one.size, one.present) == (3, 0)
        assert dict(one.map(square, [3])) == {0: 9}
        assert one.present == 1


def _free() -> float:
    """The CPUs that are free once the workers of earlier tests have given theirs back, which Ray tells late."""
    before, now = -1.0, ray.available_resources()["CPU"]
    while now != before:
        time.sleep(2)
        before, now = now, ray.available_resources()["CPU"]
    return now


@pytest.mark.slow
def test_a_worker_that_comes_later_takes_its_share(ray_session, monkeypatch):
    """There is room for it after the first result; units that have a worker of their own move in the next round."""
    monkeypatch.setattr(workers, "_GATHERING", 0.0)

    def slow(_):
        time.sleep(0.05)
        return os.getpid()

    others = ray.remote(num_cpus=_free() - 1)(Fails).remote()
    ray.get(others.__ray_ready__.remote())
    with Pool(ClusterConfig(workers=2)) as one:
        results = one.map(slow, range(400))
        seen = [next(results)[1] for _ in range(3)]
        assert (one.present, len(set(seen))) == (1, 1)
        ray.kill(others)
        seen += [pid for _, pid in results]
        assert (one.present, len(set(seen))) == (2, 2)
        assert len(set(one.on_each(where, range(4)))) == 2


def test_on_each_keeps_order_and_place(pools):
    assert pools[2].on_each(square, list(range(7))) == [i * i for i in range(7)]
    first = pools[2].on_each(where, list(range(6)))
    assert first[0::2] == [first[0]] * 3
    assert first[1::2] == [first[1]] * 3
    assert first[0] != first[1]
    assert pools[2].on_each(where, list(range(6))) == first


def test_a_worker_killed_in_on_each_comes_back(pools, tmp_path):
    assert pools[2].on_each(KillsItself(tmp_path, 3), list(range(9))) == [i * 10 for i in range(9)]
    assert (tmp_path / "killed").exists()


def test_a_worker_killed_from_outside_in_on_each_comes_back(pools):
    def slow(unit):
        time.sleep(0.1)
        return unit, os.getpid()

    results = pools[2].each(slow, list(range(10)))
    first, pid = next(results)
    os.kill(pid, signal.SIGKILL)
    assert [first, *(unit for unit, _ in results)] == list(range(10))


def test_on_each_tells_what_failed(pools):
    with pytest.raises(ValueError, match=r"^ValueError: expected 3, got 2$"):
        pools[2].on_each(Fails(), list(range(6)))
    assert pools[2].on_each(square, [3]) == [9]


def test_a_pool_that_does_not_fit_is_refused(ray_session):
    with pytest.raises(ValueError, match=r"which takes 1000 CPUs .* room for 0 .* lower cluster.cpus_per_worker"):
        Pool(ClusterConfig(cpus_per_worker=1000))
    with pytest.raises(ValueError, match=r"1 CPUs and 1 GPUs, got .* on machines of 6 CPUs and 0 GPUs"):
        Pool(ClusterConfig(gpus_per_worker=1))
