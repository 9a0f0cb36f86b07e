"""What workers do for the quality report: sums over one shard's regions and masks, and crops of its regions."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cluster.engine import publish
from cluster.engine.stage import File, Output, Unit, read_array, read_file
from cluster.pair.groups import read_regions
from cluster.quality.clusters import NamedClusters
from cluster.quality.masks import ClassMasks
from fss import shards
from fss.drawing import atlas
from fss.imaging import images
from fss.labelling import partners, pseudo, quality
from fss.tasks.pairing.parts import pairs
from fss.tasks.pairing.parts.rules import Rules

#: Side of a crop in the atlas, pixels.
CROP = 96


@dataclasses.dataclass(frozen=True)
class Labelled:
    """The files of one shard: its images, their label maps and their regions."""

    corpus: File
    labels: File
    regions: File
    group: int = 0
    """The group of shards that it is paired in."""
    start: int = 0
    """What is added to its labels, but to 0, where those of another group mean other things."""


@dataclasses.dataclass(frozen=True, order=True)
class Central:
    """A region that may stand for its cluster: its squared distance to the centroid, and where it is."""

    distance: float
    key: str
    layer: int
    shard: int


@dataclasses.dataclass
class ShardFigures:
    """Sums over shards and the most central regions of each cluster, from distinct images, nearest first."""

    regions: quality.RegionSums
    masks: quality.MaskSums
    missing: int
    """Images without a mask, where masks are looked at."""
    central: list[list[Central]]

    def encode(self) -> bytes:
        """JSON bytes of it; floats come back exactly."""
        return shards.dumps(
            {
                "regions": {key: value.tolist() for key, value in vars(self.regions).items()},
                "images": self.masks.images,
                "pixels": [[*place, n] for place, n in sorted(self.masks.pixels.items())],
                "objects": {name: sums.tolist() for name, sums in self.masks.objects.items()},
                "missing": self.missing,
                "central": [[dataclasses.astuple(one) for one in best] for best in self.central],
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> ShardFigures:
        """What `encode` wrote."""
        value = json.loads(data)
        pixels = Counter({tuple(place): n for *place, n in value["pixels"]})
        objects = {name: np.array(sums) for name, sums in value["objects"].items()}
        return cls(
            quality.RegionSums(**{key: np.array(sums) for key, sums in value["regions"].items()}),
            quality.MaskSums(value["images"], pixels, objects),
            value["missing"],
            [[Central(*one) for one in best] for best in value["central"]],
        )

    def add(self, other: ShardFigures, most: int) -> None:
        """Take in what another shard holds, keeping `most` regions of each cluster."""
        self.regions += other.regions
        self.masks.add(other.masks)
        self.missing += other.missing
        self.central = [_nearest([*a, *b], most) for a, b in zip(self.central, other.central, strict=True)]


def _nearest(regions: Sequence[Central], most: int) -> list[Central]:
    """The most central regions, one of each image."""
    by_image: dict[str, Central] = {}
    for one in sorted(regions):
        by_image.setdefault(one.key, one)
    return list(by_image.values())[:most]


@dataclasses.dataclass(frozen=True)
class MeanGroup:
    """Sums of the descriptors of each label of a group of shards, (L + 1, D) float64: L is the largest label."""

    labels: Path

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is for each shard of the group its `Labelled`."""
        table = read_regions(self.labels, [files.regions for files in unit.payload])
        sums = np.zeros((int(table.label.max()) + 1, table.descriptor.shape[1]))
        np.add.at(sums, table.label, table.descriptor)
        images_seen = sum(files.labels.count for files in unit.payload)
        return Output({f"means/{unit.name}.npy": publish.npy(sums)}, {}, {"images": images_seen})


@dataclasses.dataclass(frozen=True)
class SumShard:
    """Sums over the regions of one shard, and over its masks."""

    corpus: Path
    labels: Path
    named: NamedClusters
    rules: Rules
    masks: ClassMasks | None
    most: int

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is (number, `Labelled`)."""
        number, files = unit.payload
        table = read_regions(self.labels, [files.regions])
        table = dataclasses.replace(table, label=table.label + files.start)
        usable = pairs.usable(table, self.rules)
        clusters, nearest = self.named.clusters, self.named.nearest(table)
        rows = pseudo.centred(table.descriptor, clusters.centre)
        sums = quality.sum_regions(
            table.key, table.label, table.area, table.border, usable, rows, nearest, clusters.lengths
        )
        masks, missing, fits = self._masks(files, table.take(usable))
        figures = ShardFigures(sums, masks, missing, self._central(number, table, nearest))
        made = {f"sums/{unit.name}.json": figures.encode(), f"fits/{unit.name}.npy": _encoded(fits)}
        return Output(made, {}, {"images": files.labels.count})

    def _central(
        self, shard: int, table: pairs.RegionTable, nearest: tuple[np.ndarray, np.ndarray]
    ) -> list[list[Central]]:
        central: list[list[Central]] = [[] for _ in range(self.named.clusters.count)]
        for row in np.flatnonzero(nearest[0] == table.label):
            one = Central(float(nearest[1][row]), str(table.key[row]), int(table.layer[row]), shard)
            central[int(table.label[row])].append(one)
        return [_nearest(regions, self.most) for regions in central]

    def _masks(self, files: Labelled, usable: pairs.RegionTable) -> tuple[quality.MaskSums, int, partners.ObjectFits]:
        """Sums over images with masks, how many have none, and how the usable regions fit objects."""
        sums, missing, fits = quality.MaskSums(), 0, partners.ObjectFits.empty(len(usable))
        if self.masks is None:
            return sums, missing, fits
        allowed: dict[str, dict[tuple[int, int], int]] = {}
        for row, (key, layer, label) in enumerate(zip(usable.key, usable.layer, usable.label, strict=True)):
            allowed.setdefault(str(key), {})[int(layer), int(label)] = row
        for key, about, maps in _images(self.corpus, self.labels, files):
            layers = [_numbered(images.decode_labels(png), files.start) for png in _layers(maps)]
            mask = self.masks.read(json.loads(about["json"])["path"], layers[0].shape)
            if mask is None:
                missing += 1
            else:
                sums.take(layers, mask, allowed.get(key, ()))
                _fit(fits, layers, mask, allowed.get(key, {}))
        return sums, missing, fits


def _fit(
    fits: partners.ObjectFits, layers: Sequence[np.ndarray], mask: np.ndarray, rows: Mapping[tuple[int, int], int]
) -> None:
    """Write into `fits` how the regions of one image, (layer, label) -> row, fit the objects of its mask."""
    fitting = [partners.fit(quality.overlap(layer, mask)) for layer in layers]
    for (layer, label), row in rows.items():
        fits.known[row] = True
        fits.thing[row], fits.iou[row], fits.inside[row] = fitting[layer].get(label, (0, 0.0, 0.0))


def _encoded(fits: partners.ObjectFits) -> bytes:
    """(R, 4) float64 columns as an .npy file."""
    return publish.npy(np.stack([*vars(fits).values()], axis=1).astype(np.float64))


def _decoded(columns: np.ndarray) -> partners.ObjectFits:
    known, thing, iou, inside = columns.T
    return partners.ObjectFits(known > 0, thing.astype(np.int64), iou, inside)


@dataclasses.dataclass(frozen=True)
class MatchGroup:
    """Sums over the tasks that the usable regions of one group of shards make with their nearest partners."""

    labels: Path
    folder: Path
    """Of the stage, where it finds how regions fit objects."""
    rules: Rules

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is for each shard of the group its `Labelled` and the file of its regions' fits."""
        table = read_regions(self.labels, [files.regions for files, _ in unit.payload])
        usable = table.take(pairs.usable(table, self.rules))
        fits = _decoded(np.concatenate([read_array(self.folder, file) for _, file in unit.payload]))
        sums = partners.sum_tasks(vars(usable), fits)
        images_seen = sum(files.labels.count for files, _ in unit.payload)
        return Output({f"tasks/{unit.name}.json": shards.dumps(vars(sums))}, {}, {"images": images_seen})


@dataclasses.dataclass(frozen=True)
class CropShard:
    """Cuts the chosen regions of one shard out of their images."""

    corpus: Path
    labels: Path

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is (`Labelled`, {(cluster, place): `Central`})."""
        files, chosen = unit.payload
        wanted: dict[str, list[tuple[tuple[int, int], Central]]] = {}
        for place, one in chosen.items():
            wanted.setdefault(one.key, []).append((place, one))
        samples: list[shards.Sample] = []
        for key, members, maps in _images(self.corpus, self.labels, files):
            for (cluster, place), one in wanted.get(key, ()):
                mask = images.decode_labels(maps[f"{one.layer}.png"]) == cluster - files.start
                picture = atlas.crop(images.decode(members["jpg"]), mask, CROP) if mask.any() else None
                if picture is not None:
                    samples.append((f"{cluster:06d}_{place:03d}", {"png": images.encode_png(picture)}))
        name = f"crops/{unit.name}.tar"
        return Output({name: shards.pack(samples)}, {name: len(samples)}, {"crops": len(samples)})


def _images(corpus: Path, labels: Path, files: Labelled) -> Iterator[tuple[str, dict[str, bytes], dict[str, bytes]]]:
    """(key, image and JSON, label maps) of every image of one shard."""
    pictures = shards.unpack(read_file(corpus, files.corpus))
    for (key, members), (same, maps) in zip(pictures, shards.unpack(read_file(labels, files.labels)), strict=True):
        if key != same:
            raise ValueError(f"expected the label map of {key} in {files.labels.path}, got that of {same}")
        yield key, members, maps


def _numbered(labels: np.ndarray, start: int) -> np.ndarray:
    """Labels counted from `start`; 0 stays."""
    return np.where(labels > 0, labels.astype(np.int64) + start, 0) if start else labels


def _layers(maps: Mapping[str, bytes]) -> list[bytes]:
    return [maps[name] for name in sorted(maps, key=lambda name: int(name.split(".")[0]))]
