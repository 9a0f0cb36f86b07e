"""Batches read ahead of training, and how long it had to wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from torch.utils.data import DataLoader

from fss.prefetch import ahead

Raw = TypeVar("Raw")
Ready = TypeVar("Ready")
Made_co = TypeVar("Made_co", covariant=True)
#: Batches that a thread has made or is making before they are asked for.
_AHEAD = 2


class DataSource(Protocol[Made_co]):
    """A map-style data set."""

    def __getitem__(self, number: int) -> Made_co:
        """Batch `number`."""


def load(data: DataSource[Raw], numbers: Iterable[int], workers: int) -> Iterator[Raw]:
    """The batches of these numbers, in order, made ahead by `workers` processes or, with 0, by a thread.

    A thread shares the interpreter with the training itself; decoding, resampling and training release it.
    """
    if workers:
        try:
            yield from DataLoader(data, batch_size=None, sampler=numbers, num_workers=workers)  # type: ignore[arg-type]
        except Exception as error:  # torch's frames in its traceback would keep the processes as long as the error
            raise error.with_traceback(None) from error.__cause__
        return
    with ThreadPoolExecutor(1) as threads:
        yield from ahead(data.__getitem__, numbers, threads, _AHEAD)


class Feed(Generic[Raw, Ready]):
    """Batches made ready for the module, `waited` seconds of it for the data.

    Making ready may be much of the step's work (a frozen backbone's features), so it is no waiting.
    """

    def __init__(self, batches: Iterator[Raw], ready: Callable[[Raw], Ready]):
        self.waited = 0.0
        self._batches, self._ready = batches, ready

    def __iter__(self) -> Feed[Raw, Ready]:
        return self

    def __next__(self) -> Ready:
        start = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - start
        return self._ready(batch)
