"""Figures of a training loop between two log lines: means, speed, and how long data was waited for."""

from __future__ import annotations

import contextlib
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
        self.steps, self.waited = 0, 0.0
        self.start, self.busy = time.perf_counter(), time.process_time()

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

    def speed(self, device: torch.device | None = None) -> Figures:
        """Samples a second, seconds a step, the shares of time and of the machine; then starts over.

        `data_wait_share` of the time was spent waiting for data; `cpu_cores` were busy in this process on average; of
        a GPU, `gpu_memory_gib` is the most that was in use and `gpu_use` the share of time it was busy, in [0, 1].
        """
        seconds = max(time.perf_counter() - self.start, 1e-9)
        steps, waited, busy = max(self.steps, 1), self.waited, time.process_time() - self.busy
        self._reset()
        return {
            "samples_per_second": self.batch * steps / seconds,
            "seconds_per_step": seconds / steps,
            "data_wait_share": waited / seconds,
            "cpu_cores": busy / seconds,
            **(_gpu(device) if device is not None and device.type == "cuda" else {}),
        }


def _gpu(device: torch.device) -> Figures:
    figures = {"gpu_memory_gib": torch.cuda.max_memory_allocated(device) / 2**30}
    torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(Exception):  # NVML may be missing or forbidden, which is no reason to stop
        figures["gpu_use"] = torch.cuda.utilization(device) / 100
    return figures
