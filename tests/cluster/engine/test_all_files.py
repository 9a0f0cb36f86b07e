"""Damage does not spread: whatever is flipped, cut or emptied of the files that a run leaves, no other changes."""

import dataclasses
import re
import shutil

import pytest

from cluster.evaluate import measured
from tests.cluster.here import here

#: Model that is measured without training; one of the stages reads each kind of file.
MEASURED = ("model=prototype", "cluster.features_gib=1", "episodes=4", "shots=1", "source.restarts=2")
#: What tells of this run, not of its work: times and the order of events.
TOLD = re.compile(r"(\.lock|timing\.json|\.mlflow\.json|\.jsonl)$")


def command(config, root):
    with here(dataclasses.replace(config, root=str(root))) as run:
        for stage in ("pair", "evaluate"):
            run.ensure(stage)


def interrupt(root, early):
    """As a kill leaves it: all stages but the first are unfinished, and `early` the last ones have no unit done."""
    for manifest in root.glob("*/*/*/manifest.json"):
        stage = manifest.parents[1].name
        if stage != "shard":
            manifest.unlink()
        if early and stage in ("pair", "evaluate"):
            shutil.rmtree(manifest.parent / ".units")


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def kind(name):
    return re.sub(r"[0-9a-f]{6,}|\d+", "#", name)


def hurt(data, how):
    if how == "cut":
        return data[: len(data) // 2]
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return b"" if how == "emptied" else bytes(changed)


@pytest.fixture(scope="module")
def config(configure, tmp_path_factory):
    """Put together once, for hundreds of commands."""
    return configure(tmp_path_factory.mktemp("none"), *MEASURED)


@pytest.fixture(scope="module", autouse=True)
def _no_bars_are_drawn():
    """The bars of the classes take longer to draw than all the rest of a command; their file is there all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "bars", lambda figures, *_: repr(figures).encode())
        yield


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    command(config, root)
    return root


def test_every_kind_of_file_is_there(undisturbed):
    kinds = {kind(name).rpartition("/")[2] for name in contents(undisturbed)}
    assert {"manifest.json", "state", "#.features", "part-#.json", "corpus-#.tar", "metrics.json"} <= kinds


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("how", "early"), [("flipped", True), ("cut", False), ("emptied", False)])
def test_damage_does_not_spread(undisturbed, config, tmp_path, how, early):
    wanted = contents(undisturbed)
    spread = {}
    for one in sorted({kind(name) for name in wanted}):
        root = tmp_path / "run"
        shutil.copytree(undisturbed, root)
        interrupt(root, early)
        damaged = {}
        for name, data in contents(root).items():
            if kind(name) == one and data:
                damaged[name] = hurt(data, how)
                (root / name).write_bytes(damaged[name])
        try:
            command(config, root)
        except ValueError as error:  # says which file it is
            if not any(name.rpartition("/")[2] in str(error) for name in damaged):
                spread[one] = f"{type(error).__name__}: {error}"
        else:
            left = contents(root)
            other = [n for n in wanted if not TOLD.search(n) and left.get(n) not in (wanted[n], damaged.get(n))]
            spread |= {one: other} if other else {}
        shutil.rmtree(root)
    assert spread == {}
