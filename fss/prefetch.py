"""Work done ahead in threads: decoding and encoding release the interpreter, so they run beside the network."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def batches(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    """`items` in order, `size` at a time, in the end perhaps fewer."""
    feed = iter(items)
    while batch := tuple(itertools.islice(feed, size)):
        yield batch


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: ThreadPoolExecutor, most: int
) -> Iterator[Result]:
    """`function` of every item, in order, at most `most` of them made or being made before they are asked for.

    Whatever the function raises is raised where its result would have been; what was not begun by then never is.
    """
    feed = iter(items)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in feed:
            waiting.append(threads.submit(function, item))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
