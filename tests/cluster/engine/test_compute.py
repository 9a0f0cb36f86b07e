"""Compute classes: a stage is made on machines of one, and bytes that differ are put down to them before the disk."""

import dataclasses
import json
import logging

import pytest

from cluster.config import Config
from cluster.engine import compute, origin
from cluster.engine.compute import Makers
from cluster.engine.run import Run
from cluster.engine.stage import Output, Stage, StageError, Unit
from tests.cluster.here import Here
from tests.cluster.killed import python

OLD, NEW = ({"torch": "2.14.1", "processor": f"x86_64 {name}"} for name in ("AVX2", "AVX512"))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "label/0123456789ab"


def test_a_class_is_what_shapes_last_bits():
    found = compute.here()
    assert {"python", "torch", "torchvision", "numpy", "pillow", "processor"} <= {*found}
    assert all(found.values())
    assert not {"code", "commit"} & {*found}
    assert origin.origin("cluster.shard.stage").items() >= found.items()


def test_a_class_is_noted_once_and_whole(folder):
    for one in (OLD, NEW, OLD):
        compute.note(folder, one)
    assert sorted(compute.noted(folder), key=str) == [OLD, NEW]
    (folder / ".made_on" / f"class-{compute.digest(NEW)}.json").write_text("{}")
    assert compute.noted(folder) == (OLD,)
    compute.forget(folder, OLD)
    assert compute.noted(folder) == ()


def test_most_workers_settle_the_class_and_a_line_says_so(folder, caplog):
    makers = Makers(folder)
    with caplog.at_level(logging.WARNING):
        makers.choose([OLD, NEW, NEW])
        makers.choose([OLD])
    assert (makers.admits(OLD), makers.admits(NEW)) == (False, True)
    assert compute.noted(folder) == (NEW,)
    (line,) = caplog.messages
    assert line == (
        "cluster: machines of 2 compute classes, whose last bits may differ; label is made on processor x86_64 AVX512, "
        "not on processor x86_64 AVX2; set cluster.mixed=true to use all"
    )


def test_machines_that_are_alike_are_no_news(folder, caplog):
    with caplog.at_level(logging.WARNING):
        Makers(folder).choose([OLD, OLD])
        Makers(folder, mixed=True).choose([OLD])
    assert caplog.messages == []


def test_what_was_begun_goes_on_on_its_class(folder):
    compute.note(folder, OLD)
    makers = Makers(folder)
    makers.choose([NEW, NEW, OLD])
    assert (makers.admits(OLD), makers.admits(NEW)) == (True, False)


def test_machines_may_be_mixed(folder, caplog):
    makers = Makers(folder, mixed=True)
    with caplog.at_level(logging.WARNING):
        makers.choose([OLD, NEW])
    assert (makers.admits(OLD), makers.admits(NEW)) == (True, True)
    assert "label is made on processor x86_64 AVX2 and processor x86_64 AVX512" in caplog.text
    assert "cluster.mixed" not in caplog.text
    assert {*map(compute.digest, compute.noted(folder))} == {compute.digest(OLD), compute.digest(NEW)}


def test_nothing_is_made_on_another_class_but_to_be_compared(folder):
    compute.note(folder, OLD)
    with pytest.raises(ValueError, match=r"^label: expected .* began it \(processor x86_64 AVX2\), got .*AVX512\)"):
        Makers(folder).give_in([NEW])
    makers = Makers(folder, repair=True)
    makers.give_in([NEW])
    assert makers.admits(NEW)


@dataclasses.dataclass(frozen=True)
class Nothing:
    """The settings of the stage."""


@dataclasses.dataclass(frozen=True)
class Rounds:
    """Makes of a unit what its machine makes of it."""

    alike: bool

    def __call__(self, unit: Unit) -> Output:
        text = "all" if self.alike else compute.here()["processor"]
        return Output({f"{unit.name}.txt": text.encode()})


@pytest.fixture
def on(tmp_path, monkeypatch):
    """A function (compute class, alike) -> manifest: the stage on such a machine; its bytes are those of all if alike.

    The driver stays where it is.
    """
    driver = compute.here()
    monkeypatch.setattr(origin, "origin", lambda module: {"code": "c", **driver})

    def make(one, alike=False):
        monkeypatch.setattr(compute, "here", lambda: one)
        work = lambda work: work.map("parts", Rounds(alike), [Unit("a", None), Unit("b", None)])  # noqa: E731
        run = Run(config, {"label": Stage("label", lambda config: (), lambda config: Nothing(), work)})
        run.__dict__ |= {"pool": Here(), "_connected": True}
        return run.ensure("label")

    config = Config(name="test", root=str(tmp_path))
    config.tracking.enabled = False
    return make


def test_a_manifest_says_on_what_it_was_made(on):
    assert on(OLD).made_on == (OLD,)


def test_another_processor_is_named_and_no_disk(on):
    path = on(OLD).folder / "a.txt"
    path.unlink()
    with pytest.raises(StageError, match="came out different") as caught:
        on(NEW)
    assert (
        "it was made on a machine of one compute class and again on another: processor (x86_64 AVX2, now x86_64 "
        "AVX512)" in str(caught.value)
    )
    assert "disk" not in str(caught.value)
    assert not path.exists()  # nor is what the other made
    assert on(OLD).made_on == (OLD,)
    assert path.read_text() == OLD["processor"]


def test_a_repair_on_another_processor_that_makes_the_same_is_as_good(on):
    (on(OLD, alike=True).folder / "a.txt").unlink()
    assert {*map(compute.digest, on(NEW, alike=True).made_on)} == {compute.digest(OLD), compute.digest(NEW)}


@pytest.mark.slow
def test_a_cluster_with_two_instruction_sets(tmp_path):
    done = python("-m", "tests.cluster.unlike", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    new, old = told["new"], told["old"]
    assert new != old
    assert told["first"] == [new]
    assert told["begun on old"] == [old]
    assert told["mixed"] == sorted([new, old])
    assert "expected a machine of the compute class that began it" in told["none is there"]
