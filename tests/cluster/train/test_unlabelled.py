"""Unlabelled images beside tasks: drawn by rule, silent in the episode, scored by the head's own loss."""

import pickle
import shutil

import pytest
import torch

from cluster.train import stage
from cluster.train.tasks import unlabelled
from cluster.train.tasks.mixed import MixedPart, MixedTasks
from cluster.train.tasks.unlabelled import UnlabelledSettings, WithUnlabelled
from fss import heads
from fss.heads.parts import losses
from fss.imaging import images
from fss.tasks.task import Batches, BatchLayout, Schedule
from fss.training.step import MetaModule
from tests.cluster.train.test_mining import MODEL
from tests.fss.heads.test_heads import CHANNELS, episode, studied


@pytest.fixture(scope="module")
def extended(tiny_run):
    """The tiny run's tasks with two images each, and the tasks alone."""
    corpus, own = tiny_run.manifest("shard"), stage.job(tiny_run.work("train")).recipe.train
    return WithUnlabelled(own, corpus.folder, tuple(corpus.named(".tar")), 2, seed=3), own


def test_images_of_the_corpus_come_with_void_masks_of_their_size(tiny_run, extended):
    found, own = extended
    assert found.counts == own.counts
    for task, alone in zip(found(0, 1), own(0, 1), strict=True):
        shots = len(alone.keys)
        assert (task.keys[:shots], task.jpegs[:shots], task.masks[:shots]) == (alone.keys, alone.jpegs, alone.masks)
        assert len(task.keys) == shots + 2
        for jpeg, mask in zip(task.jpegs[shots:], task.masks[shots:], strict=True):
            labels, image = images.decode_labels(mask), images.decode(jpeg)
            assert labels.shape == (image.height, image.width)
            assert (labels == images.VOID).all()
    drawn = {key for epoch in range(12) for task in found(0, epoch) for key in task.keys[-2:]}
    assert len(drawn) > 0.8 * tiny_run.manifest("shard").counts["accepted"]


def test_they_are_a_function_of_seed_epoch_and_place(extended):
    found, _ = extended
    again = pickle.loads(pickle.dumps(found))
    assert [task.keys for task in again(0, 1)] == [task.keys for task in found(0, 1)]
    assert again(0, 1)[2].keys == found(0, 1)[2].keys
    assert [task.keys[-2:] for task in found(0, 2)] != [task.keys[-2:] for task in found(0, 1)]


def test_batches_take_them_as_supports_that_say_nothing(extended):
    found, own = extended
    batch = Batches(Schedule(found.counts, 0), found, 3, 0, 2, BatchLayout(33, 12, False, 96))[0]
    alone = Batches(Schedule(own.counts, 0), own, 3, 0, 2, BatchLayout(33, 12, False, 96))[0]
    assert batch.support.shape[1] == alone.support.shape[1] + 2
    assert torch.equal(batch.support[:, :-2], alone.support)
    assert batch.support[:, -2:].abs().max() == 0
    assert torch.equal(batch.truth, alone.truth)


def test_the_episodes_loss_does_not_see_them_and_the_latent_classes_do():
    query, support, masks = episode(shots=3)
    masks[:, 2] = 0
    truth = episode(seed=50, grid=9)[2][:, 0]
    module = heads.build("mining", MODEL["options"], CHANNELS, corners=True)
    module.study(studied(), seed=0)
    step = MetaModule(module, losses.cross_entropy_dice, corners=True)
    beside = step(query, support, masks, truth)
    alone = step(query, {k: v[:, :2] for k, v in support.items()}, masks[:, :2], truth)
    parts = [found["loss"] - found["loss_mined"] for found in (beside, alone)]
    assert parts[0].item() == pytest.approx(parts[1].item(), rel=1e-5)
    assert beside["loss_mined"].item() != pytest.approx(alone["loss_mined"].item(), rel=1e-3)


def test_another_runs_corpus_counts_by_its_content(tiny_run, configure, start, tmp_path):
    other = tmp_path / "elsewhere"
    shutil.copytree(tiny_run.folder / "shard", other / "shard")

    def run(*overrides):
        found = start(configure(tmp_path, "model=mining", "train.unlabelled=2", *overrides))
        return stage.STAGE.inputs(found.config), unlabelled.settings(found.config)

    inputs, about = run()
    assert "shard" in inputs
    assert about == UnlabelledSettings(2, 0, None)
    inputs, about = run(f"train.unlabelled_run={other}")
    assert "shard" not in inputs
    assert about == UnlabelledSettings(2, 0, tiny_run.manifest("shard").fingerprint)
    own = stage.job(tiny_run.work("train")).recipe.train
    tasks = unlabelled.wrapped(about, unlabelled.corpus_of(str(other)), own)
    assert all(key.startswith("unlabelled/") for key in tasks(0, 0)[0].keys[-2:])
    with pytest.raises(ValueError, match=r"train.unlabelled_run: expected the folder of a run with a corpus, there is"):
        run(f"train.unlabelled_run={tmp_path / 'nowhere'}")


def test_a_mixture_stays_one(extended, tiny_run):
    """Each part gets images, the shares stay."""
    corpus, (_, own) = tiny_run.manifest("shard"), extended
    chosen = UnlabelledSettings(2, 0, corpus.fingerprint)
    found = unlabelled.wrapped(chosen, corpus, MixedTasks((MixedPart(own, 750, "a"), MixedPart(own, 250, "b"))))
    assert isinstance(found, MixedTasks)
    assert [part.weight for part in found.parts] == [750, 250]
    for number in range(len(found.counts)):
        assert {len(task.keys) for task in found(number, 0)} == {len(own(0, 0)[0].keys) + 2}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            ["train.unlabelled=2"],
            r"train.unlabelled: expected 0 with model=.* which learns nothing of single images, got 2",
        ),
        (["model=mining", "model.options.mine=0", "train.unlabelled=2"], r"set train.unlabelled=0, or model=mining"),
        (
            ["model=mining", "train.unlabelled_run=a"],
            r"train.unlabelled_run: expected it unset without train.unlabelled",
        ),
        (
            ["model=mining", "train.tune=[high]", "train.features=fresh"],
            r"train.tune: expected none with model=mining .*; set train.tune=\[\]",
        ),
        (
            ["model=correlation", "model.options.residual=corpus_readout", "train.tune=[high]", "train.features=fresh"],
            r"train.tune: expected none with model=correlation .*, got high; set train.tune=\[\]",
        ),
        (["train.unlabelled=-1"], r"train.unlabelled: expected a number from 0, got -1"),
    ],
)
def test_what_cannot_work_is_refused(configure, tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        configure(tmp_path, *override)
