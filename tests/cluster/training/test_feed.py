"""Batches ahead of training: the same ones however they are made, and only real waiting is counted."""

import multiprocessing
import threading
import types

import pytest

from cluster.training import feed, meter
from cluster.training.feed import Feed, load
from cluster.training.meter import Meter


class Squares:
    """Batch n is n * n; one of them cannot be made."""

    def __init__(self, broken=-1):
        self.broken = broken

    def __getitem__(self, number):
        if number == self.broken:
            raise ValueError(f"batch {number} cannot be read")
        return number * number


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_and_errors_in_their_place(workers):
    assert list(load(Squares(), range(3, 9), workers)) == [n * n for n in range(3, 9)]
    batches = load(Squares(broken=5), range(3, 9), workers)
    assert [next(batches), next(batches)] == [9, 16]
    with pytest.raises(ValueError, match="batch 5 cannot be read"):
        next(batches)
    assert multiprocessing.active_children() == []  # although the error is still held


def test_a_thread_works_while_training_does():
    """While a batch is trained on, the next one is begun, by another thread."""
    begun = {number: threading.Event() for number in range(10)}
    threads = set()

    class Noted:
        def __getitem__(self, number):
            threads.add(threading.get_ident())
            begun[number].set()
            return number

    for number in load(Noted(), range(10), 0):
        assert number == 9 or begun[number + 1].wait(timeout=300)
    assert threads
    assert threading.get_ident() not in threads


class Clock:
    """A time that passes only when somebody sleeps."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        for module in (feed, meter):
            monkeypatch.setattr(
                module, "time", types.SimpleNamespace(perf_counter=lambda: self.now, process_time=float)
            )

    def sleep(self, duration):
        self.now += duration


def test_making_ready_is_no_waiting(monkeypatch):
    clock = Clock(monkeypatch)

    def slow(value):
        clock.sleep(2)
        return value + 1

    def late():
        for number in range(5):
            clock.sleep(1)
            yield number

    told = Meter(1)
    assert list(told.timed(Feed(late(), slow))) == [1, 2, 3, 4, 5]
    assert told.waited == 5
    whole = Meter(1)
    assert list(whole.timed(slow(n) for n in late())) == [1, 2, 3, 4, 5]
    assert whole.waited == 15  # of an iterator that does not tell, everything is waiting
