"""Training that can be interrupted anywhere and picked up by any number of workers."""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load

from cluster.engine.session import ROOT
from cluster.engine.stage import StageError
from cluster.tracking.journal import read_events
from cluster.train import candidates
from cluster.train.recipe import MetaRecipe, select
from cluster.training import checkpoint
from cluster.training.loop import part_of
from cluster.training.optimizers import learning_rate
from fss.segmenter import Segmenter
from tests.cluster import processes
from tests.cluster.train.recipes import varied
from tests.cluster.train.troubled import kept, metrics, noted, troubled_job

# The learning rate


def test_learning_rate_by_hand():
    rates = [learning_rate(step, 10, 4) for step in range(11)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(rates[5:], [(1 + np.cos(np.pi * k / 6)) / 2 for k in range(1, 7)])
    assert rates[7] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0)
    assert learning_rate(0, 10, 0) == 1
    assert learning_rate(3, 3, 3) == 1  # all warm-up


def test_other_schedules_by_hand():
    assert [learning_rate(step, 10, 4, "poly") for step in (3, 4, 7, 10)] == pytest.approx([0.8, 1, 0.5**0.9, 0])
    assert [learning_rate(step, 10, 4, "constant") for step in (3, 4, 7, 10)] == pytest.approx([0.8, 1, 1, 1])
    assert [learning_rate(step, 6, 0, "step") for step in range(6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


# Checkpoints


@pytest.fixture(scope="module")
def by_zero(tmp_path_factory):
    """What tests/cluster/train/zero.py found, by "saved>restored precision"."""
    store = tmp_path_factory.mktemp("zero") / "store"
    command = [sys.executable, "-m", "tests.cluster.train.zero", str(store)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


PAIRS = [f"{a}>{b} fp32" for a in range(4) for b in range(4)] + [f"{a}>{b} bf16" for a in (1, 2, 3) for b in (1, 2, 3)]


@pytest.mark.parametrize("pair", PAIRS)
def test_state_of_one_zero_stage_goes_on_under_another_to_the_bit(by_zero, pair):
    found = by_zero[pair]
    assert found["same"]
    assert found["resumed"] == found["undisturbed"]
    assert len(set(found["resumed"])) == 2  # it does learn
    kinds = {name.split("/")[0] for name in found["names"]}
    assert kinds == {"parameter", "exp_avg", "exp_avg_sq", "buffer"}
    assert not any("frozen" in name for name in found["names"])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_zero_stages_agree(by_zero, precision):
    losses = {tuple(found["undisturbed"]) for pair, found in by_zero.items() if pair.endswith(precision)}
    np.testing.assert_allclose(np.array(sorted(losses)), np.array(sorted(losses))[:1].repeat(len(losses), 0), rtol=1e-6)


@pytest.mark.parametrize("stage", range(4))
def test_a_batch_in_parts_teaches_the_same(by_zero, stage):
    np.testing.assert_allclose(by_zero[f"{stage} in parts"], by_zero[f"{stage} whole"], rtol=1e-5)


def test_the_parts_of_a_batch_are_the_batch():
    batch = ({"high": torch.arange(12).reshape(6, 2)}, torch.arange(6))
    parts = [part_of(batch, index, 3) for index in range(3)]
    assert torch.equal(torch.cat([features["high"] for features, _ in parts]), batch[0]["high"])
    assert [numbers.tolist() for _, numbers in parts] == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(("count", "ranks"), [(1, 2), (1, 3), (5, 2), (6, 2), (4, 3)])
def test_the_parts_of_all_ranks_are_the_whole_and_padding(count, ranks):
    size = -(-count // ranks)
    parts = [checkpoint.part(torch.arange(1.0, count + 1)[:, None], size, rank) for rank in range(ranks)]
    assert torch.cat(parts).tolist() == [*range(1, count + 1)] + [0] * (size * ranks - count)
    assert {part.shape for part in parts} == {(size,)}


def write(folder, step, value, identity="a", keep=3):
    state = {"parameter/w": torch.full((3,), float(value))}
    checkpoint.Checkpoints(folder, keep).write(step, state, {"run": identity})


def test_the_newest_checkpoint_is_found_and_old_ones_go(tmp_path):
    assert checkpoint.newest(tmp_path, {"run": "a"}) is None
    for step in (5, 10, 15, 100):
        write(tmp_path, step, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000015", "step-00000100"]
    step, state = checkpoint.newest(tmp_path, {"run": "a"})
    assert step == 100
    assert torch.equal(state["parameter/w"], torch.full((3,), 100.0))


def test_a_checkpoint_written_again_replaces_the_old_one(tmp_path):
    write(tmp_path, 5, 1)
    write(tmp_path, 5, 2)
    assert checkpoint.newest(tmp_path, {"run": "a"})[1]["parameter/w"][0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


@pytest.mark.parametrize("damage", ["flip", "cut", "no state", "no meta", "cut meta", "another step", "empty meta"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    write(tmp_path, 5, 5)
    write(tmp_path, 10, 10)
    state, meta = (tmp_path / "step-00000010" / name for name in ("state.safetensors", "meta.json"))
    data = state.read_bytes()
    {
        "flip": lambda: state.write_bytes(data[:-1] + bytes([data[-1] ^ 1])),
        "cut": lambda: state.write_bytes(data[:20]),
        "no state": state.unlink,
        "no meta": meta.unlink,
        "cut meta": lambda: meta.write_bytes(meta.read_bytes()[:-9]),
        "another step": lambda: meta.write_text(meta.read_text().replace('"step": 10', '"step": 18')),
        "empty meta": lambda: meta.write_bytes(b""),
    }[damage]()
    step, found = checkpoint.newest(tmp_path, {"run": "a"})
    assert (step, float(found["parameter/w"][0])) == (5, 5.0)
    shutil.rmtree(tmp_path / "step-00000005")
    assert checkpoint.newest(tmp_path, {"run": "a"}) is None


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    write(tmp_path, 5, 5, identity="b")
    with pytest.raises(ValueError, match=r"belongs to another run: expected \{'run': 'a'\}, got \{'run': 'b'\}"):
        checkpoint.newest(tmp_path, {"run": "a"})


def test_checkpoints_leave_the_backbone_out(tiny_run):
    folder = tiny_run.manifest("train").folder / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000004", "step-00000008"]
    step, state = checkpoint.newest(folder, {"run": folder.parent.name})
    assert step == 8
    head = load(candidates.read(folder.parent)[-1].path.read_bytes())
    for kind in ("parameter", "exp_avg", "exp_avg_sq", "average"):
        names = {name.removeprefix(f"{kind}/head.") for name in state if name.startswith(f"{kind}/")}
        assert names <= set(head)
    averaged = [name for name in head if f"average/head.{name}" in state]
    assert averaged
    for name in averaged:  # the average is what is kept for the export
        assert torch.equal(state[f"average/head.{name}"], head[name])
    assert any(not torch.equal(head[name], state[f"parameter/head.{name}"]) for name in averaged)


# The loop, which restarts. The undisturbed run of 1 worker is the tiny run's own.


def test_interrupted_and_resumed_training_ends_with_the_same_weights(tiny_run, tmp_path):
    """Killed before batch 6, after the checkpoint of step 4; fp32, 1 worker: equal to the bit."""
    job = troubled_job(tiny_run, tmp_path, at=6, how="killed")
    with pytest.raises(StageError, match=r"^train: .*; checkpoints are kept, run again to go on from the last one$"):
        processes.train(job, tiny_run.config.cluster, max_failures=0)
    assert [number for number, _ in noted(tmp_path, 0)] == [0, 1, 2, 3, 4, 5, 6]
    assert [path.name for path in (job.folder / "checkpoints").iterdir()] == ["step-00000004"]
    assert [one.step for one in candidates.read(job.folder)] == [1, 2, 3, 4, 5, 6]
    before = {one.step: one.path.stat().st_mtime_ns for one in candidates.read(job.folder)}
    processes.train(job, tiny_run.config.cluster, max_failures=0)
    seen = noted(tmp_path, 0)
    assert [number for number, _ in seen[7:]] == [4, 5, 6, 7]
    assert seen[7:10] == seen[4:7]
    undisturbed = tiny_run.manifest("train").folder
    for name in ("model/model.safetensors", "model/backbone.safetensors", "model/model.json"):
        assert (job.folder / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert kept(job.folder) == kept(undisturbed)
    again = {one.step for one in candidates.read(job.folder) if one.path.stat().st_mtime_ns != before.get(one.step)}
    assert again == {5, 6, 7, 8}
    for kind in ("loss", "iou", "lr/head", "holdout_iou", "holdout_loss"):
        assert metrics(job.tracking, job, f"train/{kind}") == metrics(tiny_run.tracking_folder, job, f"train/{kind}")
    assert not (job.folder / ".ray").exists()


def test_a_tuned_backbone_goes_on_to_the_bit(tiny_run, tmp_path):
    """Rules by group, parts of a batch, ZeRO-2, a tuned backbone, a head with dropout: killed before batch 3 of 4."""
    head = {"name": "correlation", "options": {}}
    means = {"gradient_checkpointing": True, "examples": 2}
    settings = {"tune": ("high.1",), "tune_factor": 0.1, "features": "fresh", "views": None}
    settings |= {"optimizer": "sgd", "sgd_lr": 1e-2, "sgd_weight_decay": 1e-4}
    found = {}
    for name, at in (("undisturbed", -1), ("killed", 3)):
        (tmp_path / name).mkdir()
        job = troubled_job(tiny_run, tmp_path / name, at=at, how="killed")
        recipe = varied(job.recipe, head, means, **settings)
        job = dataclasses.replace(
            job, recipe=recipe, steps=4, checkpoint_every=2, log_every=1, validate_every=2, accumulate=2, zero_stage=2
        )
        if at >= 0:
            with pytest.raises(StageError):
                processes.train(job, tiny_run.config.cluster, max_failures=0)
        processes.train(job, tiny_run.config.cluster, max_failures=0)
        found[name] = job
    one, other = found.values()
    for kind in ("loss", "iou", "lr/head", "lr/backbone", "holdout_iou", "holdout_empty_share"):
        assert metrics(one.tracking, one, f"train/{kind}") == metrics(other.tracking, other, f"train/{kind}") != {}
    assert kept(one.folder) == kept(other.folder)
    rates = [metrics(one.tracking, one, f"train/lr/{name}") for name in ("head", "backbone")]
    assert rates[1] == pytest.approx({step: rate * 0.1 for step, rate in rates[0].items()})
    _check_tuned(one, settings["tune"])
    pictures = [path.name for path in sorted((one.folder / "examples").iterdir())]
    assert pictures == ["step-00000000.png", "step-00000002.png", "step-00000004.png"]
    events, _ = read_events(one.tracking / f"{one.journal}.jsonl")
    assert [event["step"] for event in events if event["kind"] == "image"] == [0, 2, 4]
    other_backbone = dataclasses.replace(other.recipe.spec, seed=99)
    changed = dataclasses.replace(other, recipe=dataclasses.replace(other.recipe, spec=other_backbone))
    for mine, fits in ((other, True), (changed, False)):
        expected = contextlib.nullcontext() if fits else pytest.raises(ValueError, match="set the backbone and options")
        with expected:
            checkpoint.newest(other.folder / "checkpoints", {**mine.identity, **mine.recipe.identity()})


def _check_tuned(job, parts):
    """What checkpoints hold, and that the exported backbone differs from the frozen one where it was tuned."""
    frozen = job.recipe.spec.load().backbone
    tuned = {name for name, _ in frozen.named_parameters() if name.startswith(tuple(f"net.{part}" for part in parts))}
    assert 0 < len(tuned) < len(dict(frozen.named_parameters()))
    _, state = checkpoint.newest(job.folder / "checkpoints", {})
    for kind in ("parameter", "exp_avg", "average"):
        assert {n.removeprefix(f"{kind}/backbone.") for n in state if n.startswith(f"{kind}/backbone.")} == tuned
    assert not any(name.startswith("buffer/backbone.") for name in state)
    exported = load((job.folder / "model/backbone.safetensors").read_bytes())
    changed = {name for name, value in frozen.state_dict().items() if not torch.equal(exported[name], value)}
    assert changed
    assert changed <= tuned
    chosen, _ = select(candidates.read(job.folder), "holdout")
    by_candidate = Segmenter.load(job.folder / "model", device="cpu", weights=chosen.path)
    assert all(torch.equal(v, exported[n]) for n, v in by_candidate.extractor.backbone.state_dict().items())


def test_two_workers_see_the_same_episodes_and_learn_the_same(tiny_run, tmp_path):
    """One of the ranks is killed in between, after which all start again; gradients add in another order."""
    job = troubled_job(tiny_run, tmp_path, at=5, how="killed")
    cluster = dataclasses.replace(tiny_run.config.cluster, train_workers=2)
    processes.train(job, cluster, max_failures=1)
    assert (tmp_path / "failed").exists()
    ranks = [dict(noted(tmp_path, rank)) for rank in (0, 1)]
    alone = job.recipe
    for number, batch in enumerate(MetaRecipe._load(alone, alone.train, 0, job.steps, 0, 1, job.batch, 2)):
        rows = [[[key, str(view)] for key, view in row] for row in batch.images]
        assert [ranks[0][number], ranks[1][number]] == [rows[0::2], rows[1::2]]
    one, two = (metrics(folder, job, "train/loss") for folder in (tiny_run.tracking_folder, job.tracking))
    assert list(one) == list(two) == [2, 4, 6, 8]
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-4)
    for ours, theirs in zip(
        candidates.read(tiny_run.manifest("train").folder), candidates.read(job.folder), strict=True
    ):
        assert ours.step == theirs.step
        assert ours.figures == pytest.approx(theirs.figures, abs=5e-3)
        models = [load(one.path.read_bytes()) for one in (ours, theirs)]
        for name, value in models[0].items():
            np.testing.assert_allclose(models[1][name], value, atol=1e-4, err_msg=f"step {ours.step}: {name}")
    chosen, _ = select(candidates.read(job.folder), "holdout")
    assert (job.folder / "model/model.safetensors").read_bytes() == chosen.path.read_bytes()


def test_dropout_goes_on_as_it_would_have(tiny_run, tmp_path):
    """A head that draws at random, killed before batch 6 and resumed, ends as one that nothing disturbed."""
    ends = []
    for name, trouble in (("undisturbed", {}), ("resumed", {"at": 6, "how": "killed"})):
        (tmp_path / name).mkdir()
        job = troubled_job(tiny_run, tmp_path / name, **trouble)
        head = {"name": "pfenet", "options": {"dim": 16, "dropout": 0.5}}
        job = dataclasses.replace(job, recipe=varied(job.recipe, head))
        processes.train(job, tiny_run.config.cluster, max_failures=1)
        ends.append((job.folder / "model/model.safetensors").read_bytes())
    assert (tmp_path / "resumed" / "failed").exists()
    assert ends[0] == ends[1]
