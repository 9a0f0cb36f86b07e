"""refine: masks of whole things and label maps of them, in the form of label's, which pair reads in their stead.

A unit is a group of shards, the same that pair makes tasks of (pair.group_shards). Each is a uniform sample of the
corpus, so similar things are searched inside of it alone, and a label means one thing inside of it alone. A worker
holds the group's embeddings, a byte for each dimension of each cell, and a photo at a time: nothing grows with the
corpus.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.config import Config
from cluster.engine.settings import picked
from cluster.engine.stage import File, Manifest, Output, Stage, StageError, Unit, Work, read_array, read_file
from cluster.label import kept
from cluster.label.files import Labelled, encoded, output
from cluster.pair.groups import in_groups
from fss import backbones, grid, rng, shards, threads
from fss.imaging import images
from fss.labelling import fields
from fss.labelling.pseudo import Region
from fss.labelling.refine import Keys, consensus, layers, sharpen
from fss.prefetch import ahead


@dataclass(frozen=True)
class Mask:
    """The mask of a photo of `size` (H, W): its (h, w) bool cells, and its pixels as PNG; None where it has none."""

    key: str
    size: tuple[int, int]
    cells: np.ndarray | None = None
    pixels: bytes | None = None


@dataclass(frozen=True)
class RefineGroup:
    """Refines the masks of one group of shards."""

    corpus: Path
    labels: Path
    keys: Keys
    seed: int
    corners: bool
    """The geometry of the cells, see `fss.grid`."""
    along: np.ndarray
    """(D, k) directions that embeddings are kept along."""
    threads: int = 1

    @torch.inference_mode()
    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is (corpus files, files of embeddings)."""
        corpus, embeddings = unit.payload
        kept_fields = Fields([read_array(self.labels, file) for file in embeddings])
        masks = list(self._masks(corpus, consensus.refine(kept_fields, self.keys)))
        cells = [mask.cells for mask in masks]
        layered = layers.layers(cells, kept_fields, self.keys, seed=rng.mix(self.seed, "refine", unit.name))
        labelled = (self._labelled(mask, *each) for mask, each in zip(masks, layered, strict=True))
        made = [output(stem(file), [next(labelled) for _ in range(file.count)]) for file in corpus]
        counts = {name: sum(one.counts[name] for one in made) for name in made[0].counts}
        return Output(
            {name: data for one in made for name, data in one.files.items()},
            {name: count for one in made for name, count in one.samples.items()},
            counts | {"masks": sum(mask is not None for mask in cells)},
        )

    def _masks(self, corpus: Sequence[File], soft: Sequence[np.ndarray | None]) -> Iterator[Mask]:
        """The masks of all photos in order, made in so many threads."""
        samples = (sample for file in corpus for sample in shards.unpack(read_file(self.corpus, file)))
        with threads.pool(self.threads, "refine") as pool:
            given = zip(samples, soft, strict=True)
            yield from ahead(lambda one: self._mask(*one), given, pool, most=self.threads + 1)

    def _mask(self, sample: shards.Sample, soft: np.ndarray | None) -> Mask:
        key, members = sample
        if soft is None:
            width, height = images.upright_size(members["jpg"])
            return Mask(key, (height, width))
        photo = images.decode(members["jpg"])
        size = (photo.height, photo.width)
        if self.keys.vote:
            pixels = sharpen.sharpen(photo, soft, self.corners)
        else:
            pixels = sharpen.enlarged(soft, size, self.corners) >= 0.5
        cells = (grid.cells(pixels.astype(np.uint8), len(soft), self.corners)[1] >= 0.5).numpy()
        if not consensus.fits(cells, self.keys):  # the vote made too much of it, or nothing
            return Mask(key, size)
        return Mask(key, size, cells, images.encode_png(pixels.astype(np.uint8)))

    def _labelled(self, mask: Mask, maps: np.ndarray, regions: Sequence[Region]) -> Labelled:
        """An image's label maps as files, the mask's pixel by pixel, and its regions, described in all dimensions."""
        first = np.zeros(mask.size, np.uint16)
        if mask.pixels is not None:
            first = images.decode_labels(mask.pixels).astype(np.uint16) * maps[0].max()
        inner = [grid.enlarge_labels(layer, mask.size, self.corners) for layer in maps[1:]]
        whole = [dataclasses.replace(one, descriptor=self.along @ one.descriptor) for one in regions]
        return encoded(mask.key, [first, *inner]), whole


class Fields(Sequence[torch.Tensor]):
    """Embeddings of the images of some arrays (N, h, w, k) int8, as they are asked for: (h, w, k) float32, length 1."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._places = [(array, place) for array in arrays for place in range(len(array))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> torch.Tensor:  # type: ignore[override]  # nobody asks for slices
        array, place = self._places[number]
        return fields.unit(array[place])


def stem(corpus: File) -> str:
    """What the files of a corpus shard's label maps are called."""
    return Path(corpus.path).stem.replace("corpus", "labels")


def groups(corpus: Manifest, labels: Manifest, size: int) -> list[Unit]:
    """A unit for every `size` shards, in order."""
    together = in_groups((corpus.named(".tar"), labels.named(kept.FIELDS)), size)
    return [Unit(f"{number:05d}", files) for number, files in enumerate(together)]


@dataclass(frozen=True)
class RefineSettings:
    """What shapes masks, beside the embeddings."""

    seed: int
    name: str
    group_shards: int
    keys: Keys


@dataclass(frozen=True)
class RefineMeans:
    """How many photos are looked at at a time."""

    threads: int


def _settings(config: Config) -> RefineSettings:
    keys = picked(Keys, config.refine)
    return RefineSettings(config.seed, config.refine.name, config.pair.group_shards, keys)


def _work(work: Work[RefineSettings, RefineMeans]) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, corpus, labels = work.settings, work.inputs["shard"], work.inputs["label"]
    function = RefineGroup(
        corpus=corpus.folder,
        labels=labels.folder,
        keys=chosen.keys,
        seed=chosen.seed,
        corners=backbones.corners(labels.settings["backbone"]["name"]),
        along=read_array(labels.folder, *labels.named(kept.DIRECTIONS)),
        threads=work.means.threads,
    )
    files, counts = work.map("refine", function, groups(corpus, labels, chosen.group_shards), parts="groups")
    if not counts["regions"]:
        raise StageError(
            f"refine: no mask was left of {counts['images']} images; raise refine.max_area or refine.max_border, or "
            "set refine=none"
        )
    return files, counts


def _check(config: Config) -> list[str]:
    if config.refine.on:
        return []
    return ["refine: expected a way in which masks are refined, got refine.name=none; set refine=consensus"]


def _size(settings: Callable[[str], Any]) -> Mapping[str, int]:
    return {"groups": math.ceil(settings("shard").shards / settings("refine").group_shards)}


STAGE = Stage(
    "refine",
    lambda config: ("shard", "label"),
    _settings,
    _work,
    means=lambda config: RefineMeans(config.cluster.cpus_per_worker),
    check=_check,
    size=_size,
)
