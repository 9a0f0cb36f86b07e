"""Trained models beside their floors, and what cannot be evaluated."""

import io
import json
import shutil
from collections import defaultdict

import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster.engine.stage import read_file
from cluster.evaluate import stage
from cluster.evaluate.measure import Picture
from cluster.train import candidates
from jobs.evaluate import copy_results
from tests.cluster.evaluate.results import MANY, MODEL, ROWS, by_hand, figures, rows


def test_an_exported_model_beside_its_floors(tiny_run, configure, start):
    """model=FOLDER and the run that trained it give the same figures; floors and model see the same episodes."""
    options = ("shots=1", "episodes=8", "dataset.min_area=100")
    folder = tiny_run.manifest("train").folder / "model"
    exported = start(configure(tiny_run.config.root, f"model={folder}", *options)).ensure("evaluate")
    own = start(configure(tiny_run.config.root, *options)).ensure("evaluate")
    by_model = [list(figures(manifest)["models"].values()) for manifest in (exported, own)]
    assert by_model[0] == by_model[1]
    names = list(figures(own)["models"])
    assert names == [MODEL, "smoothed read-out", "umtfss, meta-trained"]
    assert figures(own)["selection"] == figures(exported)["selection"]
    assert figures(own)["selection"]["by"] == "holdout"
    assert list(dict.fromkeys(row["model"] for row in rows(own))) == names
    pictures = [f for f in own.files if f.path.startswith("gallery/")]
    assert [f.path for f in pictures] == [f"gallery/fold0-{kind}.png" for kind in ("worst", "median", "best")]
    assert Image.open(io.BytesIO(read_file(own.folder, pictures[0]))).size[0] > 96


def test_anchors_are_measured_as_the_model_and_beside_it(configure, start, root):
    """On the same episodes, whoever asks for them: a row of each, and the same one."""
    options = ("baselines=[prototype,anchors]", "shots=1", "episodes=8", "dataset.min_area=100")
    insid3, foris = (
        figures(start(configure(root, f"model={name}", *options)).ensure("evaluate"))["models"]
        for name in ("insid3", "foris")
    )
    assert list(insid3) == [MODEL, "FoRIS", "INSID3"]
    assert list(foris) == [MODEL, "INSID3", "FoRIS"]
    assert insid3 == foris
    assert len({str(found) for found in insid3.values()}) == 3


def test_selection_on_the_tested_classes_says_so(tiny_run, configure, start, monkeypatch):
    """For each fold and number of shots the candidate that does best there, as its own rows tell, whose pictures are
    shown.
    """
    drawn = []
    monkeypatch.setattr(stage, "Picture", lambda *fields: drawn.append(Picture(*fields)) or drawn[-1])
    options = ("select=test_classes", "fold=all", "shots=[1,2]", "episodes=5", "dataset.min_area=100")
    run = start(configure(tiny_run.config.root, *options))
    manifest = run.ensure("evaluate")
    assert run.fresh == ["evaluate"]
    label = "umtfss, meta-trained (selected on test classes)"
    assert list(figures(manifest)["models"]) == [MODEL, "smoothed read-out", label]
    lists = defaultdict(list)
    for path in sorted(manifest.folder.glob("rows/*.parquet")):
        for row in pq.read_table(path).to_pylist():
            lists[row["model"], row["fold"], row["shots"]].append(row)
    steps = {}
    for fold in range(4):
        for shots in (1, 2):
            miou = {s: by_hand(lists[f"umtfss, meta-trained, step {s}", fold, shots])["miou"] for s in range(1, 9)}
            steps[f"fold {fold}, {shots}-shot"] = max(miou, key=miou.get)
            told = figures(manifest)["models"][label][str(shots)]["folds"][str(fold)]["miou"]
            assert told == pytest.approx(max(miou.values()))
    assert figures(manifest)["selection"] == {"by": "test_classes", "steps": steps}
    assert len(set(steps.values())) > 1
    shown = {picture.name: candidates.step_of(picture.entry.weights) for picture in drawn}
    assert shown == {f"fold{f}-{k}": steps[f"fold {f}, 1-shot"] for f in range(4) for k in ("worst", "median", "best")}


def test_selection_without_candidates_is_refused(tiny_run, configure, start, tmp_path):
    shutil.copytree(tiny_run.manifest("train").folder / "model", tmp_path / "model")
    with pytest.raises(ValueError, match=r"select=test_classes: expected candidates of training beside .* found 0; "):
        start(configure(tmp_path, f"model={tmp_path}/model", "select=test_classes")).ensure("evaluate")
    with pytest.raises(ValueError, match=r"select=test_classes: expected a trained model, prototype has no candidates"):
        start(configure(tmp_path, "model=prototype", "select=test_classes")).ensure("evaluate")
    with pytest.raises(ValueError, match=r"select=base_classes: expected several folds, .* set fold=all"):
        start(configure(tiny_run.config.root, "select=base_classes")).ensure("evaluate")


# What cannot work


def test_a_fold_without_any_class_is_refused(configure, start, tmp_path):
    run = start(configure(tmp_path, "model=prototype", "dataset.min_area=9000", "shots=3"))
    with pytest.raises(
        ValueError,
        match=r"fold 0: expected at least 1 classes with 4 images of 9000 pixels or more, found 0; lower shots=, ways=",
    ):
        run.ensure("evaluate")


def test_a_fold_that_is_not_there_is_refused(configure, start, tmp_path):
    with pytest.raises(ValueError, match=r"fold: scenes has the folds 0\.\.3, got 4"):
        start(configure(tmp_path, "model=prototype", "fold=4")).ensure("evaluate")
    assert not list(tmp_path.rglob("index/*"))  # before the images are looked at


def test_labels_of_another_data_set_are_refused(configure, start, photos, tmp_path):
    """PASCAL's layout without its lists: both mistakes are named."""
    run = start(configure(tmp_path, "model=prototype", "dataset=pascal5i"))
    with pytest.raises(ValueError, match=r"expected a list file of image names at .*val\.txt; check dataset\.list"):
        run.ensure("evaluate")
    with pytest.raises(ValueError, match=r"give it as dataset\.root=FOLDER"):
        start(configure(tmp_path, "model=prototype", "dataset=pascal5i", "dataset.root=null")).ensure("evaluate")
    with pytest.raises(ValueError, match=r"expected an exported model .* the train stage writes one"):
        start(configure(tmp_path, f"model={photos}")).ensure("evaluate")


def test_every_setting_of_the_episodes_moves_the_folder(configure, start, tmp_path):
    """And none of the machines does."""
    base = start(configure(tmp_path, *MANY)).identity("evaluate")[2]
    changes = ("fold=1", "shots=1", "ways=2", "seeds=[0,2]", "episodes=7", "protocol=hsnet", "protocol.resolution=99")
    changes += ("dataset.min_area=9", "baselines=[]", "save_predictions=true", "backbone.size=64")
    found = [start(configure(tmp_path, *MANY, change)).identity("evaluate")[2] for change in changes]
    assert len({base, *found}) == len(changes) + 1
    machines = ("cluster.workers=7", "cluster.memory_gib=1", "cluster.features_gib=0", "cluster.features=x")
    assert start(configure(tmp_path, *MANY, *machines)).identity("evaluate")[2] == base


def test_results_are_copied_where_the_user_wants_them(measured, tmp_path):
    copy_results(measured, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == figures(measured)
    assert len(list((tmp_path / "out").glob("predictions/**/*.png"))) == ROWS
    assert pq.read_table(tmp_path / "out" / "episodes.parquet").num_rows == ROWS
