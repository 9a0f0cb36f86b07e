"""Threads that change no sum: each call computes on one, and several images are computed beside each other.

How many threads share a sum of floats decides in which order it is added up, and so its last bits. Those decide labels.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor


def one_for_sums() -> None:
    """Let torch and BLAS compute each call on one thread, in this process from here on."""
    import threadpoolctl
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries that are loaded later
    torch.set_num_threads(1)
    threadpoolctl.threadpool_limits(1)


def pool(number: int, name: str) -> ThreadPoolExecutor:
    """`number` threads in each of which torch computes alone, whatever it does in others of this process."""
    return ThreadPoolExecutor(number, name, _alone)


def _alone() -> None:
    import torch

    torch.set_num_threads(1)
