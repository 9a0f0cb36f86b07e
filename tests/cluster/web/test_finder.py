"""Many images at once, of several things, good and bad ones."""

import numpy as np
import pytest

from cluster.web.finder import Asked, Finder, Found, How, Marks, Refused, Support
from fss.imaging.inputs import as_mask
from tests.cluster.web.pictures import DRAWN, IMAGE, MASK, query

HOW = How(threshold=0.5, presence=0.25)


@pytest.fixture
def model(segmenter):
    return Finder(segmenter)


@pytest.fixture
def support(model):
    return model.drawn(IMAGE, Marks(mask=DRAWN))


def test_a_support_is_the_image_and_its_mask_in_plain_numbers(support):
    assert support.image == IMAGE
    np.testing.assert_array_equal(as_mask(support.mask), MASK)


def test_answers_come_in_order_and_a_bad_image_harms_none_beside_it(model, support, segmenter):
    other = Support(IMAGE, model.drawn(IMAGE, Marks(box=[5, 10, 30, 30])).mask)
    asked = [
        Asked("a", query(0), "one", HOW, (support,)),
        Asked("b", query(1), "other", HOW, (other,)),
        Asked("c", b"no image", "one", HOW),
        Asked("d", query(2), "unknown", HOW),
        Asked("e", query(3), "one", HOW._replace(threshold=0.3)),
    ]
    first, second, bad, unknown, last = model.find(asked)
    of_one, of_other = segmenter.prepare([IMAGE], [MASK]), segmenter.prepare([IMAGE], [as_mask(other.mask)])
    np.testing.assert_array_equal(as_mask(first.mask), of_one.segment(query(0)))
    np.testing.assert_array_equal(as_mask(second.mask), of_other.segment(query(1)))
    np.testing.assert_array_equal(as_mask(last.mask), of_one.segment(query(3), 0.3))
    assert [one.row.file.name for one in (first, second, last)] == ["a", "b", "e"]
    assert isinstance(bad, Refused)
    assert bad.why.startswith("c: unreadable")
    assert unknown is None


def test_a_thing_is_made_ready_once_and_the_oldest_are_forgotten(model, support, monkeypatch):
    made = []
    prepare = type(model.segmenter).prepare
    monkeypatch.setattr(type(model.segmenter), "prepare", lambda *arguments: made.append(1) or prepare(*arguments))
    for name in ("first", "first", *map(str, range(16))):
        (answer,) = model.find([Asked("a", query(0), name, HOW, (support,))])
        assert isinstance(answer, Found)
    assert len(made) == 17
    assert model.find([Asked("a", query(0), "first", HOW)]) == [None]
    assert model.find([Asked("a", query(0), "15", HOW)]) != [None]


def test_supports_that_do_not_fit_are_refused_for_every_image(model, support):
    wrong = support._replace(image=query(0))
    answers = model.find([Asked("a", query(0), "wrong", HOW, (wrong,)), Asked("b", query(1), "wrong", HOW, (wrong,))])
    assert [type(one) for one in answers] == [Refused, Refused]


def test_what_is_told_of_the_model(model, segmenter):
    assert model.about["sha256"] == segmenter.about["sha256"]
    assert (model.about["calibrated"], model.about["size"]) == (False, 64)
