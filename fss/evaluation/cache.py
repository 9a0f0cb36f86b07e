"""What was computed of images, kept: features on disk for all workers and later runs, the rest in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import logging
import os
import time
import uuid
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from fss import seals
from fss.backbones import Features

logger = logging.getLogger(__name__)


class FeatureStore:
    """Features of images in a folder, one sealed safetensors file each, float16, found again by `key`.

    Files appear whole or not at all; a damaged one is deleted when it is read, and counts as absent. Others stay: once
    the folder holds `capacity` bytes (as far as this process has seen), `put` keeps nothing more. With `folder=None` it
    is always empty.
    """

    def __init__(self, folder: Path | None, capacity: int):
        self.folder = folder
        self.room = capacity
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.room -= _held(folder)

    def __contains__(self, key: str) -> bool:
        return self.folder is not None and self._path(key).is_file()

    def get(self, key: str) -> Features | None:
        """The features of `key`, each level (C, h, w) float16 on the CPU; None if they are not there."""
        if key not in self:
            return None
        path = self._path(key)
        try:
            data = seals.unseal(path.read_bytes())
        except OSError:
            return None
        if data is None:
            logger.warning("%s is damaged: deleted, its features are computed again", path)
            path.unlink(missing_ok=True)
            return None
        return load(data)

    def put(self, key: str, features: Features) -> None:
        """Keep (C, h, w) float16 features, if there is room; a full disk is no error."""
        if self.folder is None or self.room <= 0:
            return
        data = seals.seal(save({level: values.contiguous() for level, values in features.items()}))
        temporary = self.folder / f".{uuid.uuid4().hex}"
        try:
            temporary.write_bytes(data)
            temporary.replace(self._path(key))
        except OSError:
            temporary.unlink(missing_ok=True)
            self.room = 0
            return
        self.room -= len(data)

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.features"


def _held(folder: Path) -> int:
    """Bytes of the files in `folder`."""
    total = 0
    for file in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # another worker renamed it meanwhile
            total += file.stat().st_size
    return total


class Memory:
    """Values up to `capacity` bytes of tensors and arrays; what falls out is made again when wanted.

    First falls out what cost least time to make for its size and was not used for long (GreedyDual-Size, Cao and Irani
    1997): a saliency map of a few kilobytes and a tenth of a second stays when megabytes of features go. Which values
    are kept thus depends on the machine; what they are does not.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.bytes = 0
        self._kept: dict[Hashable, _Kept] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._now = 0.0
        self._count = itertools.count()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of `key`, made now if it is not kept."""
        kept = self._kept.get(key)
        if kept is not None:
            kept.worth = self._now + kept.density
            return kept.value
        start = time.perf_counter()
        value = make()
        size = max(_size(value), 1)
        density = (time.perf_counter() - start) / size
        self._kept[key] = kept = _Kept(value, size, density, self._now + density)
        heapq.heappush(self._heap, (kept.worth, next(self._count), key))
        self.bytes += size
        while self.bytes > self.capacity:
            self._evict()
        return value

    def _evict(self) -> None:
        """Drop the value of least worth; the heap may hold worths that have risen since."""
        worth, _, key = heapq.heappop(self._heap)
        kept = self._kept[key]
        if kept.worth > worth:
            heapq.heappush(self._heap, (kept.worth, next(self._count), key))
            return
        self._now = worth
        self.bytes -= kept.size
        del self._kept[key]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)


@dataclasses.dataclass
class _Kept:
    value: Any
    size: int
    density: float
    """Seconds a byte."""
    worth: float


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return sum(_size(v) for v in value.values())
    if isinstance(value, list | tuple):
        return sum(_size(v) for v in value)
    return (
        int(getattr(value, "nbytes", 64)) if not isinstance(value, torch.Tensor) else value.untyped_storage().nbytes()
    )
