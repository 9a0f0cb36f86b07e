"""What the images of a group agree on: planted things are found, wrong masks mended, and unfit ones left out."""

import dataclasses

import numpy as np
import pytest
import torch

from fss.labelling.refine import Keys
from fss.labelling.refine.consensus import consensus, fits, refine, salient
from tests.fss.labelling.refine import planted

ALL = Keys(max_border=1.0, max_area=1.0)


def bools(found: list[np.ndarray | None]) -> list[np.ndarray]:
    return [mask >= 0.5 for mask in found if mask is not None]


@pytest.mark.parametrize("kinds", [1, 2])
def test_the_things_that_images_share_are_found(kinds):
    fields, places = planted.group(12, kinds)
    found = refine(fields, Keys())
    assert len(found) == len(fields)
    assert all(mask.dtype == np.float32 and 0 <= mask.min() <= mask.max() <= 1 for mask in found)
    assert min(map(planted.iou, bools(found), places)) > 0.95


def test_they_start_as_cores_inside_of_the_things():
    fields, places = planted.group(12)
    cores = bools(refine(fields, Keys(rounds=0)))
    assert all(np.array_equal(core, salient(field)) for core, field in zip(cores, fields, strict=True))
    assert all(0 < (core & place).sum() == core.sum() for core, place in zip(cores, places, strict=True))
    assert min(map(planted.iou, cores, places)) < 0.7


def test_a_mask_that_fits_without_room_to_spare_does_not_speak():
    fields, places = planted.group(6)
    start = [place.astype(np.float32) for place in places]
    start[0] = np.zeros_like(start[0])
    start[0][1:-1, 1:-1] = np.arange(10) < 8
    assert fits(start[0] >= 0.5, Keys())
    found, alike = consensus(fields, start, Keys())
    without, _ = consensus(fields[1:], start[1:], Keys())
    assert all(map(np.array_equal, found[1:], without))
    assert planted.iou(found[0] >= 0.5, places[0]) > 0.95
    assert alike[0] > 0


def test_a_round_mends_a_mask_by_those_of_the_others():
    fields, places = planted.group(8)
    start = [place.astype(np.float32) for place in places]
    start[3] = np.float32(places[3] & (np.arange(planted.SIDE) < planted.SIDE // 2))
    start[3][:3] = 1
    assert planted.iou(start[3] > 0, places[3]) < 0.6
    found, alike = consensus(fields, start, ALL)
    assert planted.iou(found[3] >= 0.5, places[3]) > 0.95
    assert alike.argmin() == 3


def test_a_mask_of_nothing_stays_and_says_nothing_to_the_others():
    fields, places = planted.group(6)
    start = [place.astype(np.float32) for place in places]
    start[0] = np.zeros_like(start[0])
    found, alike = consensus(fields, start, ALL)
    assert not found[0].any()
    assert alike[0] == -1
    without, _ = consensus(fields[1:], start[1:], ALL)
    assert all(map(np.array_equal, found[1:], without))


def test_small_groups_have_fewer_neighbours():
    fields, places = planted.group(3)
    assert refine([], ALL) == []
    (alone,) = bools(refine(fields[:1], ALL))
    assert np.array_equal(alone, salient(fields[0]))
    assert min(map(planted.iou, bools(refine(fields, ALL)), places)) > 0.9


def test_an_image_is_no_neighbour_of_itself_however_many_are_equal():
    fields, places = planted.group(1)
    other, _ = planted.group(1, seed=1)
    twins = [fields[0]] * 4 + other
    start = [place.astype(np.float32) for place in places * 4] + [np.float32(salient(other[0]))]
    _, alike = consensus(twins, start, dataclasses.replace(ALL, neighbours=2))
    assert np.allclose(alike[:4], 1, atol=1e-5)
    assert alike[4] < 0.9999


def test_what_holds_too_much_of_the_image_or_of_its_border_is_no_thing():
    mask = np.zeros((10, 10), bool)
    assert not fits(mask, ALL)
    mask[:, :5] = True
    assert fits(mask, ALL)
    assert fits(mask, dataclasses.replace(ALL, max_area=0.5))
    assert not fits(mask, dataclasses.replace(ALL, max_area=0.49))
    assert fits(mask, dataclasses.replace(ALL, max_border=0.5))
    assert not fits(mask, dataclasses.replace(ALL, max_border=0.49))


def test_gates_leave_images_out():
    fields, _ = planted.group(6)
    assert refine(fields, Keys(max_area=0.1)) == [None] * 6


def test_the_masks_that_are_kept_are_those_with_the_most_similar_neighbours():
    fields, _ = planted.group(9)
    strange, _ = planted.group(3, kinds=3)
    found = refine([*fields, strange[2]], Keys(keep=0.9))
    assert [mask is not None for mask in found] == [True] * 9 + [False]


def test_the_order_of_the_images_makes_no_difference():
    fields, _ = planted.group(9, kinds=2)
    order = np.random.default_rng(0).permutation(9)
    found, moved = refine(fields, Keys()), refine([fields[i] for i in order], Keys())
    assert all(np.allclose(found[i], mask, atol=1e-5) for i, mask in zip(order, moved, strict=True))


def test_float16_and_a_projection_change_nothing_that_matters():
    fields, _ = planted.group(9, kinds=2)
    turn = torch.linalg.qr(torch.randn(planted.DIMS, planted.DIMS, generator=torch.Generator().manual_seed(0)))[0]
    expected = bools(refine(fields, Keys()))
    for changed in ([field.half() for field in fields], [field @ turn for field in fields]):
        assert min(map(planted.iou, bools(refine(changed, Keys())), expected)) > 0.97
