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

import numpy as np
import torch

from fss import grid, rng, shards, views
from fss.imaging import images


@dataclasses.dataclass(frozen=True)
class Task:
    """One episode for training: images (JPEG bytes) and masks, the query's first; `keys` name the images."""

    keys: tuple[str, ...]
    jpegs: tuple[bytes, ...]
    masks: tuple[bytes, ...]


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

    def locate(self, episode: int) -> tuple[int, int, int]:
        """(epoch, shard, position in the shard) of an episode."""
        epoch, offset = divmod(episode, sum(self.counts))
        order, ends = _epoch(self.counts, self.seed, epoch)
        place = bisect.bisect_right(ends, offset)
        shard = order[place]
        within = offset - (ends[place - 1] if place else 0)
        return epoch, shard, _positions(self.counts[shard], self.seed, epoch, shard)[within]


@functools.lru_cache(maxsize=4)
def _epoch(counts: tuple[int, ...], seed: int, epoch: int) -> tuple[list[int], list[int]]:
    order = rng.numpy_rng(seed, "shards", epoch).permutation(len(counts)).tolist()
    return order, list(itertools.accumulate(counts[shard] for shard in order))


@functools.lru_cache(maxsize=64)
def _positions(count: int, seed: int, epoch: int, shard: int) -> list[int]:
    return rng.numpy_rng(seed, "tasks", epoch, shard).permutation(count).tolist()


@dataclasses.dataclass(frozen=True)
class Batch:
    """B episodes of one number of shots: images by (key, view), the query's first in each row, and their masks."""

    images: list[list[tuple[str, views.View]]]
    jpegs: dict[str, bytes]
    truth: torch.Tensor
    """(B, 2, M, M) float32 in [0, 1]: the query's shares of background and foreground in each cell of the loss."""
    support: torch.Tensor
    """(B, K, 2, h, w) float32 in [0, 1]: the same of the supports, in each cell of the features."""


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batch number n of a schedule, as a pure function; a map-style data set for `torch.utils.data.DataLoader`.

    `num_views` fixed views an image (0: a fresh one each time); the truth in `loss_size` cells a side, supports in
    `grid_size`, of geometry `corners` (see `fss.grid`); this process takes the episodes `rank, rank + world, ...` of
    every batch of `batch` episodes.
    """

    schedule: Schedule
    read_shard: Callable[[int, int], Sequence[Task]]
    """From the number of a shard and the epoch to its tasks."""
    batch: int
    seed: int
    num_views: int
    loss_size: int
    grid_size: int
    corners: bool
    rank: int = 0
    world: int = 1

    def __getitem__(self, number: int) -> Batch:
        episodes = range(number * self.batch + self.rank, (number + 1) * self.batch, self.world)
        rows, truth, support = [], [], []
        jpegs: dict[str, bytes] = {}
        for episode in episodes:
            epoch, shard, position = self.schedule.locate(episode)
            task = self.read_shard(shard, epoch)[position]
            chosen = [self._view(key, episode, place) for place, key in enumerate(task.keys)]
            rows.append(list(zip(task.keys, chosen, strict=True)))
            jpegs.update(zip(task.keys, task.jpegs, strict=True))
            query, *others = (v.of_mask(images.decode_labels(m)) for m, v in zip(task.masks, chosen, strict=True))
            truth.append(grid.cells(query, self.loss_size, self.corners))
            support.append(torch.stack([grid.cells(mask, self.grid_size, self.corners) for mask in others]))
        return Batch(rows, jpegs, torch.stack(truth), torch.stack(support))

    def _view(self, key: str, episode: int, place: int) -> views.View:
        draw = rng.mix(self.seed, "which view", episode, place)
        number = draw % self.num_views if self.num_views else 2 + draw % (1 << 30)
        return views.draw(self.seed, key, number)
