"""Tasks paired while training: allowed pairings, the same ones for whoever asks, in whatever order."""

import dataclasses
import json
import pickle

import numpy as np
import pytest

from cluster.engine.pool import Failure
from cluster.engine.stage import StageError, read_file
from cluster.pair.groups import Members, groups, held_out, read_regions
from cluster.train import stage as train
from cluster.train.tasks.stream import Streams
from fss import shards
from fss.imaging import images
from fss.tasks.pairing.parts import pairs
from fss.tasks.task import Batches, BatchLayout, Schedule
from tests.cluster.here import Here


@pytest.fixture(scope="module")
def streams(tiny_run):
    """Two tasks an image, with a distractor each, of groups of two shards."""
    corpus, labels = tiny_run.manifest("shard"), tiny_run.manifest("label")
    rules = dataclasses.replace(tiny_run.config.pair, tasks_per_image=2, distractors=1)
    return Streams(corpus.folder, labels.folder, tuple(groups(corpus, labels, 2)), rules, seed=3)


@pytest.fixture(scope="module")
def opened(streams):
    return streams.open(Here())


def keys(tasks):
    return [task.keys for task in tasks]


def test_counts_are_those_of_every_epoch(streams, opened):
    assert sum(opened[0].counts) > 20
    for stream in opened:
        for number, count in enumerate(stream.counts):
            assert [len(stream(number, epoch)) for epoch in range(3)] == [count] * 3


def test_tasks_are_allowed_pairings_of_their_group(streams, opened):
    for number, group in enumerate(streams.groups):
        table = read_regions(streams.labels, group.regions)
        fine, held = pairs.Eligible(table, streams.rules), held_out(table.key, streams.seed)
        for stream in opened:
            for pairing in stream.pairings(number, 1):
                rows = [pairing.query, *pairing.supports]
                assert fine.usable[rows].all()
                assert len(set(table.label[rows])) == 1
                assert len(set(table.key[[*rows, *pairing.distractors]])) == 3
                assert held[pairing.query] == stream.held


def test_every_epoch_pairs_anew_but_for_validation(opened):
    train_stream, held = opened
    assert keys(train_stream(0, 0)) != keys(train_stream(0, 1))
    number = int(np.argmax(held.counts))
    assert keys(held(number, 0)) == keys(held(number, 5))


def test_a_task_holds_its_regions_and_an_empty_mask(streams, opened):
    stream = opened[0]
    pairing, task = stream.pairings(0, 0)[0], stream(0, 0)[0]
    table = read_regions(streams.labels, streams.groups[0].regions)
    maps = Members(streams.labels, streams.groups[0].labels)
    rows = (pairing.query, *pairing.supports, *pairing.distractors)
    assert task.keys == tuple(table.key[list(rows)])
    for row, png, shown in zip(rows, task.masks, (True, True, False), strict=True):
        labels = images.decode_labels(maps[f"{table.key[row]}.{table.layer[row]}.png"])
        np.testing.assert_array_equal(images.decode_labels(png), (labels == table.label[row]) & shown)
    assert not images.decode_labels(task.masks[2]).any()


def batches(stream, rank=0, world=1):
    return Batches(Schedule(stream.counts, 0), stream, 4, 0, 2, BatchLayout(9, 5, True, 33), rank=rank, world=world)


def test_any_process_that_starts_anywhere_sees_the_same_batches(streams, opened):
    """Through two epochs; ranks 0 and 1 of 2 with streams of their own, one of them pickled after use, backwards."""
    stream = opened[0]
    last = 2 * sum(stream.counts) // 4
    whole = {number: batches(stream)[number] for number in range(0, last, 3)}
    parts = [batches(pickle.loads(pickle.dumps(stream)), 0, 2), batches(streams.open(Here())[0], 1, 2)]
    for number in reversed(whole):
        rows = [part[number].images for part in parts]
        assert [row for pair in zip(*rows, strict=True) for row in pair] == whole[number].images
    assert len({str(batch.images) for batch in whole.values()}) == len(whole)


def test_members_are_read_one_by_one(tiny_run):
    manifest = tiny_run.manifest("label")
    members = Members(manifest.folder, manifest.named(".tar"))
    for file in manifest.named(".tar"):
        for key, found in shards.unpack(read_file(manifest.folder, file)):
            assert {name: members[f"{key}.{name}"] for name in found} == found


def test_a_group_that_cannot_be_read_is_named(streams):
    class Broken:
        def map(self, function, units):
            yield from ((index, Failure(index, "ValueError: labels are damaged")) for index, _ in enumerate(units))

    with pytest.raises(StageError, match=r"cannot be counted \(ValueError: labels are damaged\)"):
        streams.open(Broken())


def test_streaming_is_a_stage_of_its_own_that_the_rules_shape(tiny_run, configure, start, tmp_path):
    def fingerprint(*overrides):
        return start(configure(tmp_path, *overrides)).identity("train")[2]

    stream = fingerprint("train.tasks=stream")
    others = ["pair.nearest=0.9", "pair.tasks_per_image=2", "pair.distractors=1", "pair.group_shards=1"]
    found = {fingerprint("train.tasks=stream", other) for other in others}
    assert len({*found, stream, tiny_run.identity("train")[2]}) == len(others) + 2
    assert fingerprint("train.tasks=stream", "pair.tasks_per_shard=7") == stream
    assert "pair" not in start(configure(tmp_path, "train.tasks=stream")).order("train")


def test_training_on_a_stream_writes_no_tasks(tiny_run, configure, start, tmp_path):
    import shutil

    for stage in ("shard", "sample", "kmeans", "label"):
        shutil.copytree(tiny_run.folder / stage, tmp_path / tiny_run.config.name / stage)
    run = start(configure(tmp_path, "train.tasks=stream", "pair.distractors=1", "pair.shots=2"))
    manifest = run.ensure("train")
    assert run.fresh == ["train"]
    assert not (run.folder / "pair").exists()
    assert not list(run.folder.rglob("tasks-*.tar"))
    assert json.loads((manifest.folder / "model" / "model.json").read_text())["facts"]["selection"]["by"] == "holdout"
    assert isinstance(train.job(run.work("train")).recipe.train.source, Streams)
