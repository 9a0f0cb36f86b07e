"""Randomness as a pure function of names: any worker draws the same numbers for the same (seed, what)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def mix(seed: int, *names: object) -> int:
    """A 63-bit integer that depends on `seed` and `names` alone, equal on every machine."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_rng(seed: int, *names: object) -> np.random.Generator:
    """A NumPy generator for (seed, names)."""
    return np.random.default_rng(mix(seed, *names))


def torch_rng(seed: int, *names: object) -> torch.Generator:
    """A CPU torch generator for (seed, names)."""
    import torch

    return torch.Generator().manual_seed(mix(seed, *names))
