"""Tasks on disk, their order, and the batches made of them, whatever the number of processes."""

import collections
import io
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fss import backbones, grid, shards
from fss.backbones.extractor import Extractor
from fss.imaging import images
from fss.tasks import augment, views
from fss.tasks import task as tasks
from fss.tasks.task import Batches, Schedule, Task
from fss.training import bank


def jpeg(seed: int) -> bytes:
    array = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return images.encode_jpeg(Image.fromarray(array))


def mask(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([0, 1, 255], np.uint8), (30, 40))


def task(number: int, shots: int = 1) -> Task:
    names = range(3 * number, 3 * number + shots + 1)
    masks = tuple(images.encode_png(mask(i)) for i in names)
    return Task(tuple(f"key{i}" for i in names), tuple(jpeg(i) for i in names), masks)


def batches(counts: tuple[int, ...] = (3, 2), **options: object) -> Batches:
    layout = tasks.BatchLayout(
        9, 5, True, 33, **{key: options.pop(key) for key in ("pixels", "changed") if key in options}
    )
    chosen = {"batch": 4, "seed": 0, "num_views": 2, "layout": layout} | options
    starts = np.cumsum([0, *counts])
    shots = chosen.pop("shots", 1)
    read = [[task(int(starts[s]) + i, shots) for i in range(n)] for s, n in enumerate(counts)]
    return Batches(Schedule(counts, seed=7), lambda shard, epoch: read[shard], **chosen)


def test_a_task_comes_back_from_its_sample():
    keys, jpegs, masks = ["q", "s0", "s1"], [jpeg(0), jpeg(1), jpeg(2)], [mask(0), mask(1), mask(2)]
    sample = tasks.encode("000017", keys, jpegs, masks, {"cluster": 5, "layer": 1})
    assert list(sample[1]) == [
        *("query.jpg", "query.png", "support0.jpg", "support0.png", "support1.jpg", "support1.png", "json")
    ]
    (back,) = map(tasks.decode, shards.unpack(shards.pack([sample])))
    assert back.keys == ("q", "s0", "s1")
    assert back.jpegs == tuple(jpegs)
    for png, original in zip(back.masks, masks, strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), original)
    assert b'"cluster":5' in sample[1]["json"]


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="zip"):
        tasks.encode("0", ["q", "s"], [jpeg(0)], [mask(0)], {})


@pytest.mark.parametrize("missing", ["json", "query.png", "support0.jpg"])
def test_a_missing_member_is_named(missing):
    number, members = tasks.encode("000017", ["q", "s"], [jpeg(0), jpeg(1)], [mask(0), mask(1)], {})
    del members[missing]
    with pytest.raises(ValueError, match=f"task 000017: expected a member '{missing}', got "):
        tasks.decode((number, members))


COUNTS = st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(any).map(tuple)


@settings(max_examples=40)
@given(COUNTS, st.integers(0, 99))
def test_every_task_comes_exactly_once_an_epoch(counts, seed):
    schedule, total = Schedule(counts, seed), sum(counts)
    everything = {(shard, place) for shard, number in enumerate(counts) for place in range(number)}
    for epoch in range(3):
        located = [schedule.locate(epoch * total + i) for i in range(total)]
        assert {e for e, _, _ in located} == {epoch}
        assert {(shard, place) for _, shard, place in located} == everything
        changes = sum(a[1] != b[1] for a, b in itertools.pairwise(located))
        assert changes == np.count_nonzero(counts) - 1  # shard after shard


def test_the_schedule_is_a_pure_function_of_seed_and_episode():
    forward = [Schedule((5, 9, 3), 0).locate(i) for i in range(60)]
    tasks._epoch.cache_clear()
    tasks._positions.cache_clear()
    assert [Schedule((5, 9, 3), 0).locate(i) for i in reversed(range(60))] == forward[::-1]
    assert [Schedule((5, 9, 3), 1).locate(i) for i in range(60)] != forward
    assert [place[1:] for place in forward[:17]] != [place[1:] for place in forward[17:34]]


def test_no_tasks_at_all_is_said_with_its_remedies():
    with pytest.raises(ValueError, match=r"got none; loosen pair\.min_area, pair\.max_area or pair\.empty_lines"):
        Schedule((0, 0), 0)
    with pytest.raises(ValueError, match="expected at least one task"):
        Schedule((), 0)


def test_a_batch_by_hand():
    found = batches()[1]
    schedule = Schedule((3, 2), seed=7)
    assert len(found.images) == 4
    assert found.truth.shape == (4, 2, 9, 9)
    assert found.support.shape == (4, 1, 2, 5, 5)
    for row, episode in enumerate(range(4, 8)):
        _, shard, place = schedule.locate(episode)
        number = 3 * shard + place
        assert [key for key, _ in found.images[row]] == [f"key{3 * number}", f"key{3 * number + 1}"]
        (_, query_view), (_, support_view) = found.images[row]
        query = query_view.mirrored(mask(3 * number).astype(np.int32))
        support = support_view.mirrored(mask(3 * number + 1).astype(np.int32))
        assert torch.equal(found.truth[row], grid.cells(query, 9, True))
        assert torch.equal(found.support[row, 0], grid.cells(support, 5, True))
        assert found.jpegs[f"key{3 * number}"] == jpeg(3 * number)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_processes_share_out_every_batch(world):
    whole = batches()
    parts = [batches(rank=rank, world=world) for rank in range(world)]
    for number in (0, 1, 5):
        rows = [part[number] for part in parts]
        assert [row for i in range(4 // world) for part in rows for row in [part.images[i]]] == whole[number].images
        assert torch.equal(torch.stack([part.truth for part in rows], 1).flatten(0, 1), whole[number].truth)
        assert torch.equal(torch.stack([part.support for part in rows], 1).flatten(0, 1), whole[number].support)


def test_an_uneven_world_still_takes_every_episode_once():
    rows = [batches(batch=7, rank=rank, world=3)[0].images for rank in range(3)]
    assert [len(part) for part in rows] == [3, 2, 2]
    found = collections.Counter(str(row) for part in rows for row in part)
    assert found == collections.Counter(str(row) for row in batches(batch=7)[0].images)


def test_views_are_a_few_fixed_ones_or_always_fresh():
    fixed = {view for n in range(20) for row in batches(num_views=2)[n].images for _, view in row}
    assert fixed == {views.View(), views.View(flip=True)}
    assert {v for n in range(5) for row in batches(num_views=1)[n].images for _, v in row} == {views.View()}
    fresh = [view for n in range(5) for row in batches(num_views=0)[n].images for _, view in row]
    assert len(set(fresh)) == len(fresh) == 40


def test_pixels_and_masks_of_fresh_views_by_hand():
    found = batches(num_views=0, pixels=True, shots=2)[3]
    assert (found.pixels.shape, found.pixels.dtype, found.jpegs) == ((4, 3, 3, 33, 33), torch.float32, {})
    for row in range(4):
        for place, (key, view) in enumerate(found.images[row]):
            number = int(key.removeprefix("key"))
            assert view.aspect == 40 / 30
            squeezed = images.to_bytes(images.decode(jpeg(number)), 33)
            assert torch.equal(found.pixels[row, place], augment.images(squeezed[None], [view])[0])
            labels = augment.square(torch.from_numpy(mask(number)), 33)
            moved = augment.masks(labels[None], [view])[0].numpy() if view.moved else view.mirrored(mask(number))
            if place:
                assert torch.equal(found.support[row, place - 1], grid.cells(moved, 5, True))
            else:
                assert torch.equal(found.truth[row], grid.cells(moved, 9, True))


def test_views_made_later_are_the_same():
    """On a GPU: the batch brings bytes, a quarter of the size."""
    ready, later = (batches(num_views=0, pixels=True, changed=changed)[1] for changed in (True, False))
    assert later.pixels.dtype == torch.uint8
    assert torch.equal(later.truth, ready.truth)
    extractor = Extractor(backbones.build("small"), 33)
    assert torch.equal(bank.batch_pixels(later, extractor, torch.device("cpu")), ready.pixels)


def test_shots_are_read_from_the_tasks():
    found = batches(shots=2)[0]
    assert found.support.shape == (4, 2, 2, 5, 5)
    assert {len(row) for row in found.images} == {3}


def test_a_data_loader_reads_batches():
    loader = torch.utils.data.DataLoader(
        batches(), batch_size=None, sampler=[2, 0], generator=torch.Generator().manual_seed(0)
    )
    second, first = loader
    assert second.images == batches()[2].images
    assert torch.equal(first.truth, batches()[0].truth)
