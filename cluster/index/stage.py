"""index: prototypes of regions of the corpus, exported as a model whose head looks them up; nothing is trained.

The regions are a uniform sample of the usable ones, by a hash of image, layer and label. Each is shown to the head as a
support would be: the backbone runs again over the images that hold them, at most as many as there are regions. The
driver reads region tables until it has seen many more regions than are wanted. Every shard is a uniform sample of the
corpus, so the cost of an index does not grow with the corpus.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from cluster.config import Config
from cluster.engine import publish
from cluster.engine.stage import (
    File,
    Manifest,
    Output,
    Stage,
    StageError,
    Unit,
    Work,
    read_array,
    write_file,
)
from cluster.features import backbone
from cluster.features.backbone import BackboneSettings
from cluster.features.feature_pass import FeaturePass
from cluster.features.head import HeadSettings
from cluster.features.provenance import provenance
from cluster.label import sources
from cluster.pair.groups import Members, ShardGroup, groups, labelled, read_regions
from cluster.train.settings import Kept
from cluster.train.tasks.mixed import names_seen
from fss import heads, rng, segmenter
from fss.grid import cells
from fss.heads.parts.capabilities import Recalls
from fss.heads.parts.head import Head
from fss.imaging import images
from fss.labelling import pseudo
from fss.labelling.sources import Block
from fss.tasks.pairing.parts import pairs
from fss.tasks.pairing.parts.rules import USABLE, Rules

#: So many times the wanted regions are looked through, usable or not.
_LOOKED_AT = 16


class RegionName(NamedTuple):
    """Where a region is."""

    key: str
    layer: int
    label: int


@dataclass(frozen=True)
class IndexShard:
    """Shows the head the chosen regions of one shard."""

    features: FeaturePass
    labels: Path
    head: HeadSettings

    @torch.inference_mode()
    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a `ShardGroup` of one shard and the `RegionName`s in it."""
        files, places = unit.payload
        network = self.features.spec.load()
        head = self.head.build(network.backbone).eval().to(network.device)
        by_image: dict[str, list[RegionName]] = defaultdict(list)
        for place in places:
            by_image[place.key].append(place)
        maps = Members(self.labels, files.labels)
        blocks = self.features.blocks(files.corpus[0], by_image)
        rows = [row for block in blocks for row in _rows(head, block, by_image, maps)]
        name = f"prototypes/{unit.name}.npy"
        counts = {"images": len(by_image), "regions": len(places)}
        return Output({name: publish.npy(np.concatenate(rows))}, {name: len(places)}, counts)


def _rows(
    head: Head, block: Block, by_image: Mapping[str, Sequence[RegionName]], maps: Members
) -> Iterator[np.ndarray]:
    """(n, 2, C) float16 prototypes of the chosen regions of each image of a block."""
    assert isinstance(head, Recalls)
    assert block.features is not None
    embedded, side = head.embed(block.features), block.fields.shape[1]
    for number, photo in enumerate(block.photos):
        places = by_image[photo.key]
        masks = torch.stack([cells(_mask(maps, place), side, block.corners) for place in places])
        own = {name: values[number].expand(len(places), *values.shape[1:]) for name, values in embedded.items()}
        yield head.prototypes(own, masks.to(block.fields.device)).half().cpu().numpy()


def _mask(maps: Members, place: RegionName) -> np.ndarray:
    """The (H, W) mask of a region, 1 inside."""
    return (images.decode_labels(maps[f"{place.key}.{place.layer}.png"]) == place.label).astype(np.uint8)


@dataclass(frozen=True)
class IndexSettings:
    """What shapes an index and the model that it is exported with."""

    seed: int
    head: HeadSettings
    backbone: BackboneSettings
    rules: Rules
    """What makes a region usable; the others of pairing's rules are left as they are by default."""
    kept: Kept | None
    """Where the source of the labels sees names: the fold whose classes it did not."""


@dataclass(frozen=True)
class IndexMeans:
    """Where the backbone's weights are, and how many images are looked at at a time."""

    weights: str | None
    threads: int


IndexWork: TypeAlias = Work[IndexSettings, IndexMeans]


def _settings(config: Config) -> IndexSettings:
    named = sources.chosen(config).named
    return IndexSettings(
        seed=config.seed,
        head=_head(config).complete,
        backbone=backbone.settings(config),
        rules=Rules(**{name: getattr(config.pair, name) for name in USABLE}),
        kept=Kept(config.dataset.name, config.fold) if named else None,
    )


def _head(config: Config) -> HeadSettings:
    """The model if it can look up regions, else the head that baselines name."""
    name, *_ = names = heads.looking_up()
    own = config.model.name in names
    return HeadSettings(config.model.name, dict(config.model.options)) if own else HeadSettings(name, {})


def _work(work: IndexWork) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, corpus, labels = work.settings, work.inputs["shard"], labelled(work.inputs)
    regions = _chosen(corpus, labels, chosen, _most(chosen))
    spec = backbone.spec(chosen.backbone, work.means.weights, work.inputs)
    recipe = pseudo.EmbeddingOptions(segments="none", levels=("high",))
    function = IndexShard(
        FeaturePass(corpus.folder, spec, recipe, work.means.threads, features=True), labels.folder, chosen.head
    )
    parts, counts = work.map("index", function, [Unit(name, payload) for name, payload in regions.items()])
    rows = np.concatenate([read_array(work.folder, file) for file in parts])
    head = replace(chosen.head, options={**chosen.head.options, "index_size": len(rows)})
    files = segmenter.export(_filled(head, spec, rows), spec.load(), head.about, _facts(work))
    written = [write_file(work.folder, name, data) for name, data in files.items()]
    return [*parts, *written], counts | {"bytes": rows.nbytes}


def _most(chosen: IndexSettings) -> int:
    """Regions that are wanted."""
    return int(heads.complete(chosen.head.name, chosen.head.options)["index_size"])


def _chosen(
    corpus: Manifest, labels: Manifest, chosen: IndexSettings, most: int
) -> dict[str, tuple[ShardGroup, list[RegionName]]]:
    """By the name of a unit its shard and the chosen regions in it: of all usable ones those of the smallest hashes."""
    best: list[tuple[int, int, RegionName]] = []
    looked_at, every = 0, groups(corpus, labels, 1)
    for number, files in enumerate(every):
        if looked_at >= _LOOKED_AT * most:
            break
        looked_at += files.regions[0].count
        table = read_regions(labels.folder, files.regions, descriptors=False)
        table = table.take(pairs.usable(table, chosen.rules))
        places = map(RegionName, map(str, table.key), map(int, table.layer), map(int, table.label))
        hashed = ((rng.mix(chosen.seed, "index", *place), number, place) for place in places)
        best = heapq.nsmallest(most, (*best, *hashed))
    if not best:
        raise StageError(
            "index: expected usable regions, found none in the label maps; loosen pair.min_area, pair.max_area or "
            "pair.max_border, or give more images"
        )
    parts: dict[str, tuple[ShardGroup, list[RegionName]]] = {}
    for _, number, place in sorted(best, key=lambda one: one[1:]):
        parts.setdefault(f"part-{number:06d}", (every[number], []))[1].append(place)
    return parts


def _filled(head: HeadSettings, spec: backbone.BackboneSpec, rows: np.ndarray) -> Head:
    made = head.build(spec.load().backbone)
    assert isinstance(made, Recalls)
    made.fill(rows)
    return made


def _facts(work: IndexWork) -> dict[str, Any]:
    """What the exported model says of what its regions are made of."""
    names, kept = names_seen(labelled(work.inputs), "index: expected in this run"), work.settings.kept
    seen = {"labelled": "names", **vars(kept), "classes": list(names)} if names and kept else {}
    return {"fingerprint": work.folder.name, **provenance(work.settings.backbone, work.inputs), **seen}


def _inputs(config: Config) -> tuple[str, ...]:
    return ("shard", config.refine.labels, *backbone.needed(config))


def _check(config: Config) -> list[str]:
    head = _head(config)
    options, wrong = heads.read_options(head.name, head.options)
    if not wrong and not options.looks_up_regions:
        wrong = ["model.options.index_size: expected at least 1 for jobs.index, got 0; leave it out"]
    return [*backbone.problems(config), *wrong]


STAGE = Stage(
    "index",
    _inputs,
    _settings,
    _work,
    means=lambda config: IndexMeans(backbone.place(config), config.cluster.cpus_per_worker),
    check=_check,
    size=lambda settings: {"regions": _most(settings("index"))},
    by_path=True,
    unit="regions",
)
