"""What a worker does in the evaluate stage: index images, compute features, fit heads, run episodes, draw pictures."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load

from cluster.engine import compute, publish
from cluster.engine.stage import Output, Unit
from cluster.evaluate import episode_list
from cluster.evaluate.episode_list import Item
from cluster.features.backbone import BackboneSpec
from cluster.storage import paths
from fss import heads, segmenter
from fss.backbones import fingerprint
from fss.datasets import Dataset, areas, open_dataset
from fss.datasets.parts.files import read_mask
from fss.drawing import pictures
from fss.evaluation import running
from fss.evaluation.cache import FeatureStore, Memory
from fss.evaluation.metrics import FIELDS, MODEL
from fss.evaluation.running import Photos
from fss.heads.parts.capabilities import Fits, SeesBlank
from fss.heads.parts.head import Head
from fss.imaging import images

#: Raised when features of equal images and weights change.
_FEATURES = 2


@dataclass(frozen=True)
class MeasuredModel:
    """A model to measure: its name in tables, its backbone, and a head.

    The head is built by name and options, or is that of the exported model in `folder`; `weights` is a safetensors file
    with other weights for it: a candidate of training, or what was fitted.
    """

    label: str
    spec: BackboneSpec
    head: str
    options: tuple[tuple[str, Any], ...] = ()
    folder: str | None = None
    weights: str | None = None

    def load(self) -> Head:
        """The head, on its backbone's device; kept for the next call in this process."""
        return _load_head(self)


@functools.lru_cache(maxsize=32)
def _load_head(entry: MeasuredModel) -> Head:
    extractor = entry.spec.load()
    if entry.folder:
        head = segmenter.Segmenter.load(paths.bring(Path(entry.folder))).head
    else:
        backbone = extractor.backbone
        head = heads.build(entry.head, dict(entry.options), backbone.channels, corners=backbone.corners)
    if entry.weights:
        head.load_state_dict(load(paths.here(Path(entry.weights)).read_bytes()))
    elif isinstance(head, SeesBlank) and not entry.folder:
        head.see_blank(extractor.blank())
    return head.eval().to(extractor.device)


@dataclass(frozen=True)
class DataSpec:
    """Which labelled images; `options` are those of the data set's opener."""

    name: str
    root: str
    list_file: str | None
    options: tuple[tuple[str, Any], ...] = ()
    supports: str | None = None
    """Folder of the masks that supports show in place of their own, see `cluster.evaluate.supports`."""

    def open(self) -> Dataset:
        """The data set; kept for the next call in this process."""
        return _open(self)


@functools.lru_cache(maxsize=2)
def _open(spec: DataSpec) -> Dataset:
    dataset = open_dataset(spec.name, spec.root, spec.list_file, **dict(spec.options))
    if spec.supports is None:
        return dataset
    return dataclasses.replace(dataset, read_support=functools.partial(_support_mask, Path(spec.supports)))


def support_path(name: str, class_id: int) -> str:
    """The mask that image `name` shows as a support of `class_id`, below `DataSpec.supports`."""
    return f"{class_id}/{name}.png"


def _support_mask(folder: Path, name: str, class_id: int) -> np.ndarray:
    return read_mask(paths.here(folder / support_path(name, class_id)))


@dataclass(frozen=True)
class Cache:
    """Where workers keep what they computed: features in `folder` up to `disk` bytes, the rest up to `memory` bytes."""

    folder: str | None
    disk: int
    memory: int


@functools.lru_cache(maxsize=4)
def photos(data: DataSpec, spec: BackboneSpec, cache: Cache) -> Photos:
    """The data set under one backbone, as this process keeps it."""
    extractor = spec.load()
    folder = None
    if cache.folder is not None:
        kind = f"{extractor.size}-{extractor.device.type}-{compute.digest(compute.here())}-v{_FEATURES}"
        folder = Path(cache.folder) / f"{fingerprint(extractor.backbone)[:16]}-{kind}"
    return Photos(data.open(), extractor, FeatureStore(folder, cache.disk), _memory(cache.memory))


@functools.lru_cache(maxsize=1)
def _memory(capacity: int) -> Memory:
    return Memory(capacity)


@dataclass(frozen=True)
class IndexImages:
    """Notes the area of every class in some images."""

    data: DataSpec

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a tuple of image names."""
        areas_of = {name: areas(self.data.open(), name) for name in unit.payload}
        name = f"index/{unit.name}.json"
        return Output({name: json.dumps(areas_of).encode()}, {name: len(areas_of)}, {"images": len(areas_of)})


@dataclass(frozen=True)
class Prepare:
    """Computes and stores the features of some images under every backbone."""

    data: DataSpec
    specs: tuple[BackboneSpec, ...]
    cache: Cache
    threads: int = 1

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a tuple of image names. What is stored already costs nothing."""
        for spec in self.specs:
            photos(self.data, spec, self.cache).prepare(unit.payload, self.threads)
        return Output({}, {}, {"images": len(unit.payload)})


@dataclass(frozen=True)
class Describe:
    """Rows that a head is fitted on, one for each of some images."""

    data: DataSpec
    entry: MeasuredModel
    cache: Cache

    @torch.inference_mode()
    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a tuple of image names."""
        head, source = self.entry.load(), photos(self.data, self.entry.spec, self.cache)
        assert isinstance(head, Fits)
        rows = torch.cat([head.describe(source.embedded(head, name)) for name in unit.payload])
        name = f"described/{unit.name}.npy"
        return Output({name: publish.npy(rows.float().cpu().numpy())}, {name: len(rows)}, {"images": len(rows)})


@dataclass(frozen=True)
class RunBlock:
    """Runs every model over one block of episodes."""

    data: DataSpec
    entries: tuple[MeasuredModel, ...]
    cache: Cache
    side: int | None
    """Of the model's resolution, pixels; none = that of the model's own input."""
    save_predictions: bool
    flat: bool

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a tuple of `Item`s, neighbours having one query where possible."""
        items: Sequence[Item] = unit.payload
        rows: list[dict[str, Any]] = []
        files: dict[str, bytes] = {}
        for entry in self.entries:
            for item, result in self._results(entry, items):
                rows += _rows(entry.label, item, result)
                if self.save_predictions:
                    name = f"predictions/{self._folder(entry, item)}{item.episode.index:06d}.png"
                    files[name] = images.encode_png(result.prediction)
        name = f"rows/{unit.name}.parquet"
        files[name] = publish.parquet(pa.Table.from_pylist(rows, schema=SCHEMA))
        return Output(files, {name: len(rows)}, {"episodes": len(items)})

    def _results(self, entry: MeasuredModel, items: Sequence[Item]) -> Any:
        source = photos(self.data, entry.spec, self.cache)
        side = self.side or entry.spec.size
        return zip(items, running.run(entry.load(), source, [i.episode for i in items], side), strict=True)

    def _folder(self, entry: MeasuredModel, item: Item) -> str:
        way = f"{item.ways}way-" if item.ways > 1 else ""
        return "" if self.flat else f"{slug(entry.label)}/fold{item.fold}-{way}{item.shots}shot-seed{item.seed}/"


@dataclass(frozen=True)
class Picture:
    """An episode to be drawn, what it is an example of, and whose answer is shown."""

    name: str
    item: Item
    entry: MeasuredModel


@dataclass(frozen=True)
class Draw(RunBlock):
    """Draws answers to some episodes; `RunBlock`'s other fields mean the same."""

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a tuple of `Picture`s."""
        files = {}
        for picture in unit.payload:
            ((_, result),) = self._results(picture.entry, [picture.item])
            files[f"gallery/{picture.name}.png"] = images.encode_png(_picture(self.data.open(), result))
        return Output(files, dict.fromkeys(files, 1), {"pictures": len(files)})


def _rows(label: str, item: Item, result: running.EpisodeResult) -> list[dict[str, Any]]:
    counted = zip(episode_list.rows(item), result.counts, result.model_counts, strict=True)
    return [
        {"model": label, **row, **asdict(own), **{f"{MODEL}{name}": n for name, n in asdict(coarse).items()}}
        for row, own, coarse in counted
    ]


SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        *episode_list.SCHEMA,
        *((f"{prefix}{name}", pa.int64()) for prefix in ("", MODEL) for name in FIELDS),
    ]
)


def _picture(dataset: Dataset, result: running.EpisodeResult) -> np.ndarray:
    episode, way, counts = result.episode, result.episode.ways[0], result.counts[0]
    return pictures.episode_picture(
        [dataset.image(name) for name in way.supports],
        [dataset.support_mask(name, way.class_id) for name in way.supports],
        dataset.image(episode.query),
        dataset.binary_mask(episode.query, way.class_id),
        (result.prediction == 1).astype(np.uint8),
        title=dataset.class_names[way.class_id - 1],
        note=f"IoU {100 * counts.intersection / max(counts.union, 1):.0f}",
    )


def slug(label: str) -> str:
    """A label as a file name."""
    return "".join(c if c.isalnum() else "-" for c in label.lower()).strip("-")
