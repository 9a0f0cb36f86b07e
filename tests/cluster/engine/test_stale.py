"""A finished stage of other code: used with a word, made again with what was made of it, or refused."""

import dataclasses
import logging

import pytest

from cluster.config import Config
from cluster.engine import compute, origin, publish
from cluster.engine.run import Run
from cluster.engine.stage import Stage, StageError, write_file


@dataclasses.dataclass(frozen=True)
class Nothing:
    """The settings of both stages."""


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A function (policy) -> Run over two stages, `above` copying what `below` wrote.

    What `below` writes, and the code of each stage, are in the function's `text` and `codes`; `dies` kills `above`.
    """

    def below(work):
        return [write_file(work.folder, "below.txt", make.text.encode())], {"files": 1}

    def above(work):
        read = work.inputs["below"].path("below.txt").read_bytes()
        found = write_file(work.folder, "above.txt", read.upper())
        if make.dies:
            raise RuntimeError("killed")
        return [found], {"files": 1}

    def make(policy="warn"):
        config = Config(name="test", root=str(tmp_path), stale=policy)
        config.tracking.enabled = False
        return Run(config, made)

    below.__module__, above.__module__ = "code.below", "code.above"
    made = {
        "below": Stage("below", lambda config: (), lambda config: Nothing(), below),
        "above": Stage("above", lambda config: ("below",), lambda config: Nothing(), above),
    }
    make.text, make.codes, make.dies = "first", {"code.below": "b1", "code.above": "a1"}, False
    monkeypatch.setattr(origin, "code", lambda module: make.codes[module])
    make().ensure("above")
    return make


def text(run):
    return run.manifest("above").path(".txt").read_text()


def test_a_manifest_says_what_made_it_and_of_what(engine):
    run = engine()
    above, below = run.ensure("above"), run.manifest("below")
    assert above.made_by == origin.origin("code.above")
    assert above.made_of == {"below": below.content}
    assert run.fresh == []


def test_equal_code_is_no_news(engine, caplog):
    for policy in ("warn", "remake", "error"):
        run = engine(policy)
        run.ensure("above")
        assert run.fresh == []
    assert "code" not in caplog.text


def test_other_code_is_told_in_one_line(engine, caplog):
    engine.codes["code.below"] = "b2"
    run = engine()
    with caplog.at_level(logging.WARNING):
        run.ensure("above")
    assert run.fresh == []
    (line,) = [one for one in caplog.messages if "code" in one]
    assert line.startswith("below: ")
    assert line.endswith("was made by other code (b1, now b2), and is used as it is; set stale=remake to make it again")


def test_other_code_is_refused(engine):
    engine.codes["code.above"] = "a2"
    with pytest.raises(StageError, match=r"^above: .* was made by other code \(a1, now a2\); set stale=remake to"):
        engine("error").ensure("above")


def test_remade_with_all_that_was_made_of_it(engine):
    engine.codes["code.below"], engine.text = "b2", "second"
    run = engine("remake")
    run.ensure("above")
    assert run.fresh == ["below", "above"]
    assert text(run) == "SECOND"
    assert run.manifest("above").made_by["code"] == "a1"
    assert (again := engine("error")).ensure("above") == run.manifest("above")
    assert again.fresh == []


def test_remade_alone_if_the_bytes_are_the_same(engine):
    engine.codes["code.below"] = "b2"
    run = engine("remake")
    run.ensure("above")
    assert run.fresh == ["below"]


def test_what_was_made_of_other_files_is_told(engine, caplog):
    """Remade below, then killed: the next run finds the stage above as it was, made of what is gone."""
    engine.codes["code.below"], engine.text = "b2", "second"
    engine("remake").ensure("below")
    engine("warn").ensure("above")
    assert "above: " in caplog.text
    assert "was made of other files of below than there are now, and is used" in caplog.text


@pytest.mark.parametrize("policy", ["warn", "remake", "error"])
def test_begun_by_other_code(engine, caplog, policy):
    run = engine()
    run.ensure("above")
    folder = run.manifest("above").folder
    (folder / "manifest.json").unlink()
    publish.write_sealed(folder / ".units/one.json", {"files": [], "counts": {}})
    engine.codes["code.above"] = "a2"
    if policy == "error":
        with pytest.raises(StageError, match=r"^above: .* was begun by other code \(a1, now a2\)"):
            engine(policy).ensure("above")
        return
    run = engine(policy)
    made_by = run.ensure("above").made_by
    assert "was begun by other code (a1, now a2)" in caplog.text or policy == "remake"
    assert (folder / ".units").exists() == (policy == "warn")
    assert made_by["code"] == "a2"
    assert made_by.get("begun by code") == ("a1" if policy == "warn" else None)
    assert engine().doubt("above", run.manifest("above")) == ("by other code (a1, now a2)" if policy == "warn" else "")


def test_a_repair_that_differs_says_what_was_another(engine, monkeypatch):
    run = engine()
    run.ensure("above")
    run.manifest("below").path(".txt").unlink()
    engine.text = "other"
    with pytest.raises(StageError, match="kind of processor are those of before: look at the disk, the memory and"):
        engine().ensure("below")
    arm = {**compute.here(), "processor": "arm64 DEFAULT"}
    monkeypatch.setattr(compute, "here", lambda: arm)
    with pytest.raises(
        StageError, match=r"came out different: .*; it was made by another processor \(x86_64 .*, now arm"
    ):
        engine().ensure("below")
    engine.text = "first"
    assert engine().ensure("below").made_by["processor"] == "arm64 DEFAULT"
