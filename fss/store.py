"""What was computed of images, kept: features on disk for all workers and later runs, the rest in memory."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from fss.backbones import Features


class FeatureStore:
    """Features of images in a folder, one safetensors file each, float16, found again by `key`.

    Files appear whole or not at all; a damaged one counts as absent. Nothing is deleted: once the folder holds
    `capacity` bytes (as far as this process has seen), `put` keeps nothing more. With `folder=None` it is always empty.
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
        try:
            return load_file(self._path(key))
        except (SafetensorError, OSError):
            return None

    def put(self, key: str, features: Features) -> None:
        """Keep (C, h, w) float16 features, if there is room; a full disk is no error."""
        if self.folder is None or self.room <= 0:
            return
        data = save({level: values.contiguous() for level, values in features.items()})
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
        return self.folder / f"{key}.safetensors"


def _held(folder: Path) -> int:
    """Bytes of the files in `folder`."""
    total = 0
    for file in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # another worker renamed it meanwhile
            total += file.stat().st_size
    return total


class Recent:
    """The values used last, up to `capacity` bytes of tensors and arrays; what falls out is made again when wanted."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.bytes = 0
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The value of `key`, made now if it is not kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        value = make()
        size = _size(value)
        self._kept[key] = value, size
        self.bytes += size
        while self.bytes > self.capacity and self._kept:
            _, (_, freed) = self._kept.popitem(last=False)
            self.bytes -= freed
        return value

    def __len__(self) -> int:
        return len(self._kept)


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return sum(_size(v) for v in value.values())
    if isinstance(value, list | tuple):
        return sum(_size(v) for v in value)
    return (
        int(getattr(value, "nbytes", 64)) if not isinstance(value, torch.Tensor) else value.untyped_storage().nbytes()
    )
