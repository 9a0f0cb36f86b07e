"""Levels chosen on photos of the corpus: kept, resumed, in all that follows, and refused where they cannot be."""

import dataclasses
import json
import shutil

import pytest

from cluster.engine.stage import StageError, read_file
from cluster.features import backbone
from fss import segmenter
from fss.evaluation import levels

CHOOSING = ("backbone=resnet18", "backbone.size=65", "backbone.weights=random", "backbone.levels_by=consistency")


def told(manifest):
    return json.loads(read_file(manifest.folder, manifest.named(backbone.LEVELS)[0]))


@pytest.fixture(scope="module")
def run(configure, start, tmp_path_factory):
    made = start(configure(tmp_path_factory.mktemp("levels"), *CHOOSING))
    made.ensure("levels")
    return made


def test_it_takes_the_most_consistent_levels_and_keeps_what_they_were_chosen_by(run):
    manifest = run.manifest("levels")
    found = told(manifest)
    alone, beside = ({int(level): score for level, score in found[name].items()} for name in ("alone", "beside"))
    low, mid, high = found["levels"]
    assert set(alone) == set(range(levels.FIRST, 9))
    assert alone[high] == max(alone.values())
    assert set(range(2, high)) <= set(beside)
    assert beside[mid] == max(beside[level] for level in range(2, high))
    assert low == mid // 2
    assert manifest.counts == {"images": 36, "levels": 6}


def test_what_is_missing_is_made_again_with_the_same_bytes(run, configure, start, tmp_path):
    shutil.copytree(run.folder, tmp_path / run.config.name)
    again = start(configure(tmp_path, *CHOOSING))
    folder = again.folder / run.manifest("levels").folder.relative_to(run.folder)
    whole = {file.path: file.sha256 for file in run.manifest("levels").files}
    (folder / "manifest.json").unlink()
    (folder / backbone.LEVELS).unlink()
    gone = sorted((folder / "scores").iterdir())[1]
    gone.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (folder / "scores").iterdir()}
    assert {file.path: file.sha256 for file in again.ensure("levels").files} == whole
    assert gone.is_file()
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


def test_what_follows_sees_through_the_chosen_levels(run, configure, start, tmp_path):
    chosen = tuple(told(run.manifest("levels"))["levels"])
    settings = backbone.settings(run.config)
    inputs = {"levels": run.manifest("levels")}
    assert backbone.spec(settings, None, inputs) == dataclasses.replace(
        backbone.spec(settings, None, {}), levels=chosen
    )
    plain = start(configure(tmp_path, *CHOOSING[:-1]))
    assert "levels" in run.order("evaluate")
    assert "levels" not in plain.order("evaluate")
    for stage in ("sample", "label", "train", "evaluate"):
        assert run.identity(stage)[2] != plain.identity(stage)[2]
    assert run.identity("shard")[2] == plain.identity("shard")[2]


@pytest.mark.slow
def test_a_model_of_it_is_whole_without_the_run(run, configure, start, tmp_path):
    """Trained, exported, and loaded where nothing but its folder is."""
    root = tmp_path / "runs"
    shutil.copytree(run.folder, root / run.config.name)
    trained = start(configure(root, *CHOOSING, "model=panet", "train.steps=2", "train.candidates=1"))
    model = trained.ensure("train").folder / "model"
    shutil.move(model, tmp_path / "model")
    shutil.rmtree(root)
    chosen = tuple(told(run.manifest("levels"))["levels"])
    assert tuple(segmenter.read_about(tmp_path / "model")["backbone"]["levels"]) == chosen
    assert segmenter.Segmenter.load(tmp_path / "model").extractor.backbone.levels == chosen


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("backbone=vgg16", "backbone.size=64"), "vgg16 lets no levels be chosen, got consistency"),
        (
            ("backbone=small", "backbone.size=64", "backbone.weights=pretrain"),
            "small lets no levels be chosen, got consistency",
        ),
    ],
)
def test_a_network_without_a_choice_is_refused_before_any_work(configure, tmp_path, overrides, message):
    config = configure(tmp_path, *CHOOSING, *overrides)
    assert any(message in problem for problem in backbone.problems(config))


def test_there_must_be_a_corpus(configure, start, tmp_path):
    """A read-out alone needs none, but the choice looks at photos that are not those of the measurement."""
    given = ("model=prototype", "corpus.root=null")
    config = configure(tmp_path, *CHOOSING, *given)
    with pytest.raises((ValueError, StageError), match=r"corpus\.root"):
        start(config).ensure("evaluate")
