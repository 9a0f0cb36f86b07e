"""Candidates on disk: whole or left out, made again if they are lost; and which of them is exported."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cluster.engine.work import Log
from cluster.stages import STAGES
from cluster.tracking.journal import read_events
from cluster.train import candidates, stage
from cluster.train.candidates import Candidate
from cluster.train.recipe import select
from fss import segmenter
from fss.segmenter.presence import Presence
from tests.cluster.train.recipes import varied
from tests.cluster.train.troubled import kept, metrics


def put(folder, *steps):
    for step in steps:
        candidates.write(folder, step, b"weights %d" % step, {"holdout_iou": step / 1000})


def test_what_was_written_is_read_in_the_order_of_steps(tmp_path):
    assert candidates.read(tmp_path) == []
    put(tmp_path, 300, 20, 100)
    candidates.write(tmp_path, 20, b"again", {"holdout_iou": float("nan")})
    found = candidates.read(tmp_path)
    assert [one.step for one in found] == [20, 100, 300]
    assert [one.path.read_bytes() for one in found] == [b"again", b"weights 100", b"weights 300"]
    assert found[2].figures == {"holdout_iou": 0.3}
    assert found[0].figures["holdout_iou"] != found[0].figures["holdout_iou"]
    folder = tmp_path / "candidates" / "step-00000300"
    assert sorted(path.name for path in folder.iterdir()) == ["figures.json", "model.safetensors"]
    assert json.loads((folder / "figures.json").read_text())["step"] == 300


def _replace(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


DAMAGES = {
    "flip": lambda folder: (folder / "model.safetensors").write_bytes(b"weights_200"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no figures": lambda folder: (folder / "figures.json").unlink(),
    "another figure": lambda folder: _replace(folder / "figures.json", "0.2", "0.9"),
    "another step": lambda folder: _replace(folder / "figures.json", "200", "400"),
    "empty figures": lambda folder: (folder / "figures.json").write_bytes(b""),
    "cut figures": lambda folder: (folder / "figures.json").write_text('{"step": 2'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_candidate_is_left_out_and_made_again(tmp_path, damage, caplog):
    put(tmp_path, 100, 200, 300)
    for step in (100, 150, 200, 250):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    candidates.make_good(tmp_path, [100, 200, 300, 400])  # 400 is still to come
    assert len(list((tmp_path / "checkpoints").iterdir())) == 4
    assert not caplog.records
    DAMAGES[damage](tmp_path / "candidates" / "step-00000200")
    assert [one.step for one in candidates.read(tmp_path)] == [100, 300]
    candidates.make_good(tmp_path, [100, 200, 300, 400])
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000100", "step-00000150"]
    assert "the candidate of step 200 is lost" in caplog.text


# The selection


NAN = float("nan")


@pytest.mark.parametrize(
    ("by", "values", "expected"),
    [
        ("holdout", [0.2, 0.6, 0.5], (20, "holdout")),
        ("holdout", [0.2, 0.6, 0.6], (20, "holdout")),  # the earlier of equals
        ("holdout", [0.3, 0.2, 0.1], (10, "holdout")),
        ("holdout", [NAN, 0.2, float("inf")], (20, "holdout")),
        ("holdout", [0.0, NAN, None], (10, "holdout")),
        ("holdout", [NAN, NAN, NAN], (30, "last")),
        ("holdout", [None, None, None], (30, "last")),  # nothing was held out
        ("last", [0.9, 0.6, 0.5], (30, "last")),
    ],
)
def test_the_best_on_held_out_tasks_is_selected(by, values, expected):
    figures = [{} if value is None else {"holdout_iou": value} for value in values]
    found = [Candidate(step, Path(), one) for step, one in zip((10, 20, 30), figures, strict=True)]
    chosen, how = select(found[::-1], by)
    assert (chosen.step, how) == expected


def test_the_selected_candidate_is_what_the_stage_exports_lists_and_tells(tiny_run):
    manifest = tiny_run.manifest("train")
    found = candidates.read(manifest.folder)
    assert [one.step for one in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {file.path for file in manifest.files} >= set(kept(manifest.folder))
    measured = metrics(tiny_run.tracking_folder, stage.job(tiny_run.work("train")), "train/holdout_iou")
    assert 0 <= measured.pop(0) <= 1  # before the first step
    assert measured == {one.step: one.figures["holdout_iou"] for one in found}
    best = max(found, key=lambda one: one.figures["holdout_iou"])  # the first of equals
    selection = {"by": "holdout", "step": best.step, "holdout_iou": best.figures["holdout_iou"]}
    facts, corpus = segmenter.read_about(manifest.folder / "model")["facts"], tiny_run.manifest("shard")
    assert facts["selection"] == selection
    assert facts["corpus"] == {"fingerprint": corpus.fingerprint, "images": corpus.counts["accepted"]}
    assert facts["backbone_weights"] == manifest.settings["backbone"]["weights"]
    assert {f"model/{name}" for name in segmenter.FILES} <= {file.path for file in manifest.files}
    assert manifest.path("model/model.safetensors").read_bytes() == best.path.read_bytes()
    events, _ = read_events(tiny_run.tracking_folder / f"{tiny_run.journal_name('train')}.jsonl")
    told = {key: value for e in events if e["kind"] in ("metrics", "tags") for key, value in e["values"].items()}
    assert [told[key] for key in ("selected_by", "train/selected_step", "train/selected_holdout_iou")] == [
        *selection.values()
    ]


@pytest.mark.parametrize("case", ["best in the middle", "last", "nothing held out"])
def test_the_export_follows_the_figures_on_disk(tiny_run, tmp_path, caplog, case):
    job = stage.job(tiny_run.work("train", tmp_path))
    weights = {one.step: one.path.read_bytes() for one in candidates.read(tiny_run.manifest("train").folder)}
    assert len(set(weights.values())) == 8
    for step, data in weights.items():
        candidates.write(
            tmp_path, step, data, {} if case == "nothing held out" else {"holdout_iou": 0.5 - abs(step - 3) / 10}
        )
    asked = "last" if case == "last" else "holdout"
    recipe = varied(job.recipe, select=asked)
    recipe.export(recipe.module(torch.device("cpu")), tmp_path)
    step, how, value = {
        "best in the middle": (3, "holdout", 0.5), "last": (8, "last", 0.0), "nothing held out": (8, "last", None)
    }[case]  # fmt: skip
    assert (tmp_path / "model/model.safetensors").read_bytes() == weights[step]
    about = segmenter.read_about(tmp_path / "model")
    assert about["facts"]["selection"] == {"by": how, "step": step, "holdout_iou": value}
    loaded = segmenter.Segmenter.load(tmp_path / "model", "cpu", candidates.read(tmp_path)[0].path)
    assert segmenter.weights_bytes(loaded.head) == weights[1]
    work = tiny_run.work("train", tmp_path)
    settings = dataclasses.replace(work.settings, select=asked)
    stage._tell(dataclasses.replace(work, settings=settings, log=Log(tmp_path, "train", "pipeline")), ())
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warned) == (case == "nothing held out")
    assert all("train.select=holdout: no task was held out, so step 8, the last one" in text for text in warned)


def test_held_out_tasks_tell_what_an_absent_thing_looks_like(tiny_run, tmp_path, monkeypatch):
    """Also where the backbone is tuned and batches hold pixels: the same likenesses, but for float16."""
    seen, recipe = [], stage.job(tiny_run.work("train", tmp_path)).recipe
    monkeypatch.setattr(Presence, "fit", lambda *given: seen.append(given) or Presence(0.3, 10.0))
    head, extractor = recipe.module(torch.device("cpu")).head, recipe.bank.extractor
    for tune in ((), ("high",)):
        assert varied(recipe, tune=tune)._presence(head, extractor) == Presence(0.3, 10.0)
    (frozen, there), (tuned, _) = seen
    assert len(there) > there.sum() == sum(recipe.holdout.counts)
    np.testing.assert_allclose(frozen, tuned, atol=0.01)
    assert dataclasses.replace(recipe, holdout=None)._presence(head, extractor) is None


@pytest.mark.parametrize(("steps", "most", "expected"), [(300, 8, [38, 76, 114, 152, 190, 228, 266, 300]),
                                                        (8, 4, [2, 4, 6, 8]), (3, 8, [1, 2, 3]), (7, 1, [7]),
                                                        (10, 4, [3, 6, 9, 10]), (10, 6, [2, 4, 6, 8, 10])])  # fmt: skip
def test_there_are_at_most_so_many_candidates_and_the_last_step_is_one(tiny_run, configure, steps, most, expected):
    config = configure(tiny_run.config.root, f"train.steps={steps}", f"train.candidates={most}")
    run = type(tiny_run)(config, STAGES)
    run._manifests = tiny_run._manifests
    assert stage.job(run.work("train", Path("x"))).validations() == expected


def test_wrong_settings_of_the_selection_are_refused(configure, tmp_path):
    with pytest.raises(ValueError, match=r"train\.select: expected one of holdout, last, got 'test'"):
        configure(tmp_path, "train.select=test")
    with pytest.raises(ValueError, match=r"train\.candidates: expected at least 1, got 0"):
        configure(tmp_path, "train.candidates=0")
