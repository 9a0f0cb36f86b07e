"""Episode lists: what was written is read, what does not fit the data set is told, and equal lists have one hash."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.evaluate import episode_list
from cluster.evaluate.episode_list import Item
from fss.datasets import Dataset
from fss.evaluation.episodes import Episode, Way

CLASSES = ("ant", "bee", "cat")
NAMES = tuple("abcdefghijkl")
DATASET = Dataset(NAMES, CLASSES, ((1, 2, 3),), Path, lambda _: np.zeros((1, 1), np.uint8))
ITEMS = [
    Item(0, 2, 1, 7, Episode(0, "a", (Way(1, ("b", "c")),))),
    Item(0, 2, 1, 7, Episode(1, "d", (Way(3, ("a", "e")),))),
    Item(0, 1, 2, 7, Episode(0, "a", (Way(3, ("b",)), Way(1, ("c",))))),
]


def read(items, dataset=DATASET):
    return episode_list.decode(episode_list.encode(items, "set", CLASSES), dataset)


def table(items=ITEMS):
    return pq.read_table(io.BytesIO(episode_list.encode(items, "set", CLASSES)))


def parquet(found):
    buffer = io.BytesIO()
    pq.write_table(found, buffer)
    return buffer.getvalue()


@st.composite
def lists(draw):
    """Lists of episodes, distinct by fold, shots, ways, seed and index, in any order."""
    keys = st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(0, 9))
    items = []
    for fold, shots, ways, seed, index in draw(st.lists(keys, min_size=1, max_size=8, unique=True)):
        query, *rest = draw(st.permutations(NAMES))
        chosen = draw(st.permutations(range(1, 4)))[:ways]
        parts = (Way(c, tuple(rest[i * shots : (i + 1) * shots])) for i, c in enumerate(chosen))
        items.append(Item(fold, shots, ways, seed, Episode(index, query, tuple(parts))))
    return items


@settings(max_examples=40)
@given(lists())
def test_what_was_written_is_read(items):
    found = read(items)
    assert found == items
    assert episode_list.encode(found, "set", CLASSES) == episode_list.encode(items, "set", CLASSES)


def test_the_hash_is_that_of_the_rows():
    """Anybody can compute it: one JSON object a row, keys sorted, no spaces, lines joined by line feeds."""
    lines = [
        json.dumps(row, sort_keys=True, separators=(",", ":")) for item in ITEMS for row in episode_list.rows(item)
    ]
    assert len(lines) == 4
    assert lines[3] == (
        '{"class_id":1,"episode":0,"fold":0,"query":"a","seed":7,"shots":1,"supports":["c"],"way":1,"ways":2}'
    )
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert episode_list.sha256(ITEMS) == digest
    assert table().schema.metadata[b"sha256"].decode() == digest
    assert episode_list.sha256(ITEMS[::-1]) != digest
    assert episode_list.sha256(ITEMS[:2]) != digest


def test_a_list_of_other_tools_is_taken_as_it_is():
    """Other integers and columns, no metadata: what matters is there."""
    found = table().replace_schema_metadata(None)
    found = found.set_column(0, "fold", found["fold"].cast(pa.int8())).append_column("note", pa.array(["x"] * 4))
    assert episode_list.decode(parquet(found), DATASET) == ITEMS


@pytest.mark.parametrize(
    ("column", "values"),
    [("query", ["a", "d", "f", "f"]), ("class_id", [2, 3, 3, 1]), ("supports", [["c", "b"], ["a", "e"], ["b"], ["c"]]),
     ("seed", [8, 8, 8, 8])],
)  # fmt: skip
def test_a_changed_list_is_noticed(column, values):
    found = table()
    number = found.schema.get_field_index(column)
    changed = found.set_column(number, found.schema.field(number), pa.array(values, found.schema.field(number).type))
    with pytest.raises(ValueError, match="the episode list was changed after it was written: its hash differs"):
        episode_list.decode(parquet(changed), DATASET)
    with pytest.raises(ValueError, match="changed after it was written"):
        episode_list.decode(parquet(found.slice(0, 2)), DATASET)


def test_a_list_of_another_data_set_is_refused():
    others = (CLASSES[::-1], (*CLASSES, "dog"))
    for names in others:
        other = Dataset(NAMES, names, DATASET.folds, Path, DATASET.read_mask)
        with pytest.raises(ValueError, match="names other classes than this data set has; check dataset= and dataset"):
            read(ITEMS, other)
    fewer = Dataset(NAMES[:4], CLASSES, DATASET.folds, Path, DATASET.read_mask)
    with pytest.raises(
        ValueError,
        match=r"^episode 1 of fold 0, 2-shot, seed 7: the data set has no image e; check dataset\.root and dataset\.l",
    ):
        read(ITEMS, fewer)


IMPOSSIBLE = {
    "query as support": (Item(0, 1, 1, 0, Episode(4, "a", (Way(1, ("a",)),))), "a or a support appears twice"),
    "support of both ways": (
        Item(0, 1, 2, 0, Episode(4, "a", (Way(1, ("b",)), Way(2, ("b",))))),
        "expected a query and classes with images of their own",
    ),
    "one support": (Item(0, 2, 1, 0, Episode(4, "a", (Way(1, ("b",)),))), "expected 1 ways of 2 supports, got other"),
    "one way": (Item(0, 1, 2, 0, Episode(4, "a", (Way(1, ("b",)),))), "expected 2 ways of 1 supports, got other"),
    "class 0": (
        Item(0, 1, 1, 0, Episode(4, "a", (Way(0, ("b",)),))),
        r"expected distinct classes of 1\.\.3, got \[0\]",
    ),
    "class 4": (Item(0, 1, 1, 0, Episode(4, "a", (Way(4, ("b",)),))), r"got \[4\]"),
    "class twice": (Item(0, 1, 2, 0, Episode(4, "a", (Way(2, ("b",)), Way(2, ("c",))))), r"got \[2, 2\]"),
}


def test_a_support_may_come_twice():
    """As HSNet's do."""
    twice = [Item(0, 2, 1, 0, Episode(4, "a", (Way(1, ("b", "b")),)))]
    assert read(twice) == twice


@pytest.mark.parametrize(("item", "told"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_episodes_are_named(item, told):
    with pytest.raises(ValueError, match=rf"^episode 4 of fold 0, {item.shots}-shot, seed 0: .*{told}"):
        read([*ITEMS, item])


@pytest.mark.parametrize(
    "data",
    [b"", b"query,supports\n", parquet(pa.table({"query": ["a"]})),
     parquet(table().replace_schema_metadata(None).drop_columns("supports")),
     parquet(table().replace_schema_metadata(None).set_column(0, "fold", pa.array(list("wxyz"))))],
    ids=["empty", "text", "another table", "without supports", "words for numbers"],
)  # fmt: skip
def test_what_is_no_list_is_refused(data):
    with pytest.raises(ValueError, match=r"expected an episode list as evaluate writes it \(Parquet with fold, shots"):
        episode_list.decode(data, DATASET)


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="expected at least one episode, the list is empty"):
        read([])
