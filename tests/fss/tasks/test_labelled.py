"""Labelled episodes: nested subsets, held-out images that training never sees, and classes that are really shown."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fss.tasks import labelled

NAMES = tuple(f"2007_{i:06d}" for i in range(5953))


def test_the_counts_of_the_paper():
    """UMTFSS, Tables 2 and 6: 5, 10 and 20 % of 5953 images are 297, 595 and 1190."""
    assert [len(labelled.subset(NAMES, ratio, 0)) for ratio in (0.05, 0.1, 0.2, 1)] == [297, 595, 1190, 5953]
    assert labelled.subset(NAMES, 1, 0) == NAMES


@settings(max_examples=30)
@given(st.lists(st.text(max_size=5), min_size=1, max_size=40, unique=True), st.floats(0.01, 1), st.floats(0.01, 1))
def test_subsets_are_nested_and_depend_on_names_alone(names, one, other):
    small, large = sorted((one, other))
    less, more = (set(labelled.subset(names, ratio, 3)) for ratio in (small, large))
    assert less <= more <= set(names)
    assert less
    assert set(labelled.subset(names[::-1], small, 3)) == less


def test_another_seed_chooses_others():
    assert set(labelled.subset(NAMES, 0.05, 0)) != set(labelled.subset(NAMES, 0.05, 1))


AREAS = {f"n{i:02d}": {1 + i % 3: 100, 4: 5, **({2: 50} if i % 2 else {})} for i in range(40)}


def made(**options):
    chosen = {"shots": 2, "min_area": 50, "held": 6, "seed": 0} | options
    return labelled.episodes(AREAS, (1, 2, 4), **chosen)


def test_episodes_show_their_class_and_never_support_themselves():
    train, held = made()
    assert held.count == 6
    kept = {name for name, _ in held.queries}
    assert len(kept) == 3  # of 33 images with a class: 13 ones with class 3 alone show nothing that is asked for
    for part in (train, held):
        for epoch in range(2):
            for index in range(part.count):
                class_id, query, supports = part.draw(index, epoch)
                assert class_id in (1, 2)  # 4 is too small everywhere, 3 is not asked for
                assert len({query, *supports}) == 3
                assert all(AREAS[name][class_id] >= 50 for name in (query, *supports))
                assert (query in kept) == (part is held)
                assert not kept & set(supports)


def test_every_image_is_a_query_once_an_epoch_and_epochs_differ():
    train, _ = made()
    first, second = ([train.draw(i, epoch) for i in range(train.count)] for epoch in (0, 1))
    assert collections.Counter(query for _, query, _ in first) == {name: 1 for name, _ in train.queries}
    assert first == [train.draw(i, 0) for i in range(train.count)]
    assert first != second
    assert len({train.draw(i, epoch)[0] for i in range(1, 40, 2) for epoch in range(9) if i < train.count}) == 2


def test_without_validation_everything_is_trained_on():
    train, held = made(held=0)
    assert held.count == 0
    assert len(train.queries) == sum(any(found.get(c, 0) >= 50 for c in (1, 2)) for found in AREAS.values())


def test_too_few_images_are_said_with_the_remedies():
    with pytest.raises(ValueError, match=r"50 pixels or more in at least 100 of 40 labelled .* raise train\.ratio"):
        made(shots=99)
    with pytest.raises(ValueError, match="found none"):
        made(min_area=1000)
