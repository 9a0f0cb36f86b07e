"""Work ahead in threads: in order, bounded, and errors come where the result would have."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fss.prefetch import ahead


@pytest.mark.parametrize("number", [0, 1, 2, 9])
def test_results_come_in_order_and_no_more_than_asked_are_begun(number):
    begun, lock = [], threading.Lock()

    def work(item):
        with lock:
            begun.append(item)
        return item * item

    with ThreadPoolExecutor(2) as threads:
        for index, found in enumerate(ahead(work, range(number), threads, most=3)):
            assert found == index * index
            assert len(begun) <= index + 3
    assert sorted(begun) == list(range(number))


def test_an_error_is_raised_in_its_place():
    with ThreadPoolExecutor(2) as threads:
        results = ahead(lambda item: 1 // item, [1, 0, 1], threads, most=3)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
