"""Features of fixed views of images, computed once: a frozen backbone gives the same answer every time."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence

import torch
from PIL import Image

from fss.backbones import Features
from fss.extract import Extractor
from fss.imaging import images
from fss.tasks import Batch


class FeatureBank:
    """Keeps features by name, as float16 on the CPU, up to `capacity` bytes; what does not fit is computed again.

    Nothing is evicted: under the cyclic order of epochs, keeping what came first hits more often than keeping what came
    last.
    """

    def __init__(self, extractor: Extractor, capacity: int):
        # On a CPU kernels, and with them the last bits, depend on the batch: alone, an image has one set of features
        # whoever computes it and whatever came before, so that resumed runs and any number of workers agree.
        on_cpu = extractor.device.type == "cpu"
        self.extractor = dataclasses.replace(extractor, batch=1) if on_cpu else extractor
        self.capacity = capacity
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._kept: dict[Hashable, Features] = {}

    def get(self, pictures: Mapping[Hashable, Image.Image | None]) -> dict[Hashable, Features]:
        """Features by name, each level (C, h, w). A picture may be None if its name is in the bank (`name in bank`)."""
        found = {name: self._kept[name] for name in pictures if name in self._kept}
        self.hits += len(found)
        missing = {name: picture for name, picture in pictures.items() if name not in found and picture is not None}
        self.misses += len(missing)
        for name, features in zip(missing, self.extractor.stream(list(missing.values())), strict=True):
            found[name] = self._keep(name, {level: v.half().cpu() for level, v in features.items()})
        return found

    def __contains__(self, name: Hashable) -> bool:
        return name in self._kept

    def _keep(self, name: Hashable, features: Features) -> Features:
        size = sum(values.nbytes for values in features.values())
        if self.bytes + size <= self.capacity:
            self._kept[name] = {level: values.clone() for level, values in features.items()}
            self.bytes += size
        return features


def stack(features: Sequence[Features], device: torch.device) -> Features:
    """Features of N images to levels of shape (N, C, h, w), float32, on `device`."""
    return {level: torch.stack([f[level] for f in features]).to(device).float() for level in features[0]}


def stack_shots(rows: Sequence[Sequence[Features]], device: torch.device) -> Features:
    """Features of B x K images to levels of shape (B, K, C, h, w), float32, on `device`."""
    flat = stack([features for row in rows for features in row], device)
    return {level: values.unflatten(0, (len(rows), len(rows[0]))) for level, values in flat.items()}


def batch_features(bank: FeatureBank, batch: Batch) -> tuple[Features, Features]:
    """Query features, levels (B, C, h, w), and support features, levels (B, K, C, h, w), of a training batch."""
    names: dict[Hashable, Image.Image | None] = {}
    for key, view in {pair for row in batch.images for pair in row}:
        known = (key, view) in bank
        names[(key, view)] = None if known else view.of_image(images.decode(batch.jpegs[key]))
    found = bank.get(names)
    device = bank.extractor.device
    queries = stack([found[row[0]] for row in batch.images], device)
    return queries, stack_shots([[found[pair] for pair in row[1:]] for row in batch.images], device)
