"""Every mistake before any work, all in one answer: what is wrong with files, folds, models and machines."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from cluster.config import ClusterConfig
from cluster.engine import check, publish
from cluster.engine.run import Run
from cluster.engine.stage import Stage
from cluster.features.head import HeadSettings
from cluster.stages import STAGES
from fss import seals, segmenter
from fss.backbones import build
from fss.backbones.extractor import Extractor
from fss.datasets import open_dataset
from fss.imaging import images
from jobs._config import load

GONE = "/nowhere/at/all"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A function (head) -> folder of an exported model of it on the small backbone."""
    base = tmp_path_factory.mktemp("models")

    def make(head):
        folder, network = base / head, build("small", "random", stride=8)
        if not folder.exists():
            folder.mkdir()
            model = {"name": head, "options": {"dim": 8}}
            made = HeadSettings(**model).build(network)
            for name, data in segmenter.export(made, Extractor(network, 96), model, {"classes": []}).items():
                (folder / name).write_bytes(data)
        return folder

    return make


def told(configure, root, stage, *overrides):
    """The problems that are found, in the order in which they are told; none if there are none."""
    run = Run(configure(root, *overrides), STAGES)
    try:
        run.check(stage)
    except ValueError as error:
        assert not run.folder.exists()
        return [line.strip() for line in str(error).split("\n")]
    return []


def test_nothing_is_wrong_with_the_tiny_preset(configure, tmp_path):
    assert told(configure, tmp_path, "evaluate") == []
    assert told(configure, tmp_path, "quality") == []


def test_all_mistakes_are_named_at_once_before_any_work(configure, tmp_path):
    wrong = ["corpus.root", "backbone.weights", "train.init_from"]
    found = told(configure, tmp_path, "evaluate", *(f"{key}={GONE}" for key in wrong), "fold=7", "train.batch=64")
    assert found[0] == "this cannot work, nothing was started:"
    for key in (*wrong, "fold:"):
        assert sum(key in line for line in found) == 1, (key, found)
    assert len(found) == 5


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dataset=pascal5i dataset.root=null", "dataset.root: expected the folder of pascal5i"),
        (f"dataset.root={GONE}", f"expected {GONE}/classes.json"),
        (f"dataset.list={GONE}", "expected a list file of image names"),
        ("fold=7", "fold: scenes has the folds 0..3, got 7"),
        (f"backbone.weights={GONE}", f"there is no file {GONE}; set backbone.weights=FILE"),
        ("backbone=resnet18", None),
        (f"train.init_from={GONE}", "train.init_from: expected an exported model"),
        ("train.init_from=PANET", "train.init_from: expected a umtfss model, got panet"),
        (f"train.mix={{{GONE}:0.5}}", "train.mix: expected the folder of a run whose pairs are done"),
        (f"episode_list={GONE}", "episode_list: expected a file that evaluate wrote"),
        (f"model={GONE}/x", "expected an exported model"),
        ("model=PANET", None),
        (f"source=saliency source.maps={GONE}", "source.maps: expected a folder of maps"),
        ("source=mining", "source.model: expected a mining model"),
        ("source=mining source.model=PANET", "source.model: expected a mining model, got panet"),
        ("source=cam", "source.words: expected word vectors"),
        (f"train.tasks=labelled train.images={GONE}", "expected a list file of image names"),
        ("cluster.train_workers=4096 train.batch=4096", "cluster: expected room for 4096 training workers"),
        ("cluster.gpus_per_worker=512", "cluster: expected room for 1 worker, which takes 1 CPUs and 512 GPUs"),
        (f"root={__file__}", "root: expected a folder to write"),
    ],
)
def test_each_mistake(configure, exported, tmp_path, override, said):
    overrides = [part.replace("PANET", str(exported("panet"))) for part in override.split()]
    found = told(configure, tmp_path, "evaluate", *overrides)
    if said is None:
        assert found == []
    else:
        assert any(said in line for line in found), found


def test_weights_of_another_network(configure, exported, tmp_path):
    folder = exported("panet")
    fitting = [f"backbone.weights={folder}/backbone.safetensors"]
    assert told(configure, tmp_path, "label", *fitting) == []
    found = told(configure, tmp_path, "label", *fitting, "backbone=resnet18")
    assert ["keys of resnet18 are missing" in line for line in found] == [True], found


def test_masks_that_show_nothing(configure, photos, tmp_path):
    root = shutil.copytree(photos, tmp_path / "data")
    for path in (root / "SegmentationClass").iterdir():
        mask = images.decode_labels(path.read_bytes())
        Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).save(path)
    (said,) = told(configure, tmp_path, "evaluate", f"dataset.root={root}")
    assert "masks" in said
    assert "nothing but background and void" in said


def test_only_the_stages_that_will_run_are_asked(configure, tmp_path):
    assert told(configure, tmp_path, "pair", "dataset.root=null", f"train.init_from={GONE}", "fold=7") == []


def test_a_model_measured_on_what_it_was_trained_with(configure, exported, photos, tmp_path):
    folder = shutil.copytree(exported("panet"), tmp_path / "seen")
    names = open_dataset("scenes", str(photos)).class_names
    about = publish.read_json(folder / "model.json")
    about |= {"facts": {"classes": names, "dataset": "scenes", "fold": 3}}
    publish.write_json(folder / "model.json", seals.sealed(about))
    found = told(configure, tmp_path, "evaluate", f"model={folder}", "fold=0")
    assert any("not trained on with labels, got" in line and "it was trained for fold 3" in line for line in found), (
        found
    )


def test_ensure_checks_what_it_goes_through_once(configure, tmp_path):
    asked = []
    names = ("first", "second")
    stages = {
        name: Stage(
            name,
            lambda config, above=names[:place]: above,
            lambda config: ClusterConfig(),
            lambda work: ([], {}),
            check=lambda config, name=name: asked.append(name) or [],
        )
        for place, name in enumerate(names)
    }
    run = Run(configure(tmp_path), stages)
    run.ensure("second")
    run.check("first", "second")
    assert asked == ["first", "second"]


def test_on_a_cluster_a_worker_looks(ray_session, configure, tmp_path):
    """Not the driver, which may not see what workers see."""
    here = os.getpid()
    found = check.remotely(configure(tmp_path), [lambda config: [f"pid {os.getpid()}"]])
    assert len(found) == 1
    assert found != [f"pid {here}"]
    assert check.on_a_cluster(ClusterConfig(address="auto"))
    assert not check.on_a_cluster(ClusterConfig())


def test_the_first_mistake_alone_stands_alone(configure, tmp_path):
    with pytest.raises(ValueError, match=r"^corpus\.root: expected|^expected a folder of images at corpus\.root"):
        Run(configure(tmp_path, f"corpus.root={GONE}"), STAGES).check("shard")


def test_load_is_about_form_alone(tmp_path):
    """Whether files are there is not asked while the command line is read."""
    assert load(["experiment=tiny", f"backbone.weights={GONE}", f"corpus.root={GONE}", "corpus=folder"]).name == "tiny"
