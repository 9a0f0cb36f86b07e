"""Running heads over episodes: what concerns one image once, what concerns an episode in batches, integer counts.

The field runs the backbone K + 1 times an episode. Here an image's features are computed once and stored, a head's own
work on an image (`Head.embed`, `Head.focus`) and on supports (`Head.show`), which stand in several episodes, is kept in
memory, and an episode costs `Head.match` and the scoring.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch

from fss import threads
from fss.backbones import Features
from fss.backbones.extractor import Extractor
from fss.datasets import Dataset
from fss.evaluation import metrics, scoring
from fss.evaluation.cache import FeatureStore, Memory
from fss.evaluation.episodes import Episode, Way
from fss.evaluation.scoring import Truth
from fss.grid import cells
from fss.heads.parts import capabilities
from fss.heads.parts.head import Head
from fss.imaging.images import VOID
from fss.prefetch import ahead, batches


@dataclasses.dataclass(frozen=True)
class EpisodeResult:
    """One episode's counts, a row for each way, and its (H, W) uint8 prediction in {0, .., ways}.

    `counts` and `prediction` are at the query's own resolution, `model_counts` at the model's: prediction and truth
    stretched to its side.
    """

    episode: Episode
    counts: list[metrics.Counts]
    model_counts: list[metrics.Counts]
    prediction: np.ndarray


class Photos:
    """The images of a data set as a frozen backbone sees them, and their masks; whatever was computed is kept.

    Args:
        dataset: images and masks by name.
        extractor: the backbone; features are rounded to float16, so that fresh and stored ones are the same.
        store: features on disk, by the hash of an image's bytes.
        memory: what is kept in memory; may be shared between instances.
    """

    def __init__(self, dataset: Dataset, extractor: Extractor, store: FeatureStore, memory: Memory):
        self.extractor = extractor
        self.dataset, self.store, self.memory = dataset, store, memory
        self._keys: dict[str, str] = {}
        self.computed = 0
        """Images that went through the backbone."""

    @property
    def device(self) -> torch.device:
        """Where heads find their inputs."""
        return self.extractor.device

    @property
    def corners(self) -> bool:
        """The geometry of the cells, see `fss.grid`."""
        return self.extractor.backbone.corners

    def prepare(self, names: Sequence[str], number: int = 1) -> None:
        """Compute and store the features of those images that the store does not hold, in `number` threads."""
        missing = [name for name in names if self._key(name) not in self.store]
        with threads.pool(number, "features") as pool:
            for made in ahead(self._compute, batches(missing, self.extractor.call), pool, most=2 * number):
                self._put(made)

    def features(self, name: str) -> Features:
        """Each level (C, h, w) float16 on the CPU."""
        stored = self.store.get(self._key(name))
        if stored is None:
            made = self._compute([name])
            self._put(made)
            stored = made[name]
        return stored

    def _key(self, name: str) -> str:
        if name not in self._keys:
            self._keys[name] = self.dataset.key(name)
        return self._keys[name]

    def _compute(self, names: Sequence[str]) -> dict[str, Features]:
        """In the layout of stored ones: by that some processors choose their kernels, and with them last bits."""
        pictures = [self.dataset.image(name) for name in names]
        stream = self.extractor.stream(pictures)
        features = [{level: v.half().cpu().contiguous() for level, v in f.items()} for f in stream]
        return dict(zip(names, features, strict=True))

    def _put(self, made: Mapping[str, Features]) -> None:
        for name, features in made.items():
            self.store.put(self._key(name), features)
        self.computed += len(made)

    def embedded(self, head: Head, name: str) -> Features:
        """What `head` makes of the image: tensors (1, ...) on the device."""
        return self._kept(("embed", head, name), lambda: self._embed(head, name))

    def focused(self, head: Head, name: str) -> Features:
        """The same with what `head` computes of a query."""
        return self._kept(("focus", head, name), lambda: head.focus(self.embedded(head, name)))

    def shown(self, head: Head, way: Way) -> Features:
        """What `head` makes of a way's supports: tensors (1, ...) on the device."""
        return self._kept(("show", head, way), lambda: self._show(head, way))

    def _show(self, head: Head, way: Way) -> Features:
        embedded = [self.embedded(head, name) for name in way.supports]
        together = {level: torch.stack([one[level] for one in embedded], dim=1) for level in embedded[0]}
        return head.show(together, self.shares(way))

    def _embed(self, head: Head, name: str) -> Features:
        seen = {k: v[None].to(self.device).float() for k, v in self.features(name).items()}
        if head.sees_colour:
            seen["colour"] = self.extractor.colours([self.dataset.image(name)], self.grid)
        return head.embed(seen)

    def mask(self, name: str) -> np.ndarray:
        """(H, W) class indices."""
        return self._kept(("mask", name), lambda: self.dataset.mask(name))

    def shares(self, way: Way) -> torch.Tensor:
        """(1, K, 2, h, w) float32 on the device: `support` of each of a way's supports."""
        return torch.stack([self.support(name, way.class_id) for name in way.supports])[None].to(self.device)

    def support(self, name: str, class_id: int) -> torch.Tensor:
        """(2, h, w) float32 shares of background and `class_id` in the cells."""
        return self._kept(("support", name, class_id), lambda: self._support(name, class_id))

    def _support(self, name: str, class_id: int) -> torch.Tensor:
        shown = self.dataset.read_support
        mask = shown(name, class_id) if shown else labels(self.mask(name), (class_id,), self.dataset.void)
        return cells(mask, self.grid, self.corners)

    def truth(self, name: str, classes: tuple[int, ...], side: int | None = None) -> Truth:
        """What is right for `classes`, at the image's own size or stretched to (side, side)."""
        return self._kept(("truth", name, classes, side), lambda: self._truth(name, classes, side))

    def _truth(self, name: str, classes: tuple[int, ...], side: int | None) -> Truth:
        mask = self.mask(name)
        return Truth.of(labels(_stretched(mask, side) if side else mask, classes, self.dataset.void), len(classes))

    def _kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        return self.memory.get((self, key), make)

    @functools.cached_property
    def grid(self) -> int:
        """Cells a side."""
        return self.extractor.grid


def labels(mask: np.ndarray, classes: Sequence[int], void: int) -> np.ndarray:
    """(H, W) uint8 labels of an episode from class indices: way i of `classes` is i + 1, void 255, all else 0."""
    drawn = np.where(mask == void, np.uint8(VOID), np.uint8(0))
    for way, class_id in enumerate(classes):
        drawn[mask == class_id] = way + 1
    return drawn


@torch.inference_mode()
def run(head: Head, photos: Photos, episodes: Sequence[Episode], side: int, batch: int = 16) -> Iterator[EpisodeResult]:
    """Results of `episodes`, in order; neighbours with one query share its part of the work.

    Args:
        head: in evaluation mode, on the device of `photos`.
        photos: images and masks.
        episodes: may differ in shots and ways.
        side: of the model's resolution, pixels.
        batch: supports that the head is given at once; an episode is never divided.
    """
    for (query, shots, ways), group in groupby(episodes, lambda e: (e.query, len(e.ways[0].supports), len(e.ways))):
        alike = list(group)
        focused = photos.focused(head, query)
        step = max(1, batch // (ways * shots))
        for start in range(0, len(alike), step):
            block = alike[start : start + step]
            for episode, margin in zip(block, _margins(head, photos, focused, block), strict=True):
                yield _scored(episode, margin[None], photos, side)


def _margins(head: Head, photos: Photos, query: Features, block: Sequence[Episode]) -> torch.Tensor:
    """(E, N, h, w) foreground minus background logit of every way of E episodes on one query."""
    ways = [way for episode in block for way in episode.ways]
    shown = [photos.shown(head, way) for way in ways]
    support = {k: torch.cat([one[k] for one in shown]) for k in shown[0]}
    masks = torch.cat([photos.shares(way) for way in ways])
    alike = {k: v.expand(len(ways), *v.shape[1:]) for k, v in query.items()}
    return capabilities.margins(head, alike, support, masks, len(ways) // len(block))


def _scored(episode: Episode, margins: torch.Tensor, photos: Photos, side: int) -> EpisodeResult:
    classes = tuple(way.class_id for way in episode.ways)
    truth, small = photos.truth(episode.query, classes), photos.truth(episode.query, classes, side)
    prediction = scoring.predict(margins, truth.shape, photos.corners)[0]
    coarse = scoring.predict(margins, small.shape, photos.corners)[0]
    return EpisodeResult(episode, scoring.count(prediction, truth), scoring.count(coarse, small), prediction)


def _stretched(mask: np.ndarray, side: int) -> np.ndarray:
    """(H, W) indices at (side, side), the nearest one of each pixel as in torch's `nearest`."""
    rows, columns = (np.arange(side) * length // side for length in mask.shape)
    return mask[np.ix_(rows, columns)]
