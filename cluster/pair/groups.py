"""A group of shards, of whose regions tasks are made: what the pair stage and streaming training read."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.engine.files import whole_file
from cluster.engine.stage import File, Manifest, read_file
from fss import choices, rng, shards
from fss.imaging import images
from fss.tasks.pairing import mask_split
from fss.tasks.pairing.parts import pairs
from fss.tasks.pairing.parts.rules import Rules

#: One image in so many never is a training query.
_HOLDOUT = 16
#: Whose modules are the pairings.
PAIRINGS = "fss.tasks.pairing"


@dataclass(frozen=True)
class ShardGroup:
    """The files of one group: corpus shards, their label maps and region tables."""

    corpus: tuple[File, ...]
    labels: tuple[File, ...]
    regions: tuple[File, ...]


def labelled(inputs: Mapping[str, Manifest]) -> Manifest:
    """Of a stage's inputs the one whose label maps are paired: refine, where masks are refined, or else label."""
    return inputs["refine" if "refine" in inputs else "label"]


def groups(corpus: Manifest, labels: Manifest, size: int) -> list[ShardGroup]:
    """All shards in groups of `size`, in order."""
    columns = (corpus.named(".tar"), labels.named(".tar"), labels.named(".regions.parquet"))
    return [ShardGroup(*files) for files in in_groups(columns, size)]


def in_groups(columns: Sequence[Sequence[File]], size: int) -> list[list[tuple[File, ...]]]:
    """The files of all shards, a column a kind, in groups of `size` shards: of each group a tuple a kind."""
    starts = range(0, len(columns[0]), size)
    return [[tuple(column[start : start + size]) for column in columns] for start in starts]


def read_regions(folder: Path, files: Sequence[File], *, descriptors: bool = True) -> pairs.RegionTable:
    """The regions of a group; without descriptors, which are nearly all of it, their width is 0."""
    parts = [pq.read_table(io.BytesIO(read_file(folder, file)), columns=_columns(descriptors)) for file in files]
    table = pa.concat_tables([part for part in parts if len(part)] or parts[:1]).combine_chunks()
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names if name != "descriptor"}
    if not descriptors:
        return pairs.RegionTable(**columns, descriptor=np.zeros((len(table), 0), np.float32))
    values = table["descriptor"].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return pairs.RegionTable(**columns, descriptor=values.reshape(len(table), -1))


def _columns(descriptors: bool) -> list[str]:
    names = ["key", "layer", "label", "area", "border", "empty_rows", "empty_columns"]
    return [*names, "descriptor"] if descriptors else names


def held_out(keys: np.ndarray, seed: int) -> np.ndarray:
    """(R,) bool: the rows of images that never are training queries, a function of key and seed alone."""
    distinct, code = np.unique(keys, return_inverse=True)
    held = [rng.mix(seed, "holdout", key) % _HOLDOUT == 0 for key in distinct]
    return np.array(held, bool)[code]


def drawn(
    table: pairs.RegionTable, rules: Rules, *, seed: int, queries: np.ndarray | None = None
) -> Sequence[pairs.Pairing]:
    """A group's pairings, as `rules.pairing` makes them; see `cross_image.draw` for the arguments."""
    return choices.load(PAIRINGS, rules.pairing).draw(table, rules, seed=seed, queries=queries)


def number_drawn(table: pairs.RegionTable, rules: Rules, queries: np.ndarray) -> int:
    """How many pairings `drawn` finds among `queries` (R,) bool, whatever the seed, without looking at descriptors."""
    return int(choices.load(PAIRINGS, rules.pairing).count(table, rules, queries))


class Members:
    """The members of shards by name, read one by one where an index says: no shard stays in memory."""

    def __init__(self, folder: Path, files: Iterable[File]):
        self._folder = folder
        self._places: dict[str, tuple[File, int, int]] = {}
        for file in files:
            places = shards.index(read_file(folder, file))
            self._places |= {name: (file, *place) for name, place in places.items()}

    def __getitem__(self, name: str) -> bytes:
        file, offset, size = self._places[name]
        path = whole_file(self._folder, file)
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
        if len(data) != size:
            raise ValueError(f"{path} was cut short while it was read; delete it and run its stage again")
        return data

    def names(self, extension: str) -> list[str]:
        """The members with this extension, in the order of their shards."""
        return [name for name in self._places if name.endswith(f".{extension}")]

    def count(self, extension: str) -> int:
        """How many members have this extension."""
        return len(self.names(extension))


class Regions:
    """A group's regions with its images and label maps: makes tasks of pairings, by rules that say how to split."""

    def __init__(self, corpus: Path, labels: Path, group: ShardGroup, table: pairs.RegionTable, rules: Rules):
        self.table, self.rules = table, rules
        self.pictures = Members(corpus, group.corpus)
        self._maps = Members(labels, group.labels)

    def task(self, pairing: pairs.Pairing) -> tuple[list[str], list[bytes], list[np.ndarray]]:
        """Keys, JPEGs and (H, W) uint8 masks in {0, 1}: the query's, its supports', its distractors' (all 0).

        Of `Halves` the masks hold void (255) too, and all images are the same one.

        Raises:
            ValueError: for a pairing that is not `possible`.
        """
        keys = [str(self.table.key[row]) for row in (pairing.query, *pairing.supports, *pairing.distractors)]
        masks = self._masks(pairing)
        if masks is None:
            raise ValueError(f"{keys[0]}: expected a region that can be split, got one whose halves are too small")
        return keys, [self.pictures[f"{key}.jpg"] for key in keys], masks

    def possible(self, pairing: pairs.Pairing) -> bool:
        """Whether a task comes of the pairing: a region may be too small, or of the wrong shape, to be split."""
        return not isinstance(pairing, mask_split.Halves) or self._masks(pairing) is not None

    def _masks(self, pairing: pairs.Pairing) -> list[np.ndarray] | None:
        if isinstance(pairing, mask_split.Halves):
            halves = mask_split.split(self._mask(pairing.query, True) == 1, pairing.rules, pairing.seed)
            return halves and [halves.query, *[halves.support] * len(pairing.supports)]
        shown = (pairing.query, *pairing.supports)
        rows = (*shown, *pairing.distractors)
        return [self._mask(row, number < len(shown)) for number, row in enumerate(rows)]

    def _mask(self, row: int, shown: bool) -> np.ndarray:
        labels = images.decode_labels(self._maps[f"{self.table.key[row]}.{self.table.layer[row]}.png"])
        return ((labels == self.table.label[row]) & shown).astype(np.uint8)
