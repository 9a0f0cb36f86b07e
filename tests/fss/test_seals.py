"""What is sealed comes back as it was, or not at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fss.seals import seal, sealed, unseal, unsealed

VALUE = {"step": 400, "figures": {"iou": 0.25, "odd": [1, None, "ü"]}, "by": {3: "three"}}


@given(st.binary(max_size=200), st.data())
def test_bytes_with_one_bit_flipped_or_cut_are_refused(content, data):
    whole = seal(content)
    assert unseal(whole) == content
    place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(whole)
    flipped[place] ^= 1 << bit
    assert unseal(bytes(flipped)) is None
    assert unseal(whole[:place]) is None


def test_a_value_comes_back_as_json_keeps_it():
    assert unsealed(json.dumps(sealed(VALUE), indent=2)) == {**VALUE, "by": {"3": "three"}}
    assert unsealed(json.dumps(sealed(sealed(VALUE)))) == {**VALUE, "by": {"3": "three"}}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("400", "800"),
        lambda text: text.replace("0.25", "0.35"),
        lambda text: text[:-1],
        lambda text: "",
        lambda text: "[]",
        lambda text: json.dumps(VALUE | {"by": {}}),
        lambda text: b"\xff\xfe",
    ],
)
def test_a_value_that_was_changed_or_never_sealed_is_refused(change):
    text = json.dumps(sealed(VALUE))
    assert change(text) != text
    assert unsealed(change(text)) is None
