"""MiningFSS in the flow: what the head studies, and that its memory is the same on all workers and after a restart."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load

from cluster.features import backbone
from cluster.label.sources import LabellerInputs, mining
from cluster.tracking.journal import read_events
from cluster.train import candidates
from cluster.train.recipe import MetaRecipe
from cluster.training import checkpoint
from fss.heads.parts.mined import annotate
from fss.training import study
from jobs._config import load as configured
from tests.cluster import processes
from tests.cluster.train.recipes import varied
from tests.cluster.train.troubled import kept, troubled_job

MODEL = {
    "name": "mining",
    "options": {"dim": 16, "width": 8, "clusters": 3, "images": 6, "rectify": 2, "momentum": 0.9},
}


def job_of(tiny_run, folder, **trouble):
    folder.mkdir()
    job = troubled_job(tiny_run, folder, **trouble)
    return dataclasses.replace(job, recipe=varied(job.recipe, MODEL))


def exported(job):
    return load((job.folder / "model/model.safetensors").read_bytes())


@pytest.fixture(scope="module")
def undisturbed(tiny_run, tmp_path_factory):
    job = job_of(tiny_run, tmp_path_factory.mktemp("mining") / "undisturbed")
    processes.train(job, tiny_run.config.cluster, max_failures=0)
    return job


def test_a_resumed_training_has_the_same_memory_to_the_bit(tiny_run, undisturbed, tmp_path):
    job = job_of(tiny_run, tmp_path / "killed", at=6, how="killed")
    processes.train(job, tiny_run.config.cluster, max_failures=1)
    assert (tmp_path / "killed" / "failed").exists()
    assert kept(job.folder) == kept(undisturbed.folder)
    _, state = checkpoint.newest(job.folder / "checkpoints", {})
    assert {name for name in state if name.startswith("buffer/")} >= {"buffer/head.kept.background"}
    expected = 1 - MODEL["options"]["momentum"] ** job.steps
    assert float(state["buffer/head.kept.weight"]) == pytest.approx(expected, rel=1e-5)


def test_two_workers_settle_the_same_memory(tiny_run, undisturbed, tmp_path):
    job = job_of(tiny_run, tmp_path / "two")
    processes.train(job, dataclasses.replace(tiny_run.config.cluster, train_workers=2), max_failures=0)
    one, two = (candidates.read(each.folder) for each in (undisturbed, job))
    for ours, theirs in zip(one, two, strict=True):
        models = [load(each.path.read_bytes()) for each in (ours, theirs)]
        assert models[0].keys() == models[1].keys()
        for name, value in models[0].items():
            np.testing.assert_allclose(models[1][name], value, atol=1e-4, err_msg=f"step {ours.step}: {name}")
    assert models[0]["kept.background"].abs().max() > 1e-3


def test_the_head_studies_the_supports_of_its_tasks(undisturbed):
    """The index and the latent classes are those of the first 6 different supports, under the frozen features."""
    recipe = undisturbed.recipe
    batches = MetaRecipe._load(recipe, recipe.train, 0, 40, 0, 1, 4, 1)
    looked = study.distinct(batches, 6)
    assert len({one.name[0] for one in looked}) == 6
    assert all(one.name[1].plain and not one.name[1].flip for one in looked)
    memory = {name.removeprefix("kept."): value for name, value in exported(undisturbed).items()}
    assert memory["studied"]
    album = study.Album(looked, recipe.bank)
    assert sum(len(shares) for _, shares in album) == sum(len(shares) for _, shares in album) == 6
    tokens = torch.cat([torch.nn.functional.normalize(features["mid"], dim=1) for features, _ in album])
    np.testing.assert_allclose(memory["images"], tokens.mean((2, 3)), atol=1e-6)
    there = annotate(tokens, memory["representatives"]).amax((2, 3)) > 0
    assert torch.equal(memory["present"], there)


def test_its_latent_classes_make_tasks_of_images(undisturbed, configure, start, tmp_path):
    """source=mining, the second round: no clustering, maps by the model's latent classes, tasks of its regions."""
    run = start(configure(tmp_path, "source=mining", f"source.model={undisturbed.folder}", "pair.max_border=1"))
    assert run.order("pair") == ["shard", "label", "pair"]
    assert run.ensure("pair").counts["tasks"] > 5
    labels, classes = run.manifest("label"), exported(undisturbed)["kept.representatives"].numpy()
    found = pq.read_table(labels.folder / labels.named(".regions.parquet")[0].path)
    assert set(found["label"].to_pylist()) <= {1, 2, 3}
    work = run.work("label")
    given = LabellerInputs(work.settings.source, work.means.source, work.inputs, backbone.given(run.config))
    assert np.array_equal(mining.SOURCE.labeller(given).representatives, classes)
    assert run.identity("label")[0]["source"]["model"].startswith("sha256:")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ([], r"source.model: expected a mining model, whose latent classes label images, got none; set source.model"),
        (["source.model=nowhere"], r"source.model: expected an exported model"),
        (["source.model=TINY"], r"source.model: expected a mining model, got umtfss in"),
        (["source.model=OURS", "source.levels=[mid,high]"], r"source.levels: expected \['mid'\], those of the model"),
        (["source.model=OURS", "seed=5"], r"source.model: the model in .* was trained on another backbone; set"),
    ],
)
def test_models_that_cannot_label_are_refused(tiny_run, undisturbed, configure, start, tmp_path, override, message):
    places = {"TINY": tiny_run.manifest("train").folder, "OURS": undisturbed.folder}
    for name, place in places.items():
        override = [one.replace(name, str(place)) for one in override]
    with pytest.raises(ValueError, match=message):
        start(configure(tmp_path, "source=mining", *override)).ensure("label")


def test_the_preset_runs_on_a_users_photos(photos, start, tmp_path):
    """experiment=mining made tiny: unlabelled images beside tasks, measured beside the floors, all by MODEL's sizes."""
    small = ["steps=2", "batch=4", "holdout=4", "candidates=1", "log_every=1", "examples=0"]
    place = [f"root={tmp_path}", f"corpus.root={photos}/JPEGImages", f"dataset.root={photos}", "corpus.shard_size=12"]
    config = configured(
        ["experiment=mining", "backbone=small", "backbone.weights=random", "backbone.size=96", "source.clusters=6"]
        + ["dataset=scenes", "dataset.min_area=60", "fold=0", "shots=[1,2]", "episodes=4", "tracking.enabled=false"]
        + ["cluster.workers=2", "pair.tasks_per_image=1", *place, *(f"train.{one}" for one in small)]
        + [f"model.options.{name}={value}" for name, value in MODEL["options"].items()]
    )
    run = start(config)
    found = json.loads(run.ensure("evaluate").path("metrics.json").read_text())
    assert config.train.unlabelled == 1
    assert any("mining" in name for name in found["models"])
    figures = [e for e in read_events(run.tracking_folder / f"{run.journal_name('train')}.jsonl")[0] if "values" in e]
    names = {name for event in figures for name in event["values"]}
    assert names >= {"train/loss_mined", "train/holdout_mined_share", "train/holdout_background_cosine"}
