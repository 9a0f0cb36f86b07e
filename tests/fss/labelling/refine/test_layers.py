"""Label maps of refined masks: the masks by their clusters, segments inside by theirs, and nothing shared."""

import numpy as np

from fss.labelling.refine import Keys
from fss.labelling.refine.layers import layers
from tests.fss.labelling.refine import planted

KEYS = Keys(clusters=2, granularities=[2, 3])


def test_masks_of_one_kind_have_one_label_and_segments_inside_others():
    fields, places = planted.group(10, kinds=2)
    found = layers(places, fields, KEYS, seed=0)
    names = set()
    for number, ((maps, regions), place) in enumerate(zip(found, places, strict=True)):
        assert maps.shape == (3, planted.SIDE, planted.SIDE)
        assert np.array_equal(maps[0] > 0, place)
        names.add((number % 2, int(maps[0].max())))
        assert all(1 <= r.label <= 2 if r.layer == 0 else 3 <= r.label <= 4 for r in regions)
        assert {(r.layer, r.label) for r in regions} <= {(k, int(v)) for k in range(3) for v in np.unique(maps[k])}
    assert sorted(label for _, label in names) == [1, 2]
    assert len({kind for kind, _ in names}) == 2


def test_segments_are_those_of_which_enough_lies_inside():
    fields, places = planted.group(6)
    for maps, regions in layers(places, fields, KEYS, seed=0):
        for r in regions:
            mask = maps[r.layer] == r.label
            assert r.area == mask.mean()
            if r.layer:
                assert (mask & (maps[0] > 0)).sum() >= 0.7 * mask.sum()
        assert {r.layer for r in regions} == {0, 1, 2}


def test_an_image_without_a_mask_has_no_region_and_changes_no_other():
    fields, places = planted.group(6)
    some = [None if number == 2 else place for number, place in enumerate(places)]
    found = layers(some, fields, KEYS, seed=0)
    assert not found[2][0].any()
    assert found[2][1] == []
    rest = [i for i in range(6) if i != 2]
    alone = layers([places[i] for i in rest], [fields[i] for i in rest], KEYS, seed=0)
    assert all(np.array_equal(found[i][0], each[0]) for i, each in zip(rest, alone, strict=True))


def test_without_any_mask_there_is_nothing():
    fields, _ = planted.group(3)
    assert all(not maps.any() and regions == [] for maps, regions in layers([None] * 3, fields, KEYS, seed=0))
    assert layers([], [], KEYS, seed=0) == []


def test_without_granularities_there_are_only_masks():
    fields, places = planted.group(4)
    found = layers(places, fields, Keys(clusters=2, granularities=[]), seed=0)
    assert all(maps.shape[0] == 1 and [r.layer for r in regions] == [0] for maps, regions in found)


def test_it_is_a_function_of_the_seed_and_clusters_have_several_members():
    fields, places = planted.group(9)
    first, second = (layers(places, fields, Keys(clusters=40), seed=7) for _ in range(2))
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    assert max(int(maps[0].max()) for maps, _ in first) == 2
