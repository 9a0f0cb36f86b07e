"""pair: regions of one cluster, from images of one group of shards, become few-shot tasks in WebDataset shards.

A group is a uniform sample of the corpus, read sequentially and held in memory by one worker; there is no global index.
Tasks whose query image falls into the hold-out (by its key) go to files of their own, for label-free validation.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.run import Run
from cluster.stage import File, Output, Stage, StageError, Unit, map_units, read_file
from fss import images, pairs, rng, shards, tasks

#: One image in so many never is a training query.
_HOLDOUT = 16


@dataclasses.dataclass(frozen=True)
class Group:
    """The files of one group: corpus shards, their label maps and region tables."""

    corpus: tuple[File, ...]
    labels: tuple[File, ...]
    regions: tuple[File, ...]


@dataclasses.dataclass(frozen=True)
class PairGroup:
    """Pairs the regions of one group and writes its tasks."""

    corpus: Path
    labels: Path
    rules: pairs.Rules
    tasks_per_shard: int
    seed: int

    def __call__(self, unit: Unit) -> Output:
        """`unit.payload` is a `Group`."""
        group: Group = unit.payload
        every = _read_regions(self.labels, group.regions)
        table = every.take(pairs.usable(every, self.rules))
        pairings = list(pairs.draw(table, self.rules, seed=self.seed))
        jpegs, maps = _members(self.corpus, group.corpus), _members(self.labels, group.labels)
        files, samples = {}, {}
        held = [rng.mix(self.seed, "holdout", table.key[p.query]) % _HOLDOUT == 0 for p in pairings]
        for kind in ("tasks", "holdout"):
            chosen = [p for p, h in zip(pairings, held, strict=True) if h == (kind == "holdout")]
            order = rng.numpy_rng(self.seed, "order", unit.name, kind).permutation(len(chosen))
            for number, start in enumerate(range(0, len(chosen), self.tasks_per_shard)):
                part = [chosen[i] for i in order[start : start + self.tasks_per_shard]]
                name = f"{kind}-{unit.name}-{number:04d}.tar"
                files[name] = shards.pack(_tasks(part, start, table, jpegs, maps))
                samples[name] = len(part)
        counts = {"images": len(jpegs), "regions": len(every), "usable": len(table), "tasks": len(pairings)}
        return Output(files, samples, counts | {"holdout": sum(held)})


def _members(folder: Path, files: Sequence[File]) -> dict[str, dict[str, bytes]]:
    return {key: members for file in files for key, members in shards.unpack(read_file(folder, file))}


def _read_regions(folder: Path, files: Sequence[File]) -> pairs.Table:
    parts = [pq.read_table(io.BytesIO(read_file(folder, file))) for file in files]
    table = pa.concat_tables([part for part in parts if len(part)] or parts[:1]).combine_chunks()
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names if name != "descriptor"}
    descriptors = table["descriptor"].combine_chunks()
    values = descriptors.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return pairs.Table(**columns, descriptor=values.reshape(len(table), -1))


def _tasks(
    chosen: Sequence[pairs.Pairing],
    first: int,
    table: pairs.Table,
    jpegs: Mapping[str, Mapping[str, bytes]],
    maps: Mapping[str, Mapping[str, bytes]],
) -> Iterator[shards.Sample]:
    for number, pairing in enumerate(chosen, first):
        rows = (pairing.query, *pairing.supports)
        keys = [str(table.key[row]) for row in rows]
        masks = [
            (images.decode_labels(maps[key][f"{table.layer[row]}.png"]) == table.label[row]).astype(np.uint8)
            for key, row in zip(keys, rows, strict=True)
        ]
        about = {"cluster": int(table.label[pairing.query]), "layers": [int(table.layer[row]) for row in rows]}
        yield tasks.encode(f"{number:08d}", keys, [jpegs[key]["jpg"] for key in keys], masks, about)


def _settings(run: Run) -> dict[str, Any]:
    settings = dict(vars(run.config.pair))
    return {"seed": run.config.seed, **settings}


def _work(run: Run, folder: Path) -> tuple[Sequence[File], Mapping[str, int]]:
    chosen, corpus, labels = run.config.pair, run.manifest("shard"), run.manifest("label")
    columns = (corpus.named(".tar"), labels.named(".tar"), labels.named(".regions.parquet"))
    size = chosen.group_shards
    groups = [Group(*(tuple(c[start : start + size]) for c in columns)) for start in range(0, len(columns[0]), size)]
    rules = pairs.Rules(**{field.name: getattr(chosen, field.name) for field in dataclasses.fields(pairs.Rules)})
    function = PairGroup(corpus.folder, labels.folder, rules, chosen.tasks_per_shard, run.config.seed)
    units = [Unit(f"{number:05d}", group) for number, group in enumerate(groups)]
    files, counts = map_units(run, folder, "pair", function, units, total=len(units), items="tasks", parts="groups")
    if counts["tasks"] == counts["holdout"]:
        raise StageError(
            f"no tasks for training came of {counts['regions']} regions ({counts['usable']} usable); "
            "loosen pair.min_area, pair.max_area or pair.empty_lines, lower source.clusters, or give more images"
        )
    return files, counts


STAGE = Stage("pair", lambda run: ("shard", "label"), _settings, _work)
