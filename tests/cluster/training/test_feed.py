"""Batches ahead of training: the same ones however they are made, and only real waiting is counted."""

import threading
import time

import pytest

from cluster.training.feed import Feed, load
from cluster.training.meter import Meter


class Squares:
    """Batch n is n * n; one of them cannot be made."""

    def __init__(self, broken=-1, seconds=0.0):
        self.broken, self.seconds, self.threads = broken, seconds, set()

    def __getitem__(self, number):
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
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


def test_a_thread_works_while_training_does():
    data = Squares(seconds=0.03)
    start = time.perf_counter()
    for _ in load(data, range(10), 0):
        time.sleep(0.03)
    assert time.perf_counter() - start < 0.5  # 0.6 one after the other
    assert threading.get_ident() not in data.threads


def test_making_ready_is_no_waiting():
    def slow(value):
        time.sleep(0.02)
        return value + 1

    def late():
        for number in range(5):
            time.sleep(0.01)
            yield number

    meter = Meter(1)
    assert list(meter.timed(Feed(late(), slow))) == [1, 2, 3, 4, 5]
    assert 0.05 <= meter.waited < 0.09
    whole = Meter(1)
    assert list(whole.timed(slow(n) for n in late())) == [1, 2, 3, 4, 5]
    assert whole.waited >= 0.15  # of an iterator that does not tell, everything is waiting
