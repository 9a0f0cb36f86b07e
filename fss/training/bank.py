"""Features of fixed views of images, computed once: a frozen backbone gives the same answer every time."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

import torch

from fss.backbones import Features
from fss.backbones.extractor import Extractor
from fss.imaging import images
from fss.tasks import augment
from fss.tasks.task import Batch
from fss.tasks.views import View


class FeatureBank:
    """Keeps features by name, as float16 on the CPU, up to `capacity` bytes; what does not fit is computed again.

    Nothing is evicted: under the cyclic order of epochs, keeping what came first hits more often than keeping what came
    last.
    """

    def __init__(self, extractor: Extractor, capacity: int):
        self.extractor = extractor
        self.capacity = capacity
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._kept: dict[Hashable, Features] = {}

    def get(self, inputs: Mapping[Hashable, torch.Tensor | None]) -> dict[Hashable, Features]:
        """Features by name of (3, S, S) normalised inputs, each level (C, h, w).

        An input may be None if its name is in the bank (`name in bank`).
        """
        known = {name: self._kept[name] for name in inputs if name in self._kept}
        self.hits += len(known)
        missing = {name: one for name, one in inputs.items() if name not in known and one is not None}
        self.misses += len(missing)
        for name, features in zip(missing, self._compute(list(missing.values())), strict=True):
            known[name] = self._keep(name, {level: v.half().cpu() for level, v in features.items()})
        return known

    def _compute(self, inputs: Sequence[torch.Tensor]) -> Iterator[Features]:
        size = self.extractor.call
        for start in range(0, len(inputs), size):
            features = self.extractor.features(torch.stack(list(inputs[start : start + size])))
            for index in range(len(next(iter(features.values())))):
                yield {level: values[index] for level, values in features.items()}

    def of_pixels(self, pixels: torch.Tensor) -> Features:
        """Features of (N, 3, S, S) normalised inputs, which are not kept: levels (N, C, h, w) float32 on the device."""
        self.misses += len(pixels)
        parts = [self.extractor.features(part) for part in pixels.split(self.extractor.call)]
        return {level: torch.cat([part[level] for part in parts]) for level in parts[0]}

    def put(self, name: Hashable, features: Features) -> None:
        """Keep features that were computed before: float16, each level (C, h, w)."""
        self._keep(name, features)

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
    """Query features, levels (B, C, h, w), and support features, levels (B, K, C, h, w), of a training batch.

    Of a batch of files they are the bank's; of one of pixels they are computed, and not kept.
    """
    device = bank.extractor.device
    if batch.pixels is not None:
        pixels = batch_pixels(batch, bank.extractor, device)
        levels = bank.of_pixels(pixels.flatten(0, 1))
        shaped = {level: values.unflatten(0, pixels.shape[:2]) for level, values in levels.items()}
        return {level: v[:, 0] for level, v in shaped.items()}, {level: v[:, 1:] for level, v in shaped.items()}
    names: dict[Hashable, torch.Tensor | None] = {}
    for key, view in {pair for row in batch.images for pair in row}:
        names[(key, view)] = None if (key, view) in bank else inputs(batch.jpegs[key], view, bank.extractor)
    kept = bank.get(names)
    queries = stack([kept[row[0]] for row in batch.images], device)
    return queries, stack_shots([[kept[pair] for pair in row[1:]] for row in batch.images], device)


def batch_pixels(batch: Batch, extractor: Extractor, device: torch.device) -> torch.Tensor:
    """(B, 1 + K, 3, size, size) normalised float32 on `device`: the views of a batch of files or of pixels."""
    if batch.pixels is None:
        rows = [[inputs(batch.jpegs[key], view, extractor) for key, view in row] for row in batch.images]
        return torch.stack([torch.stack(row) for row in rows]).to(device)
    pixels = batch.pixels.to(device, non_blocking=True)
    if pixels.dtype != torch.uint8:
        return pixels
    chosen = [view for row in batch.images for _, view in row]
    return augment.images(pixels.flatten(0, 1), chosen).unflatten(0, pixels.shape[:2])


def inputs(jpeg: bytes, view: View, extractor: Extractor) -> torch.Tensor:
    """(3, S, S) normalised float32: one view of an image file, as the extractor takes it."""
    image = images.decode(jpeg)
    if view.plain:
        return extractor.input(view.of_image(image))
    pixels = images.to_bytes(image, extractor.size, extractor.backbone.interpolation)
    return augment.images(pixels[None], [view])[0]
