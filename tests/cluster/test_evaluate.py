"""Evaluation: integer counts that do not depend on the workers, and figures that the saved masks bear out."""

import io
import json
import os
import pickle
import shutil
import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cluster.evaluation import units
from cluster.evaluation.measure import Picture, RunBlock
from cluster.session import ROOT
from cluster.stage import read_file
from cluster.stages import evaluate
from cluster.training import candidates
from fss import shards
from fss.scenes.scene import CLASSES
from jobs.evaluate import copy_results

_MANY = ("model=prototype", "baselines=smoothed", "fold=all", "shots=[1,2]", "seeds=[0,1]", "episodes=6")
_OPTIONS = (*_MANY, "save_predictions=true", "dataset.min_area=100")
_ROWS = 2 * 4 * 2 * 2 * 6  # models, folds, shots, seeds, episodes
_LIST = ("fold", "shots", "ways", "seed", "episode", "way")
_MODEL = "prototype read-out"
_BLOCK = 10


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Several blocks, so that there is something to divide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "_BLOCK", _BLOCK)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Evaluations below it share their features."""
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def measured(configure, start, root):
    """Two read-outs on four folds, two numbers of shots and two lists, by 2 workers."""
    return start(configure(root, *_OPTIONS), workers=2).ensure("evaluate")


@pytest.fixture(scope="module")
def two_way(configure, start, root):
    """One read-out asked for two classes at once."""
    options = ("model=prototype", "fold=1", "shots=1", "ways=2", "episodes=20", "save_predictions=true")
    return start(configure(root, *options), workers=2).ensure("evaluate")


def figures(manifest):
    return json.loads(manifest.path("metrics.json").read_text())


def rows(manifest):
    return pq.read_table(manifest.path("episodes.parquet")).to_pylist()


def mask_of(photos, name):
    return np.asarray(Image.open(photos / "SegmentationClass" / f"{name}.png"))


def prediction(manifest, row):
    name = "prototype-read-out" if row["model"] == _MODEL else "smoothed-read-out"
    folder = f"{name}/fold{row['fold']}-{row['shots']}shot-seed{row['seed']}"
    return np.asarray(Image.open(manifest.folder / "predictions" / folder / f"{row['episode']:06d}.png"))


def evaluation_images(photos):
    return (photos / "ImageSets" / "val.txt").read_text().split()


def showing(photos, class_id, min_area=100):
    """The evaluation images that show the class on at least `min_area` pixels, from the masks."""
    return [n for n in evaluation_images(photos) if (mask_of(photos, n) == class_id).sum() >= min_area]


def feature_files(folder):
    """Stored features by the hash of their image, with the time of writing."""
    return {path.stem: path.stat().st_mtime_ns for path in Path(folder).rglob("*.safetensors")}


def named_by(listed):
    """The images that occur in rows."""
    return {name for row in listed for name in (row["query"], *row["supports"])}


# The same result whoever computed it


def assert_same(found, expected):
    assert {f.path: f.sha256 for f in found.files} == {f.path: f.sha256 for f in expected.files}
    assert (found.folder / "manifest.json").read_bytes() == (expected.folder / "manifest.json").read_bytes()


def test_one_and_two_workers_agree_to_the_last_integer(measured, configure, start, tmp_path):
    assert len(list(measured.folder.glob("rows/*.parquet"))) > 4
    assert_same(start(configure(tmp_path, *_OPTIONS), workers=1).ensure("evaluate"), measured)
    assert len(rows(measured)) == _ROWS


def test_without_stored_features_the_integers_are_the_same(measured, configure, start, tmp_path):
    run = start(configure(tmp_path, *_OPTIONS, "cluster.features_gib=0"))
    assert_same(run.ensure("evaluate"), measured)
    assert not feature_files(tmp_path)


_KILLED = f"""
import os, pickle, sys
from pathlib import Path
from cluster.evaluation.measure import RunBlock
from cluster.run import Run
from cluster.evaluation import units
from cluster.stages import STAGES
units._BLOCK = {_BLOCK}
class Here:  # the units in this process, one after the other
    def map(self, publisher, units):
        for index, unit in enumerate(units):
            if isinstance(publisher.function, RunBlock) and index == 2:
                os.kill(os.getpid(), 9)
            yield index, publisher(unit)
run = Run(pickle.loads(Path(sys.argv[1]).read_bytes()), STAGES)
run.__dict__["pool"] = Here()
run.ensure("evaluate")
"""


class Dies(RunBlock):
    """A worker that is killed with a block in its hands, once."""

    def __call__(self, unit):
        output = super().__call__(unit)
        marker = Path(self.cache.folder) / "killed"
        if unit.name == "block-0000004" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return output


def test_killed_and_resumed_is_as_if_nothing_had_happened(measured, configure, start, tmp_path, monkeypatch):
    """First the driver is killed after two blocks; then a worker of the run that goes on."""
    config = configure(tmp_path / "runs", *_OPTIONS)
    (tmp_path / "config").write_bytes(pickle.dumps(config))
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "config")]
    done = subprocess.run(command, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL
    run = start(config)
    folder = run.folder / "evaluate" / run.identity("evaluate")[2]
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("rows/*.parquet")}
    assert sorted(path.stem for path in kept) == ["block-0000000", "block-0000001"]
    assert not (folder / "manifest.json").exists()
    monkeypatch.setattr(evaluate, "RunBlock", Dies)
    assert_same(run.ensure("evaluate"), measured)
    assert (tmp_path / "runs/features/killed").exists()
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # not done again


def test_lost_files_are_made_again(measured, configure, start, root):
    before = {file.path: file.sha256 for file in measured.files}
    lost = [measured.folder / name for name in ("rows/block-0000001.parquet", "episodes.parquet")]
    lost += sorted(measured.folder.glob("predictions/**/000003.png"))[:1]
    for path in lost:
        path.unlink()
    run = start(configure(root, *_OPTIONS))
    assert {file.path: file.sha256 for file in run.ensure("evaluate").files} == before
    assert run.fresh == ["evaluate"]
    assert all(path.is_file() for path in lost)


def test_features_are_computed_once(measured, configure, start, photos, root, tmp_path):
    """Later evaluations find what earlier ones stored, wherever they run; only images that did not occur are added."""
    before = feature_files(root)
    other = ("model=smoothed", "fold=2", "shots=3", "seeds=[7,8]", "episodes=30", "dataset.min_area=50")
    found = start(configure(tmp_path, *other, f"cluster.features={root}/features")).ensure("evaluate")
    after = feature_files(root)
    assert before.items() <= after.items()  # the times are those of before
    occurring = named_by(rows(measured)) | named_by(rows(found))
    images = {shards.sha256((photos / "JPEGImages" / f"{n}.jpg").read_bytes()) for n in evaluation_images(photos)}
    assert set(after) <= images
    hashes = {shards.sha256((photos / "JPEGImages" / f"{name}.jpg").read_bytes()) for name in occurring}
    assert set(after) >= hashes
    assert len(hashes) > 15
    assert not feature_files(tmp_path)


# Counts and figures


def test_counts_are_those_of_the_saved_masks(measured, photos):
    for row in rows(measured):
        yes, mask = prediction(measured, row), mask_of(photos, row["query"])
        thing, void = mask == row["class_id"], mask == 255
        assert yes.shape == thing.shape
        assert set(np.unique(yes)) <= {0, 1}
        predicted = (yes == 1) & ~void
        assert row["intersection"] == (predicted & thing).sum()
        assert row["union"] == (predicted | thing).sum()
        assert (row["predicted"], row["true"]) == (predicted.sum(), thing.sum())
        assert row["background_union"] == (~void).sum() - row["intersection"]
        assert row["background_intersection"] == (~void).sum() - row["union"]


def test_rows_are_in_order(measured, two_way):
    for manifest, names in ((measured, ["smoothed read-out", _MODEL]), (two_way, [_MODEL])):
        found = [(names.index(row["model"]), *(row[key] for key in _LIST)) for row in rows(manifest)]
        assert found == sorted(set(found))


def test_counts_of_two_ways(two_way, photos):
    """Each way in a row of its own; what is neither way is background, which stands with the first."""
    found = defaultdict(list)
    for row in rows(two_way):
        found[row["episode"]].append(row)
    assert len(found) == 20
    assert {(row["way"], row["ways"]) for row in rows(two_way)} == {(0, 2), (1, 2)}
    seen = set()
    for number, ways in found.items():
        labels = np.asarray(Image.open(two_way.folder / f"predictions/{number:06d}.png"))  # one model, one list
        seen |= set(np.unique(labels))
        mask = mask_of(photos, ways[0]["query"])
        valid = mask != 255
        assert len({row["class_id"] for row in ways}) == 2
        assert len({ways[0]["query"], *(name for row in ways for name in row["supports"])}) == 3
        for row in ways:
            yes, real = (labels == row["way"] + 1) & valid, mask == row["class_id"]
            assert row["intersection"] == (yes & real).sum()
            assert row["union"] == (yes | real).sum()
            assert (row["predicted"], row["true"]) == (yes.sum(), real.sum())
        neither = valid & ~np.isin(mask, [row["class_id"] for row in ways])
        background = (labels == 0) & valid
        assert ways[0]["background_intersection"] == (background & neither).sum()
        assert ways[0]["background_union"] == (background | neither).sum()
        assert (ways[1]["background_intersection"], ways[1]["background_union"]) == (0, 0)
    assert seen == {0, 1, 2}
    assert figures(two_way)["models"][_MODEL]["1"]["folds"]["1"]["episodes"] == 20


def by_hand(found, prefix=""):
    """The figures of one list of one fold, from its rows."""
    sums, each, foreground, background = defaultdict(lambda: np.zeros(2)), defaultdict(list), np.zeros(2), np.zeros(2)
    for row in found:
        part, whole = row[f"{prefix}intersection"], row[f"{prefix}union"]
        sums[row["class_id"]] += part, whole
        each[row["class_id"]].append(part / whole)
        foreground += part, whole
        background += row[f"{prefix}background_intersection"], row[f"{prefix}background_union"]
    classes = [part / whole for part, whole in sums.values()]
    behind = background[0] / background[1]
    return {
        "miou": np.mean(classes),
        "miou_episode_mean": np.mean([np.mean(values) for values in each.values()]),
        "miou_with_background": np.mean([*classes, behind]),
        "fb_iou": (foreground[0] / foreground[1] + behind) / 2,
    }


def test_metrics_from_the_rows(measured):
    """Means over classes, folds and lists, and their spread, by plain arithmetic."""
    every = rows(measured)
    for model, shots in ((m, k) for m in (_MODEL, "smoothed read-out") for k in (1, 2)):
        lists = defaultdict(list)
        for row in every:
            if (row["model"], row["shots"]) == (model, shots):
                lists[row["seed"], row["fold"]].append(row)
        assert sorted(lists) == [(s, f) for s in (0, 1) for f in range(4)]
        told = figures(measured)["models"][model][str(shots)]
        for prefix, pick in (("", lambda f: f), ("model_", lambda f: f["model_resolution"])):
            one = {key: by_hand(found, prefix) for key, found in lists.items()}
            for name in one[0, 0]:
                of_seed = [np.mean([one[s, f][name] for f in range(4)]) for s in (0, 1)]
                assert pick(told["mean"])[name] == pytest.approx(np.mean(of_seed))
                assert pick(told["spread"])[name] == pytest.approx(statistics.stdev(of_seed))
                assert [pick(told["seeds"][str(s)])[name] for s in (0, 1)] == pytest.approx(of_seed)
                for f in range(4):
                    assert pick(told["folds"][str(f)])[name] == pytest.approx((one[0, f][name] + one[1, f][name]) / 2)
        assert {fold["episodes"] for fold in told["folds"].values()} == {12}
        for name in ("miou", "fb_iou"):
            low, high = told["interval"][name]
            assert low < told["mean"][name] < high


def test_classes_from_the_saved_masks(measured, photos):
    """A fold's classes without the rows: masks against masks, the two lists one after the other."""
    ious = defaultdict(list)
    for seed in (0, 1):
        sums = defaultdict(lambda: np.zeros(2))
        for row in (
            r for r in rows(measured) if (r["model"], r["shots"], r["seed"], r["fold"]) == (_MODEL, 1, seed, 3)
        ):
            yes, mask = prediction(measured, row) == 1, mask_of(photos, row["query"])
            thing, valid = mask == row["class_id"], mask != 255
            sums[CLASSES[row["class_id"] - 1]] += (yes & thing & valid).sum(), ((yes | thing) & valid).sum()
        for name, (part, whole) in sums.items():
            ious[name].append(part / whole)
    told = figures(measured)["models"][_MODEL]["1"]["folds"]["3"]["classes"]
    assert {name: v["iou"] for name, v in told.items()} == pytest.approx({n: np.mean(v) for n, v in ious.items()})


def test_one_list_has_no_spread(two_way):
    told = figures(two_way)["models"][_MODEL]["1"]
    assert not {"spread", "seeds"} & set(told)
    assert figures(two_way)["protocol"]["ways"] == [2]


# Episodes


def test_episodes_are_proper(measured, photos):
    folds = {fold: range(5 * fold + 1, 5 * fold + 6) for fold in range(4)}
    for row in rows(measured):
        assert len({row["query"], *row["supports"]}) == row["shots"] + 1
        assert {row["query"], *row["supports"]} <= set(showing(photos, row["class_id"]))
        assert row["class_id"] in folds[row["fold"]]


def test_all_models_see_the_same_episodes_and_seeds_others(measured):
    drawn = defaultdict(list)
    for row in rows(measured):
        key = row["model"], row["seed"]
        drawn[key].append((row["fold"], row["shots"], row["episode"], row["class_id"], row["query"], row["supports"]))
    assert drawn[_MODEL, 0] == drawn["smoothed read-out", 0] != drawn[_MODEL, 1]
    assert drawn[_MODEL, 1] == drawn["smoothed read-out", 1]


def test_classes_with_too_few_images_are_left_out_by_name(measured, photos):
    available = {c: len(showing(photos, c)) for c in range(1, 21)}
    expected = {str(k): [CLASSES[c - 1] for c in range(1, 21) if available[c] < k + 1] for k in (1, 2)}
    assert expected["1"], "the corpus of this test should lack images of a class"
    assert figures(measured)["left_out"] == expected
    for shots, names in expected.items():
        folds = figures(measured)["models"][_MODEL][shots]["folds"].values()
        assert not set(names) & {name for fold in folds for name in fold["classes"]}


def test_a_written_list_runs_again(measured, configure, start, root):
    """Whatever the other settings would draw: the same episodes, the same rows, the same figures."""
    listed = measured.path("episode_list.parquet")
    other = ("model=prototype", "baselines=smoothed", "dataset.min_area=5000", "fold=1", "shots=4", "episodes=1")
    again = start(configure(root, *other, f"episode_list={listed}")).ensure("evaluate")
    assert rows(again) == rows(measured)
    assert again.path("episode_list.parquet").read_bytes() == listed.read_bytes()
    for key in ("episodes_sha256", "models"):
        assert figures(again)[key] == figures(measured)[key]
    assert (figures(again)["protocol"]["name"], figures(measured)["protocol"]["name"]) == ("list", "ours")
    assert figures(again)["protocol"]["seeds"] == [0, 1]


def test_a_list_that_does_not_fit_is_refused(measured, configure, start, photos, tmp_path):
    """As soon as it is read, before any unit is mapped; the list's own tests are in test_episode_list."""
    listed = measured.path("episode_list.parquet")
    (tmp_path / "list.parquet").write_bytes(b"query,class\n")
    (tmp_path / "half.txt").write_text("\n".join(evaluation_images(photos)[:3]))
    cases = {
        (
            f"episode_list={tmp_path}/list.parquet",
        ): r"list\.parquet: expected an episode list as evaluate writes it \(Pa",
        (
            f"episode_list={listed}",
            f"dataset.list={tmp_path}/half.txt",
        ): r"the data set has no image 0000\d\d; check da",
        (
            "episode_list=gone.parquet",
        ): r"episode_list: expected a file that evaluate wrote .* there is no gone\.parquet",
    }
    for chosen, told in cases.items():
        run = start(configure(tmp_path, "model=prototype", *chosen))
        with pytest.raises(ValueError, match=told):
            run.ensure("evaluate")
    assert not list(tmp_path.rglob(".units"))


def test_a_lost_list_is_not_mistaken_for_a_drawn_one(measured, configure, start, root):
    """The settings but for the list are those of a finished evaluation."""
    with pytest.raises(ValueError, match="there is no gone"):
        start(configure(root, *_OPTIONS, "episode_list=gone")).ensure("evaluate")


# Protocols


def pairs_of(photos):
    """(image, class) of fold 1 in list order, classes with at least 2 images of 100 pixels."""
    classes = [c for c in range(6, 11) if len(showing(photos, c)) >= 2]
    return [(n, c) for n in evaluation_images(photos) for c in classes if (mask_of(photos, n) == c).sum() >= 100]


@pytest.mark.parametrize(
    ("name", "seeds", "resolution", "headline"),
    [
        ("ours", [0], 96, "miou"),
        ("hsnet", [0], 400, "model_resolution.miou"),
        ("pfenet", [321], 96, "miou"),
        ("mining", [0, 1, 2, 3, 4], 96, "miou"),
        ("masksplit", [202, 203, 204, 205, 206], 400, "model_resolution.miou_episode_mean"),
    ],
)
def test_protocols_of_the_field(configure, start, root, photos, name, seeds, resolution, headline):
    options = ("model=prototype", f"protocol={name}", "fold=1", "shots=1", "episodes=20", "dataset.min_area=100")
    manifest = start(configure(root, *options)).ensure("evaluate")
    told, found = figures(manifest), rows(manifest)
    assert {k: told["protocol"][k] for k in ("name", "seeds", "model_resolution", "headline")} == {
        "name": name, "seeds": seeds, "model_resolution": resolution, "headline": headline
    }  # fmt: skip
    value = told["models"][_MODEL]["1"]["mean"]
    for key in headline.split("."):
        value = value[key]
    assert 0 < value < 1
    assert len(found) == 20 * len(seeds)
    pairs = pairs_of(photos)
    queries = list(dict.fromkeys(query for query, _ in pairs))
    if name == "hsnet":
        assert [(row["query"], row["class_id"]) for row in found] == [pairs[i % len(pairs)] for i in range(20)]
    elif name == "pfenet":
        assert [row["query"] for row in found] == [queries[i % len(queries)] for i in range(20)]
    else:
        assert {row["query"] for row in found} <= set(queries)
    for row in found:  # the truth at the model's resolution, and what the counts must add up to
        mask = torch.from_numpy(mask_of(photos, row["query"]).copy())[None, None].float()
        mask = torch.nn.functional.interpolate(mask, size=(resolution, resolution), mode="nearest")
        valid = int((mask != 255).sum())
        assert row["model_true"] == int((mask == row["class_id"]).sum())
        assert row["model_predicted"] == row["model_union"] + row["model_intersection"] - row["model_true"]
        assert row["model_background_union"] + row["model_intersection"] == valid
        assert row["model_background_intersection"] + row["model_union"] == valid


# Trained models, and selection by labels


def test_an_exported_model_beside_its_floors(tiny_run, configure, start):
    """model=FOLDER and the run that trained it give the same figures; floors and model see the same episodes."""
    options = ("shots=1", "episodes=8", "dataset.min_area=100")
    folder = tiny_run.manifest("train").folder / "model"
    exported = start(configure(tiny_run.config.root, f"model={folder}", *options)).ensure("evaluate")
    own = start(configure(tiny_run.config.root, *options)).ensure("evaluate")
    by_model = [list(figures(manifest)["models"].values()) for manifest in (exported, own)]
    assert by_model[0] == by_model[1]
    names = list(figures(own)["models"])
    assert names == [_MODEL, "smoothed read-out", "umtfss, meta-trained"]
    assert figures(own)["selection"] == figures(exported)["selection"]
    assert figures(own)["selection"]["by"] == "holdout"
    assert list(dict.fromkeys(row["model"] for row in rows(own))) == names
    pictures = [f for f in own.files if f.path.startswith("gallery/")]
    assert [f.path for f in pictures] == [f"gallery/fold0-{kind}.png" for kind in ("worst", "median", "best")]
    assert Image.open(io.BytesIO(read_file(own.folder, pictures[0]))).size[0] > 96


def test_selection_on_the_tested_classes_says_so(tiny_run, configure, start, monkeypatch):
    """For each fold and number of shots the candidate that does best there, as its own rows tell, whose pictures are
    shown.
    """
    drawn = []
    monkeypatch.setattr(evaluate, "Picture", lambda *fields: drawn.append(Picture(*fields)) or drawn[-1])
    options = ("select=test_classes", "fold=all", "shots=[1,2]", "episodes=5", "dataset.min_area=100")
    run = start(configure(tiny_run.config.root, *options))
    manifest = run.ensure("evaluate")
    assert run.fresh == ["evaluate"]
    label = "umtfss, meta-trained (selected on test classes)"
    assert list(figures(manifest)["models"]) == [_MODEL, "smoothed read-out", label]
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
    base = start(configure(tmp_path, *_MANY)).identity("evaluate")[2]
    changes = ("fold=1", "shots=1", "ways=2", "seeds=[0,2]", "episodes=7", "protocol=hsnet", "protocol.resolution=99")
    changes += ("dataset.min_area=9", "baselines=[]", "save_predictions=true", "backbone.size=64")
    found = [start(configure(tmp_path, *_MANY, change)).identity("evaluate")[2] for change in changes]
    assert len({base, *found}) == len(changes) + 1
    machines = ("cluster.workers=7", "cluster.memory_gib=1", "cluster.features_gib=0", "cluster.features=x")
    assert start(configure(tmp_path, *_MANY, *machines)).identity("evaluate")[2] == base


def test_results_are_copied_where_the_user_wants_them(measured, tmp_path):
    copy_results(measured, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == figures(measured)
    assert len(list((tmp_path / "out").glob("predictions/**/*.png"))) == _ROWS
    assert pq.read_table(tmp_path / "out" / "episodes.parquet").num_rows == _ROWS
