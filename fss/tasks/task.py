"""Pseudo-tasks on disk and in batches: the sample format, the order of episodes, and their tensors.

A task is one WebDataset sample: `query.jpg query.png support0.jpg support0.png ... json`; the PNGs are masks of 0 and 1
(255 void) in their image's size, the JSON names the images (corpus keys), the cluster and the layers. The last
`distractors` supports (a number in the JSON) do not show the thing, their masks are empty.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Protocol, overload

import numpy as np
import torch

from fss import grid, rng, shards
from fss.imaging import images
from fss.tasks import augment, views


@dataclasses.dataclass(frozen=True)
class Task:
    """One episode for training: images (JPEG bytes) and masks, the query's first; `keys` name the images."""

    keys: tuple[str, ...]
    jpegs: tuple[bytes, ...]
    masks: tuple[bytes, ...]


class LazyTasks(Sequence[Task]):
    """`count` tasks, each made when it is asked for."""

    def __init__(self, count: int, make: Callable[[int], Task]):
        self.number, self.make = count, make

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> list[Task]: ...
    def __getitem__(self, place: int | slice) -> Task | list[Task]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(self.number))]
        if not 0 <= place < self.number:
            raise IndexError(f"expected a task from 0 to {self.number - 1}, got {place}")
        return self.make(place)


def encode(
    number: str, keys: Sequence[str], jpegs: Sequence[bytes], masks: Sequence[np.ndarray], about: dict[str, object]
) -> shards.Sample:
    """A task as a sample with key `number`; `masks` are (H, W) uint8 in {0, 1, 255}, the query's first."""
    names = ["query", *(f"support{i}" for i in range(len(keys) - 1))]
    members: dict[str, bytes] = {}
    for name, jpeg, mask in zip(names, jpegs, masks, strict=True):
        members[f"{name}.jpg"] = jpeg
        members[f"{name}.png"] = images.encode_png(mask)
    members["json"] = shards.dumps({"query": keys[0], "supports": list(keys[1:]), **about})
    return number, members


def decode(sample: shards.Sample) -> Task:
    """The task of a sample.

    Raises:
        ValueError: if a member is missing.
    """
    key, members = sample
    try:
        about = json.loads(members["json"])
        names = ["query", *(f"support{i}" for i in range(len(about["supports"])))]
        return Task(
            keys=(about["query"], *about["supports"]),
            jpegs=tuple(members[f"{name}.jpg"] for name in names),
            masks=tuple(members[f"{name}.png"] for name in names),
        )
    except KeyError as error:
        raise ValueError(f"task {key}: expected a member {error}, got {', '.join(members)}") from error


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The order in which tasks are trained on: episode i is a pure function of (seed, i), shard after shard.

    Every epoch visits the shards in another order and the tasks of a shard in another order, so reading stays
    sequential, resuming needs one integer, and the number of workers changes nothing.
    """

    counts: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        if sum(self.counts) == 0:
            raise ValueError(
                "expected at least one task to train on, got none; loosen pair.min_area, pair.max_area or "
                "pair.empty_lines, lower source.clusters, or give more images"
            )

    @property
    def size(self) -> int:
        """Episodes of an epoch."""
        return sum(self.counts)

    def locate(self, episode: int) -> tuple[int, int, int]:
        """(epoch, shard, position in the shard) of an episode."""
        epoch, offset = divmod(episode, sum(self.counts))
        order, ends = _epoch(self.counts, self.seed, epoch)
        place = bisect.bisect_right(ends, offset)
        shard = order[place]
        within = offset - (ends[place - 1] if place else 0)
        return epoch, shard, _positions(self.counts[shard], self.seed, epoch, shard)[within]


@functools.lru_cache(maxsize=16)
def _epoch(counts: tuple[int, ...], seed: int, epoch: int) -> tuple[list[int], list[int]]:
    order = rng.numpy_rng(seed, "shards", epoch).permutation(len(counts)).tolist()
    return order, list(itertools.accumulate(counts[shard] for shard in order))


@functools.lru_cache(maxsize=64)
def _positions(count: int, seed: int, epoch: int, shard: int) -> list[int]:
    return rng.numpy_rng(seed, "tasks", epoch, shard).permutation(count).tolist()


class Order(Protocol):
    """Which task an episode is: a `Schedule`, or several in proportions (`fss.tasks.mixture.Mixture`)."""

    @property
    def size(self) -> int:
        """Episodes from the first one before a task comes again."""

    def locate(self, episode: int) -> tuple[int, int, int]:
        """(epoch, shard, position in the shard) of an episode."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """B episodes of one number of shots: images by (key, view), the query's first in each row, and their masks."""

    images: list[list[tuple[str, views.View]]]
    jpegs: dict[str, bytes]
    """The images' files by key, or none of them where `pixels` are."""
    truth: torch.Tensor
    """(B, 2, M, M) float32 in [0, 1]: the query's shares of background and foreground in each cell of the loss."""
    support: torch.Tensor
    """(B, K, 2, h, w) float32 in [0, 1]: the same of the supports, in each cell of the features."""
    pixels: torch.Tensor | None = None
    """(B, 1 + K, 3, S, S): the views, ImageNet-normalised float32, or uint8 images of which they still are to be made
    (`fss.tasks.augment`)."""


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """What a batch is for: masks in `loss` and `grid` cells a side, of geometry `corners` (see `fss.grid`).

    With `pixels`, images come decoded and squeezed to `size` pixels a side (by `interpolation`), and are `changed` into
    views, or will be on a GPU; without, they come as files.
    """

    loss: int
    grid: int
    corners: bool
    size: int
    interpolation: str = "bilinear"
    pixels: bool = False
    changed: bool = True


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batch number n of a schedule, as a pure function; a map-style data set for `torch.utils.data.DataLoader`.

    `num_views` fixed views an image, or 0: a fresh one each time, which keeps the object of its task; changed by
    `augment`. This process takes the episodes `rank, rank + world, ...` of every batch of `batch` episodes.
    """

    schedule: Order
    read_shard: Callable[[int, int], Sequence[Task]]
    """From the number of a shard and the epoch to its tasks."""
    batch: int
    seed: int
    num_views: int
    layout: BatchLayout
    augment: views.Augment = dataclasses.field(default_factory=views.Augment)
    rank: int = 0
    world: int = 1

    def __getitem__(self, number: int) -> Batch:
        episodes = range(number * self.batch + self.rank, (number + 1) * self.batch, self.world)
        rows: list[list[tuple[str, views.View]]] = []
        jpegs: dict[str, bytes] = {}
        masks: list[np.ndarray] = []
        for episode in episodes:
            epoch, shard, position = self.schedule.locate(episode)
            task = self.read_shard(shard, epoch)[position]
            decoded = [images.decode_labels(mask) for mask in task.masks]
            chosen = [
                self._view(*one, episode, place) for place, one in enumerate(zip(task.keys, decoded, strict=True))
            ]
            rows.append(list(zip(task.keys, chosen, strict=True)))
            jpegs.update(zip(task.keys, task.jpegs, strict=True))
            masks += decoded
        truth, support = self._masks(rows, masks)
        if not self.layout.pixels:
            return Batch(rows, jpegs, truth, support)
        return Batch(rows, {}, truth, support, self._pixels(rows, jpegs))

    def _view(self, key: str, mask: np.ndarray, episode: int, place: int) -> views.View:
        draw = rng.mix(self.seed, "which view", episode, place)
        number = draw % self.num_views if self.num_views else 2 + draw % (1 << 30)
        size = (mask.shape[0], mask.shape[1])
        return views.draw(self.seed, key, number, self.augment, size, None if self.num_views else mask)

    def _masks(
        self, rows: list[list[tuple[str, views.View]]], masks: list[np.ndarray]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`truth` and `support` of a batch, of its masks in the order of its images."""
        layout, chosen = self.layout, [view for row in rows for _, view in row]
        moved = iter(_moved(masks, chosen, layout.size))
        seen = [next(moved) if v.moved else v.mirrored(m) for m, v in zip(masks, chosen, strict=True)]
        shown = 1 + len(rows[0][1:])
        truth = torch.stack([grid.cells(mask, layout.loss, layout.corners) for mask in seen[::shown]])
        others = [mask for place, mask in enumerate(seen) if place % shown]
        support = torch.stack([grid.cells(mask, layout.grid, layout.corners) for mask in others])
        return truth, support.unflatten(0, (len(rows), shown - 1))

    def _pixels(self, rows: list[list[tuple[str, views.View]]], jpegs: dict[str, bytes]) -> torch.Tensor:
        layout, names = self.layout, [pair for row in rows for pair in row]
        how = layout.size, layout.interpolation
        squeezed = {key: images.to_bytes(images.decode(data), *how) for key, data in jpegs.items()}
        if layout.changed:  # one by one: a processor's cache holds an image, not a batch
            pixels = torch.cat([augment.images(squeezed[key][None], [view]) for key, view in names])
        else:
            pixels = torch.stack([squeezed[key] for key, _ in names])
        return pixels.unflatten(0, (len(rows), -1))


def _moved(masks: list[np.ndarray], chosen: list[views.View], size: int) -> list[np.ndarray]:
    """Of masks whose view is `moved`, the views, (size, size) uint8."""
    some = [(m, view) for m, view in zip(masks, chosen, strict=True) if view.moved]
    if not some:
        return []
    squeezed = [augment.square(torch.from_numpy(mask.astype(np.uint8)), size) for mask, _ in some]
    return list(augment.masks(torch.stack(squeezed), [view for _, view in some]).numpy())
