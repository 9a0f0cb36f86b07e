"""The list of episodes of an evaluation: a Parquet file that anybody can run again, and the hash that names it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.engine import publish
from fss import shards
from fss.datasets import Dataset
from fss.evaluation.episodes import Episode, Way

SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("fold", "shots", "ways", "seed", "episode", "way", "class_id")),
        ("query", pa.string()),
        ("supports", pa.list_(pa.string())),
    ]
)


class Item(NamedTuple):
    """An episode and where it belongs: the fold, the numbers of shots and ways, and the seed of its list."""

    fold: int
    shots: int
    ways: int
    seed: int
    episode: Episode


def rows(item: Item) -> list[dict[str, Any]]:
    """One row for each way."""
    return [
        {
            "fold": item.fold,
            "shots": item.shots,
            "ways": item.ways,
            "seed": item.seed,
            "episode": item.episode.index,
            "way": number,
            "class_id": way.class_id,
            "query": item.episode.query,
            "supports": list(way.supports),
        }
        for number, way in enumerate(item.episode.ways)
    ]


def sha256(items: Sequence[Item]) -> str:
    """Hex digest over all rows in order: equal for equal episodes, whatever wrote the file."""
    return shards.sha256(b"\n".join(shards.dumps(row) for item in items for row in rows(item)))


def encode(items: Sequence[Item], dataset: str, class_names: Sequence[str]) -> bytes:
    """The list as Parquet; its metadata hold the data set's name and classes and the hash."""
    about = {"dataset": dataset, "classes": json.dumps(list(class_names)), "sha256": sha256(items)}
    table = pa.Table.from_pylist([row for item in items for row in rows(item)], schema=SCHEMA)
    return publish.parquet(table.replace_schema_metadata(about))


def decode(data: bytes, dataset: Dataset) -> list[Item]:
    """The items of a Parquet list, checked against the data set that they are to be run on.

    Raises:
        ValueError: if it is no such list, was changed, or names classes or images that the data set does not have.
    """
    try:
        table = pq.read_table(io.BytesIO(data))
        rows = table.select(SCHEMA.names).cast(SCHEMA).to_pylist()
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(
            f"expected an episode list as evaluate writes it (Parquet with {', '.join(SCHEMA.names)}), got {error}"
        ) from error
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    items = _items(rows)
    if not items:
        raise ValueError("expected at least one episode, the list is empty")
    if about.get("sha256") not in (None, sha256(items)):
        raise ValueError("the episode list was changed after it was written: its hash differs; take the original")
    if "classes" in about and tuple(json.loads(about["classes"])) != dataset.class_names:
        raise ValueError("the episode list names other classes than this data set has; check dataset= and dataset.root")
    check(items, dataset)
    return items


def _items(rows: Sequence[dict[str, Any]]) -> list[Item]:
    grouped: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("fold", "shots", "ways", "seed", "episode"))
        grouped.setdefault(key, []).append(row)
    items = []
    for (fold, shots, ways, seed, index), parts in grouped.items():
        parts.sort(key=lambda row: row["way"])
        chosen = tuple(Way(row["class_id"], tuple(row["supports"])) for row in parts)
        items.append(Item(fold, shots, ways, seed, Episode(index, parts[0]["query"], chosen)))
    return items


def check(items: Sequence[Item], dataset: Dataset) -> None:
    """Whether `items` can be run on the data set; supports of one class may repeat, as HSNet's do.

    Raises:
        ValueError: naming the first episode that cannot.
    """
    known = set(dataset.names)
    for item in items:
        names = [item.episode.query, *(name for way in item.episode.ways for name in dict.fromkeys(way.supports))]
        where = f"episode {item.episode.index} of fold {item.fold}, {item.shots}-shot, seed {item.seed}"
        missing = [name for name in names if name not in known]
        if missing:
            raise ValueError(f"{where}: the data set has no image {missing[0]}; check dataset.root and dataset.list")
        if len(set(names)) != len(names):
            raise ValueError(
                f"{where}: expected a query and classes with images of their own, {item.episode.query} or a support "
                "appears twice"
            )
        if len(item.episode.ways) != item.ways or any(len(way.supports) != item.shots for way in item.episode.ways):
            raise ValueError(f"{where}: expected {item.ways} ways of {item.shots} supports, got other numbers")
        classes = [way.class_id for way in item.episode.ways]
        if not set(classes) <= set(range(1, len(dataset.class_names) + 1)) or len(set(classes)) != len(classes):
            raise ValueError(f"{where}: expected distinct classes of 1..{len(dataset.class_names)}, got {classes}")
