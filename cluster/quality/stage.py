"""quality: what clusters and regions are worth, in figures and pictures; nothing else reads it.

Workers sum over the label shards, and over class masks where there are some, then over groups of shards, in which every
region finds its nearest partner. The driver adds, picks the most central regions of the largest clusters, and has them
cut out of the few shards that hold them. The sums add in the order of the shards, so the result does not depend on the
number of workers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from cluster.config import Config
from cluster.engine import publish
from cluster.engine.settings import picked
from cluster.engine.stage import File, Stage, Unit, Work, read_array, read_file, write_file
from cluster.label import sources
from cluster.label.sources.clusters import read_clusters
from cluster.pair.groups import labelled
from cluster.quality import masks
from cluster.quality.clusters import NamedClusters, of_means
from cluster.quality.masks import ClassMasks, MasksSettings, renders
from cluster.quality.parts import CROP, Central, CropShard, Labelled, MatchGroup, MeanGroup, ShardFigures, SumShard
from fss import shards
from fss.drawing import atlas
from fss.imaging import images
from fss.labelling import partners, quality
from fss.tasks.pairing.parts.rules import USABLE, Rules

#: Clusters on one page of the atlas, at most.
_PAGE = 60


@dataclass(frozen=True)
class QualitySettings:
    """What shapes the report."""

    shards: int | None
    """Label shards that are looked at, None: all."""
    clusters: int
    regions: int
    rules: Rules
    """What makes a region usable, and the shards that are paired together; pairing's other rules are as by default."""
    rendered: bool
    """Whether the class masks are those of the rendered corpus."""
    masks: MasksSettings | None


@dataclass(frozen=True)
class QualityMeans:
    """Where the user's class masks are."""

    masks: Path | None


class _Quality:
    """One run of the stage: what its steps share."""

    def __init__(self, given: Work[QualitySettings, QualityMeans]):
        self.given, self.folder, self.settings = given, given.folder, given.settings
        self.corpus, self.labels = given.inputs["shard"], labelled(given.inputs)
        self.masks: ClassMasks | None = None
        if self.settings.rendered:
            self.masks = ClassMasks.rendered(given.inputs["render"])
        elif self.settings.masks is not None and given.means.masks is not None:
            self.masks = ClassMasks(given.means.masks, self.settings.masks.sha256, self.settings.masks.names)
        columns = self.corpus.named(".tar"), self.labels.named(".tar"), self.labels.named(".regions.parquet")
        size = self.settings.rules.group_shards
        every = [Labelled(*files, group=n // size) for n, files in enumerate(zip(*columns, strict=True))]
        self.files = [files for files in every if files.regions.count][: self.settings.shards]
        self.named = self._clusters()

    def _clusters(self) -> NamedClusters:
        """What labels stand for; where masks are refined, labels of two groups are told apart."""
        if "kmeans" in self.given.inputs:
            return NamedClusters(read_clusters(self.given.inputs["kmeans"]))
        groups: dict[int, list[Labelled]] = {}
        for files in self.files:
            groups.setdefault(files.group, []).append(files)
        units = [Unit(f"means-{group:06d}", files) for group, files in groups.items()]
        parts, _ = self.given.map("means", MeanGroup(self.labels.folder), units, parts="groups")
        sums = [read_array(self.folder, file) for file in parts]
        named, starts = of_means(sums, apart=self.labels.stage == "refine")
        start = dict(zip(groups, starts, strict=True))
        self.files = [replace(files, start=start[files.group]) for files in self.files]
        return named

    def work(self) -> tuple[Sequence[File], Mapping[str, int]]:
        """All steps, and the stage's files."""
        counted, counts, fits = self._sums()
        tasks = self._tasks(fits)
        order = np.argsort(-counted.regions.regions, kind="stable")[: self.settings.clusters]
        shown = [int(cluster) for cluster in order if counted.regions.regions[cluster]]
        table = self._table(counted)
        pages = self._pages(shown, table, self._crops(shown, counted))
        figures = self._figures(counted, len(shown)) | {"tasks": tasks.figures()}
        files = [
            write_file(self.folder, "quality.json", json.dumps(figures, indent=2).encode()),
            write_file(self.folder, "clusters.parquet", publish.parquet(pa.Table.from_pylist(table)), len(table)),
            *(write_file(self.folder, name, data) for name, data in pages.items()),
        ]
        self._log(figures, files)
        regions = int(counted.regions.regions.sum())
        return files, {**counts, "regions": regions, "clusters": len(table), "masks": counted.masks.images}

    def _sums(self) -> tuple[ShardFigures, Mapping[str, int], list[File]]:
        """Sums, counts, and for each shard the file that says how its regions fit objects."""
        rules, most = self.settings.rules, self.settings.regions
        function = SumShard(self.corpus.folder, self.labels.folder, self.named, rules, self.masks, most)
        units = [Unit(f"sums-{number:06d}", (number, files)) for number, files in enumerate(self.files)]
        files, counts = self.given.map("quality", function, units)
        parts, fits = ([file for file in files if file.path.startswith(kind)] for kind in ("sums/", "fits/"))
        counted = ShardFigures.decode(read_file(self.folder, parts[0]))
        for file in parts[1:]:
            counted.add(ShardFigures.decode(read_file(self.folder, file)), most)
        if self.masks is not None and not counted.masks.images:
            raise ValueError(
                f"expected masks with the names of the images in quality.masks={self.masks.folder}, found none for "
                f"{counted.missing} images; give the right folder, or quality.masks=null"
            )
        return counted, counts, fits

    def _tasks(self, fits: Sequence[File]) -> partners.TaskSums:
        """Sums over the tasks of all regions with their nearest partners, group by group as pairing takes them."""
        every = zip(self.files, fits, strict=True)
        groups = [list(group) for _, group in itertools.groupby(every, lambda one: one[0].group)]
        function = MatchGroup(self.labels.folder, self.folder, self.settings.rules)
        units = [Unit(f"tasks-{number:06d}", group) for number, group in enumerate(groups)]
        parts, _ = self.given.map("partners", function, units, parts="groups")
        sums = (partners.TaskSums(**json.loads(read_file(self.folder, file))) for file in parts)
        return sum(sums, partners.TaskSums())

    def _crops(self, shown: Sequence[int], counted: ShardFigures) -> dict[int, list[np.ndarray]]:
        """The pictures of the regions that stand for each cluster, the most central first."""
        by_shard: dict[int, dict[tuple[int, int], Central]] = {}
        for cluster in shown:
            for place, one in enumerate(counted.central[cluster]):
                by_shard.setdefault(one.shard, {})[cluster, place] = one
        units = [Unit(f"crops-{n:06d}", (self.files[n], chosen)) for n, chosen in sorted(by_shard.items())]
        function = CropShard(self.corpus.folder, self.labels.folder)
        parts, _ = self.given.map("atlas", function, units, items="crops")
        pictures = {
            key: members["png"] for file in parts for key, members in shards.unpack(read_file(self.folder, file))
        }
        crops: dict[int, list[np.ndarray]] = {cluster: [] for cluster in shown}
        for key in sorted(pictures):
            crops[int(key.split("_")[0])].append(images.decode_colours(pictures[key]))
        return crops

    def _table(self, counted: ShardFigures) -> list[dict[str, Any]]:
        """A row of figures for each cluster, in order; what needs masks is missing without them."""
        sums, (pixels, classes) = counted.regions, counted.masks.table(self.named.clusters.count)
        rows = []
        for cluster, number in list(enumerate(sums.regions))[self.named.first :]:
            row: dict[str, Any] = {
                "cluster": cluster,
                "regions": int(number),
                "images": int(sums.images[cluster]),
                "area": float(sums.area[cluster] / max(number, 1)),
                "border": float(sums.border[cluster] / max(number, 1)),
            }
            if self.masks is not None:
                mine = pixels[cluster]
                top = int(mine.argmax())
                row["class"] = self.masks.name(int(classes[top])) if mine.any() else None
                row["purity"] = float(mine[top] / mine.sum()) if mine.any() else None
            rows.append(row)
        return rows

    def _pages(
        self, shown: Sequence[int], table: Sequence[Mapping[str, Any]], crops: Mapping[int, list[np.ndarray]]
    ) -> dict[str, bytes]:
        """The atlas as JPEG files."""
        rows = [
            atlas.AtlasRow(f"{cluster}", figures_of(table[cluster - self.named.first]), crops[cluster])
            for cluster in shown
        ]
        pages, start = {}, 0
        for number, length in enumerate(atlas.paged(len(rows), _PAGE), 1):
            page = atlas.page(rows[start : start + length], crops=self.settings.regions, size=CROP)
            pages["atlas.jpg" if number == 1 else f"atlas-{number}.jpg"] = images.encode_jpeg(Image.fromarray(page))
            start += length
        return pages

    def _figures(self, counted: ShardFigures, shown: int) -> dict[str, Any]:
        """The content of quality.json."""
        sums, number = counted.regions, self.named.clusters.count
        sizes = sums.regions[self.named.first :]
        total = int(sizes.sum())
        figures: dict[str, Any] = {
            "clusters": {
                "number": len(sizes),
                "shown": shown,
                "empty": int((sizes == 0).sum()),
                "entropy": quality.entropy(sizes),
                "largest": float(sizes.max() / total),
                "inertia": float(sums.inertia / total),
                "explained": quality.explained(sums),
            },
            "regions": {
                "number": total,
                "shards": [len(self.files), len(self.corpus.named(".tar"))],
                "usable": float(sums.usable.sum() / total),
                "strayed": float(sums.strayed / total),
                "area": quality.quantiles(sums.areas),
                "usable_area": quality.quantiles(sums.usable),
            },
        }
        if self.masks is not None:
            layers = [None, *sorted({layer for layer, _, _ in counted.masks.pixels})]
            figures["masks"] = {"images": counted.masks.images, "missing": counted.missing}
            figures["classes"] = {
                "all" if layer is None else str(layer): quality.agreement(counted.masks.table(number, layer)[0])
                for layer in layers
            }
            figures["objects"] = counted.masks.matches()
        return figures

    def _log(self, figures: Mapping[str, Any], files: Sequence[File]) -> None:
        with self.given.journal() as journal:
            journal.metrics({f"quality/{key}": value for key, value in flat(figures).items()})
            for file in files:
                journal.artifact(self.folder / file.path)


def figures_of(row: Mapping[str, Any]) -> str:
    """A cluster's line in the atlas."""
    words = [f"{row['regions']} regions", f"area {100 * row['area']:.0f} %", f"border {100 * row['border']:.0f} %"]
    if row.get("class") is not None:
        words.append(f"{row['class']} {100 * row['purity']:.0f} %")
    return "  ·  ".join(words)


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested figures under names joined by dots; lists are left out."""
    numbers: dict[str, float] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            numbers[f"{prefix}{key}"] = float(value)
    return numbers


def _settings(config: Config) -> QualitySettings:
    return picked(
        QualitySettings,
        config.quality,
        rules=Rules(**{name: getattr(config.pair, name) for name in (*USABLE, "group_shards")}),
        rendered=renders(config),
        masks=masks.settings(config),
    )


def wanted(config: Config) -> bool:
    """Whether the pipeline makes the report: of clusters, or of refined masks."""
    return config.quality.enabled and (sources.chosen(config).clusters or config.refine.on)


def _inputs(config: Config) -> tuple[str, ...]:
    clusters = ("kmeans",) if sources.chosen(config).clusters and not config.refine.on else ()
    return ("shard", *clusters, config.refine.labels, *(("render",) if renders(config) else ()))


STAGE = Stage(
    "quality",
    _inputs,
    _settings,
    lambda work: _Quality(work).work(),
    means=lambda config: QualityMeans(masks.place(config)),
    check=masks.problems,
    size=lambda settings: {"shards": len(range(settings("shard").shards)[: settings("quality").shards])},
    version=2,
)
