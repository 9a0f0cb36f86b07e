"""pair: regions of one cluster, from images of one group of shards, become few-shot tasks in WebDataset shards; or the
two halves of one region do (pair.pairing=mask_split).

A group is a uniform sample of the corpus, whose region table is held in memory by one worker; there is no global index.
Tasks whose query image falls into the hold-out (by its key) go to files of their own, for label-free validation.
`usage-GROUP.parquet` tells how often each image, cluster and pair was used (`usage.Use`), the manifest sums it up:
an image was used `image_uses / used_images` times on average, a cluster for `tasks / used_clusters` tasks.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.config import Config
from cluster.engine import publish
from cluster.engine.stage import File, Output, Stage, StageError, Unit, Work, read_file
from cluster.pair.groups import Regions, ShardGroup, drawn, groups, held_out, labelled, read_regions
from fss import rng, shards
from fss.tasks import task
from fss.tasks.pairing.parts import pairs, usage
from fss.tasks.pairing.parts.rules import Rules


class MadeLate(Mapping[str, bytes]):
    """Files by name whose bytes are made when they are asked for, so that one at a time is in memory."""

    def __init__(self, makers: Mapping[str, Callable[[], bytes]]):
        self._makers = makers

    def __getitem__(self, name: str) -> bytes:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


@dataclass(frozen=True)
class PairGroup:
    """Pairs the regions of one group and writes its tasks."""

    corpus: Path
    labels: Path
    rules: Rules
    tasks_per_shard: int
    seed: int

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a `ShardGroup`."""
        group: ShardGroup = unit.payload
        table = read_regions(self.labels, group.regions)
        source, held = Regions(self.corpus, self.labels, group, table, self.rules), held_out(table.key, self.seed)
        by_kind = {
            kind: drawn(table, self.rules, seed=self.seed, queries=queries)
            for kind, queries in (("tasks", ~held), ("holdout", held))
        }
        made = {
            kind: [pairing for pairing in pairings if source.possible(pairing)] for kind, pairings in by_kind.items()
        }
        files: dict[str, Callable[[], bytes]] = {}
        samples = {}
        for kind, pairings in made.items():
            order = rng.numpy_rng(self.seed, "order", unit.name, kind).permutation(len(pairings))
            for number, start in enumerate(range(0, len(pairings), self.tasks_per_shard)):
                part = [pairings[i] for i in order[start : start + self.tasks_per_shard]]
                name = f"{kind}-{unit.name}-{number:04d}.tar"
                files[name] = functools.partial(_pack, source, part, start)
                samples[name] = len(part)
        every = made["tasks"] + made["holdout"]
        used = usage.used(table, every)
        files[f"usage-{unit.name}.parquet"] = functools.partial(_usage_table, used)
        samples[f"usage-{unit.name}.parquet"] = len(used)
        counts = {"images": source.pictures.count("jpg"), "regions": len(table), "usable": self._usable(table)}
        counts |= {"tasks": len(every), "holdout": len(made["holdout"]), **usage.sums(used)}
        if self.rules.pairing == "mask_split":
            counts["rejected"] = sum(map(len, by_kind.values())) - len(every)
        return Output(MadeLate(files), samples, counts)

    def _usable(self, table: pairs.RegionTable) -> int:
        return int(pairs.usable(table, self.rules).sum())


def _pack(source: Regions, chosen: Sequence[pairs.Pairing], first: int) -> bytes:
    return shards.pack(_sample(source, pairing, number) for number, pairing in enumerate(chosen, first))


def _sample(source: Regions, pairing: pairs.Pairing, number: int) -> shards.Sample:
    table, rows = source.table, (pairing.query, *pairing.supports)
    about: dict[str, object] = {"cluster": int(table.label[pairing.query]), "distractors": len(pairing.distractors)}
    about["layers"] = [int(table.layer[row]) for row in rows]
    return task.encode(f"{number:08d}", *source.task(pairing), about)


def _usage_table(uses: Sequence[usage.Use]) -> bytes:
    """One row a use; what the manifest needs of it stands in the schema, so that nobody reads all rows for it."""
    names = ("kind", "name", "tasks", "supports", "distractors")
    kinds = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.int64())
    columns = {n: pa.array([getattr(use, n) for use in uses], kind) for n, kind in zip(names, kinds, strict=True)}
    peaks = json.dumps(asdict(usage.Peaks.of(uses)), sort_keys=True)
    return publish.parquet(pa.table(columns).replace_schema_metadata({"peaks": peaks}))


def _peaks(folder: Path, files: Sequence[File]) -> dict[str, int]:
    tables = [read_file(folder, file) for file in files if file.path.startswith("usage-")]
    texts = [pq.read_schema(pa.BufferReader(table)).metadata[b"peaks"] for table in tables]
    return usage.Peaks.merged([usage.Peaks(**json.loads(text)) for text in texts])


@dataclass(frozen=True)
class PairSettings:
    """What shapes tasks."""

    seed: int
    rules: Rules
    """The keys of the chosen pairing."""


def _settings(config: Config) -> PairSettings:
    return PairSettings(config.seed, copy.deepcopy(config.pair))


def _work(work: Work[PairSettings, None]) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, corpus, labels = work.settings, work.inputs["shard"], labelled(work.inputs)
    function = PairGroup(corpus.folder, labels.folder, chosen.rules, chosen.rules.tasks_per_shard, chosen.seed)
    units = [
        Unit(f"{number:05d}", group) for number, group in enumerate(groups(corpus, labels, chosen.rules.group_shards))
    ]
    files, counts = work.map("pair", function, units, items="tasks", parts="groups")
    if counts["tasks"] == counts["holdout"]:
        clusters = "refine.clusters" if labels.stage == "refine" else "source.clusters"
        raise StageError(
            f"no tasks for training came of {counts['regions']} regions ({counts['usable']} usable); "
            f"loosen pair.min_area, pair.max_area or pair.empty_lines, lower {clusters}, or give more images"
        )
    return files, counts | _peaks(work.folder, files)


def _size(settings: Callable[[str], Any]) -> Mapping[str, int]:
    return {"groups": math.ceil(settings("shard").shards / settings("pair").rules.group_shards)}


STAGE = Stage(
    "pair", lambda config: ("shard", config.refine.labels), _settings, _work, size=_size, unit="tasks", version=3
)
