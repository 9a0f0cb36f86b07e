"""Unlabelled images beside each task, of which only what the head makes of single images is scored.

They come as further supports whose masks are void, so that they say nothing of the thing. MiningFSS trains on 32 images
a step beside 4 episodes: `train.unlabelled=8` with batch=4.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cluster.config import Config
from cluster.engine.files import File
from cluster.engine.manifest import Manifest, read_manifest
from cluster.pair.groups import Members
from cluster.train.tasks import Tasks
from cluster.train.tasks.mixed import MixedTasks
from fss import rng
from fss.imaging import images
from fss.tasks import task as tasks

#: Shards of images that serve one shard of tasks in an epoch: their indices are in memory.
_OPEN = 16


@dataclass(frozen=True)
class WithUnlabelled:
    """`number` images of a corpus beside each of `own` tasks, drawn anew in each epoch. Picklable.

    `prefix` sets the images' keys apart from those of the tasks' own corpus.
    """

    own: Tasks
    corpus: Path
    files: tuple[File, ...]
    number: int
    seed: int
    prefix: str = ""

    @property
    def counts(self) -> tuple[int, ...]:
        """Tasks in each shard."""
        return self.own.counts

    def __call__(self, number: int, epoch: int) -> Sequence[tasks.Task]:
        """The tasks of shard `number` in an epoch, each with its images."""
        own, seed = self.own(number, epoch), rng.mix(self.seed, "unlabelled", number, epoch)
        places = rng.numpy_rng(seed).permutation(len(self.files))[:_OPEN].tolist()
        return tasks.LazyTasks(len(own), lambda place: self._extended(own[place], places, rng.mix(seed, place)))

    def _extended(self, task: tasks.Task, places: Sequence[int], seed: int) -> tasks.Task:
        generator = rng.numpy_rng(seed)
        extra = [self._draw(places, generator) for _ in range(self.number)]
        keys, jpegs = zip(*extra, strict=True)
        voids = tuple(_void(Image.open(io.BytesIO(jpeg)).size) for jpeg in jpegs)
        return tasks.Task((*task.keys, *keys), (*task.jpegs, *jpegs), (*task.masks, *voids))

    def _draw(self, places: Sequence[int], generator: np.random.Generator) -> tuple[str, bytes]:
        """Key and file of an image of one of the shards at `places`."""
        members, names = _opened(self.corpus, self.files[places[int(generator.integers(len(places)))]])
        name = names[int(generator.integers(len(names)))]
        return self.prefix + name.removesuffix(".jpg"), members[name]


@functools.lru_cache(maxsize=2 * _OPEN)
def _opened(corpus: Path, file: File) -> tuple[Members, list[str]]:
    members = Members(corpus, [file])
    return members, members.names("jpg")


@functools.lru_cache(maxsize=256)
def _void(size: tuple[int, int]) -> bytes:
    """A PNG of nothing but void, of (width, height)."""
    return images.encode_png(np.full(size[::-1], images.VOID, np.uint8))


@dataclass(frozen=True)
class UnlabelledSettings:
    """How many images beside each task, by which seed, and the fingerprint of the other run's corpus they come from."""

    number: int
    seed: int
    corpus: str | None


def wrapped(chosen: UnlabelledSettings, corpus: Manifest, train: Tasks) -> Tasks:
    """The tasks with images of the shard stage `corpus` beside each."""
    if isinstance(train, MixedTasks):
        parts = (dataclasses.replace(part, tasks=wrapped(chosen, corpus, part.tasks)) for part in train.parts)
        return MixedTasks(tuple(parts))
    files = tuple(file for file in corpus.named(".tar") if file.count)
    prefix = "" if chosen.corpus is None else "unlabelled/"
    return WithUnlabelled(train, corpus.folder, files, chosen.number, chosen.seed, prefix)


def settings(config: Config) -> UnlabelledSettings | None:
    """What of the unlabelled images shapes training: their number and which corpus, not its place."""
    keys = config.train
    if not keys.unlabelled:
        return None
    other = None if keys.unlabelled_run is None else corpus_of(keys.unlabelled_run).fingerprint
    return UnlabelledSettings(keys.unlabelled, config.seed, other)


def needed(config: Config) -> tuple[str, ...]:
    """The stages that the images come from."""
    return ("shard",) if config.train.unlabelled and not config.train.unlabelled_run else ()


def corpus_of(run: str) -> Manifest:
    """The finished shard stage of the run in this folder, train.unlabelled_run.

    Raises:
        ValueError: if that run has none.
    """
    corpus = read_manifest(Path(run).resolve() / "shard" / "manifest.json")
    if corpus is None:
        raise ValueError(
            f"train.unlabelled_run: expected the folder of a run with a corpus, there is no shard/manifest.json in "
            f"{run}; run jobs.shard with that name=, root= and corpus.root= first"
        )
    return corpus
