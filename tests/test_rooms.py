"""The rooms of `cluster`: none imports another in a circle, and the engine knows nothing of what it runs."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.places import ROOT

#: What the engine may know: keys, the journal that a run writes, and where its files lie.
BELOW_THE_ENGINE = {"config", "tracking", "storage"}


def room_of(path: Path) -> str:
    """The folder of `cluster` that a file is in, or the module itself."""
    parts = path.relative_to(ROOT / "cluster").with_suffix("").parts
    return parts[0]


def top_level(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported with this one, also for types alone."""
    for node in tree.body:
        for one in node.body if isinstance(node, ast.If | ast.Try) else [node]:
            if isinstance(one, ast.Import):
                yield from (alias.name for alias in one.names)
            elif isinstance(one, ast.ImportFrom):
                yield from (f"{one.module}.{alias.name}" for alias in one.names)


def graph() -> dict[str, set[str]]:
    """Each room with the rooms that it imports."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "cluster").rglob("*.py")):
        names = [name.split(".") for name in top_level(ast.parse(path.read_text()))]
        rooms = {parts[1] for parts in names if parts[0] == "cluster" and len(parts) > 1}
        found.setdefault(room_of(path), set()).update(rooms - {room_of(path)})
    return found


def test_no_circle_of_rooms():
    rooms = graph()
    assert {"engine", "config", "train", "evaluate", "label"} <= set(rooms)
    assert rooms["evaluate"] >= {"engine", "train", "label"}
    order = list(TopologicalSorter(rooms).static_order())
    assert order.index("engine") < order.index("shard") < order.index("planning")


def test_the_engine_knows_no_other_room():
    assert graph()["engine"] <= BELOW_THE_ENGINE


def test_a_circle_would_be_noticed():
    rooms = graph()
    rooms["features"].add("train")
    with pytest.raises(CycleError):
        list(TopologicalSorter(rooms).static_order())
    source = "import os\nif TYPE_CHECKING:\n    from cluster.engine import run\ndef f():\n    import cluster.train\n"
    assert set(top_level(ast.parse(source))) == {"os", "cluster.engine.run"}
