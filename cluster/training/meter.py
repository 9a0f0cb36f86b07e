"""Figures of a training loop between two log lines: means, speed, and how long data was waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from cluster.training.feed import Feed

Figures = dict[str, float]


class Meter:
    """Sums figures on the device (no synchronisation a step) and splits time into data wait and the rest."""

    def __init__(self, batch: int):
        self.batch = batch
        self._reset()

    def _reset(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.steps, self.waited, self.start = 0, 0.0, time.perf_counter()

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, counting how long each is waited for: as a `Feed` says, or all of the time until it comes."""
        clock = (lambda: batches.waited) if isinstance(batches, Feed) else time.perf_counter
        while True:
            before = clock()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += clock() - before
            yield batch

    def add(self, figures: Mapping[str, torch.Tensor]) -> None:
        """Add one step's scalars."""
        for name, value in figures.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.steps += 1

    def means(self) -> Figures:
        """Means over the steps since the last reset."""
        return {name: float(value) / max(self.steps, 1) for name, value in self.sums.items()}

    def speed(self) -> Figures:
        """Samples a second, seconds a step and the share of time spent waiting for data; then starts over."""
        seconds = max(time.perf_counter() - self.start, 1e-9)
        steps, waited = max(self.steps, 1), self.waited
        self._reset()
        return {
            "samples_per_second": self.batch * steps / seconds,
            "seconds_per_step": seconds / steps,
            "data_wait_share": waited / seconds,
        }
