"""What a worker does in the evaluate stage: index images by class, and run models over blocks of episodes."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import nn

from cluster.backbone import BackboneSpec
from cluster.stage import Output, Unit
from fss import episodes, evaluation, images, models, pictures, segmenter
from fss.bank import FeatureBank
from fss.datasets import Dataset, areas, open_dataset

#: Episodes of each fold whose pictures go into the report.
PICTURES = 3


@dataclass(frozen=True)
class Entry:
    """A model to measure: its name in tables, its backbone, and a head by name or an exported one by folder."""

    label: str
    spec: BackboneSpec
    head: str
    folder: str | None = None

    def load(self) -> nn.Module:
        """The head, on its backbone's device; kept for the next call in this process."""
        return _load_head(self)


@functools.lru_cache(maxsize=8)
def _load_head(entry: Entry) -> nn.Module:
    if entry.folder:
        return segmenter.Segmenter.load(entry.folder).head
    extractor = entry.spec.load()
    return models.build(entry.head, extractor.backbone.channels).eval().to(extractor.device)


@functools.lru_cache(maxsize=4)
def _bank(spec: BackboneSpec, capacity: int) -> FeatureBank:
    return FeatureBank(spec.load(), capacity)


@dataclass(frozen=True)
class DataSpec:
    """Which labelled images."""

    name: str
    root: str
    list_file: str | None

    def open(self) -> Dataset:
        """The data set; kept for the next call in this process."""
        return _open(self)


@functools.lru_cache(maxsize=2)
def _open(spec: DataSpec) -> Dataset:
    return open_dataset(spec.name, spec.root, spec.list_file)


@dataclass(frozen=True)
class IndexImages:
    """Notes the area of every class in some images."""

    data: DataSpec

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a tuple of image names."""
        found = {name: areas(self.data.open(), name) for name in unit.payload}
        name = f"index/{unit.name}.json"
        return Output({name: json.dumps(found).encode()}, {name: len(found)}, {"images": len(found)})


@dataclass(frozen=True)
class Block:
    """Episodes start..stop-1 of one fold and number of shots."""

    fold: int
    shots: int
    start: int
    stop: int


@dataclass(frozen=True)
class RunBlock:
    """Runs every model over one block of episodes."""

    data: DataSpec
    images_of: Mapping[int, tuple[str, ...]]
    entries: tuple[Entry, ...]
    seed: int
    capacity: int
    save_predictions: bool
    flat: bool

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a `Block`."""
        block: Block = unit.payload
        dataset = self.data.open()
        classes = testable(self.images_of, dataset.folds[block.fold], block.shots)
        drawn = episodes.draw(classes, shots=block.shots, count=block.stop, seed=self.seed)[block.start :]
        rows: list[dict[str, Any]] = []
        files: dict[str, bytes] = {}
        for entry in self.entries:
            bank = _bank(entry.spec, self.capacity)
            for result in evaluation.run(entry.load(), bank, dataset, drawn):
                rows.append(_row(entry.label, block, result))
                if self.save_predictions:
                    where = "" if self.flat else f"{_slug(entry.label)}/fold{block.fold}-{block.shots}shot/"
                    files[f"predictions/{where}{result.episode.index:06d}.png"] = images.encode_png(result.prediction)
                if block.start == 0 and result.episode.index < PICTURES and entry is self.entries[-1]:
                    name = f"gallery/fold{block.fold}-{block.shots}shot-{result.episode.index}.png"
                    files[name] = images.encode_png(_picture(dataset, result))
        name = f"rows/{unit.name}.parquet"
        files[name] = _parquet(rows)
        return Output(files, {name: len(rows)}, {"episodes": len(drawn)})


def testable(images_of: Mapping[int, tuple[str, ...]], fold: Sequence[int], shots: int) -> dict[int, tuple[str, ...]]:
    """The classes of a fold with enough images for a query and `shots` other images as supports."""
    return {c: images_of[c] for c in fold if len(images_of.get(c, ())) > shots}


def _row(label: str, block: Block, result: evaluation.Result) -> dict[str, Any]:
    episode = result.episode
    return {
        "model": label,
        "fold": block.fold,
        "shots": block.shots,
        "episode": episode.index,
        "class_id": episode.class_id,
        "query": episode.query,
        "supports": list(episode.supports),
        **asdict(result.counts),
    }


def _picture(dataset: Dataset, result: evaluation.Result) -> np.ndarray:
    episode = result.episode
    names, label = episode.supports, episode.class_id
    counts = result.counts
    return pictures.episode_picture(
        [dataset.image(name) for name in names],
        [dataset.binary_mask(name, label) for name in names],
        dataset.image(episode.query),
        dataset.binary_mask(episode.query, label),
        result.prediction,
        title=dataset.class_names[label - 1],
        note=f"IoU {100 * counts.intersection / max(counts.union, 1):.0f}",
    )


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), buffer, compression="zstd")
    return buffer.getvalue()


def _slug(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label.lower()).strip("-")
