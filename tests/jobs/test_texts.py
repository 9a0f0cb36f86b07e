"""Values arrive as they were typed: no quoting tricks for text, and the type of a key decides how its text is read."""

import dataclasses
import io
import os
import sys
import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import build, values
from cluster.config.compare import CompareConfig
from cluster.config.help import written
from jobs._config import Command, load, load_keys, run
from jobs.predict import COMMAND as PREDICT

NASTY = [
    "2024_12_01",
    "0123",
    "1e5",
    "nul",
    "true",
    "IMG (1).jpg",
    "[1].jpg",
    "[a,b].jpg",
    "/data/{000..099}.tar",
    "/data/year=2024/month=05",
    "s3://bucket/a//b.jpg?versionId=x&y=z",
    "it's",
    "'quoted'",
    '"quoted"',
    'say "hi"',
    "a, b",
    "a#b # no comment",
    "${oc.env:HOME}",
    "${unclosed",
    "\\${x} \\n",
    " spaces around ",
    "tab\there",
    "größe/写真/фото",
    "key: value",
    "{a: 1}",
    "~/photos",
    "@file",
    "*?.jpg",
    "",
    "=",
    "???.jpg",
]


@pytest.mark.parametrize("text", NASTY)
def test_text_arrives_as_it_stands(text):
    config = load(["corpus=folder", f"root={text}", f"out={text}", f"corpus.root={text}", f"dataset.root={text}"])
    assert [config.root, config.out, config.corpus.root, config.dataset.root] == [text] * 4


@pytest.mark.parametrize("text", NASTY)
def test_images_of_predict_arrive_as_they_stand(text):
    config = PREDICT.load([f"{key}={text}" for key in ("model", "support", "support_mask", "query", "out")])
    assert {config.model, config.support, config.support_mask, config.query, config.out} == {text}


@settings(max_examples=60)
@given(st.text(min_size=1).filter(lambda text: text != "null"))
def test_any_text_arrives(text):
    config = load_keys(CompareConfig, [f"runs=[{text!r}]" if text.isalnum() else "runs=a", f"base={text}"])
    assert config.base == text


@settings(max_examples=300)
@given(st.lists(st.text(alphabet="ab1 [],:{}'\"=é", min_size=1)))
def test_lists_of_texts_with_quotes_around_each(texts):
    """A text in quotes may hold everything but that quote before a comma, colon or bracket."""
    fine = [text for text in texts if "'" not in text]
    assert values.read(f"[{', '.join(map(_quoted, fine))}]", list[str]) == fine
    assert values.read(f"{{{', '.join(f'{_quoted(text)}: 1' for text in fine)}}}", dict[str, int]) == dict.fromkeys(
        fine, 1
    )


def _quoted(text):
    return f"'{text}'"


def test_null_is_none_where_the_type_says_so():
    config = load(["corpus=folder", "corpus.root=null", "name=null", "out=None", "dataset.list="])
    assert config.corpus.root is None
    assert (config.name, config.out, config.dataset.list) == ("null", "None", "")


READ = [
    ("12", int, 12),
    ("1_000", int, 1000),
    ("1e6", int, 1_000_000),
    ("-3", int, -3),
    ("1e-4", float, 1e-4),
    ("3", float, 3.0),
    ("inf", float, float("inf")),
    ("true", bool, True),
    ("Off", bool, False),
    ("null", int | None, None),
    ("7", int | None, 7),
    ("[a, b]", list[str], ["a", "b"]),
    ("[it's,'a,b',\"]\"]", list[str], ["it's", "a,b", "]"]),
    ("[img[1].jpg,{000..009}.tar]", list[str], ["img[1].jpg", "{000..009}.tar"]),
    ("[]", list[int], []),
    ("[1,2e1]", list[int], [1, 20]),
    ("null", list[int] | None, None),
    ("[1]", list[int] | None, [1]),
    ("{a: 0.5, b: 1}", dict[str, float], {"a": 0.5, "b": 1.0}),
    ("{runs/a:0.5,s3://b/c:0.25}", dict[str, float], {"runs/a": 0.5, "s3://b/c": 0.25}),
    ("{'a, b': 1}", dict[str, float], {"a, b": 1.0}),
    ("a.jpg", str | list[str], "a.jpg"),
    ("[a.jpg]", str | list[str], ["a.jpg"]),
    ("[1].jpg", str | list[str], "[1].jpg"),
    ("['[1]']", str | list[str], ["[1]"]),
    ("all", Any, "all"),
    ("0", Any, 0),
    ("1.5", Any, 1.5),
    ("2024_12_01", Any, "2024_12_01"),
    ("[1,5]", Any, [1, 5]),
    ("['1',null,true]", Any, ["1", None, True]),
    ("{levels: [mid, high], dim: 8}", Any, {"levels": ["mid", "high"], "dim": 8}),
]


@pytest.mark.parametrize(("text", "kind", "value"), READ, ids=[f"{text}-{kind}" for text, kind, _ in READ])
def test_the_type_of_a_key_says_how_its_text_is_read(text, kind, value):
    read = values.read(text, kind)
    assert (read, type(read)) == (value, type(value))


REFUSED = [
    ("many", int, "expected a whole number, got 'many'"),
    ("2.5", int, "expected a whole number, got '2.5'"),
    ("", float, "expected a number, got ''"),
    ("perhaps", bool, "expected true or false, got 'perhaps'"),
    ("mid", list[str], r"expected a list \[a,b\], each text, got 'mid'"),
    ("[1,x]", list[int], "expected a whole number, got 'x'"),
    ("[a,,b]", list[str], "expected something before and after each comma"),
    ("[a,b", list[str], r"expected a list \[a,b\]"),
    ("[a[,b]", list[str], "expected brackets in pairs"),
    ("{a}", dict[str, int], "expected key: value, got 'a'"),
    ("x", int | None, "expected a whole number or null, got 'x'"),
]


@pytest.mark.parametrize(("text", "kind", "told"), REFUSED)
def test_text_that_means_no_such_value_is_refused(text, kind, told):
    with pytest.raises(ValueError, match=told):
        values.read(text, kind)


@settings(max_examples=200)
@given(
    st.one_of(
        st.integers(),
        st.floats(allow_nan=False),
        st.booleans(),
        st.none(),
        st.lists(st.integers()),
        st.dictionaries(st.text("abc/", min_size=1), st.floats(allow_nan=False)),
    )
)
def test_help_writes_values_as_they_are_read(value):
    kind = {list: list[int], dict: dict[str, float], type(None): str | None}.get(type(value), type(value))
    assert values.read(written(value), kind) == value


def test_every_key_of_every_choice_can_be_given_its_own_default():
    """There is a rule for the type of every key, and what `--help` shows is what can be typed."""
    for group, choice in build.CHOICES.items():
        for name, kind in choice.classes().items():
            for field in dataclasses.fields(kind):
                value = getattr(kind(), field.name)
                if not dataclasses.is_dataclass(value):
                    read = values.read(written(value), build.types(kind)[field.name])
                    assert read == value, (group, name, field.name)
    for key in build.every_key(build.classes({})[0]):
        kind = build.place(key, build.classes({})[0]).kind
        assert values.describe(kind), key


def test_entries_of_dictionaries_are_set_one_by_one():
    config = load(["model=umtfss", "model.options.dim=8", "protocol.episodes.coco20i=7", "train.mix.runs/a.b=0.5"])
    assert (config.model.options["dim"], config.model.options["heads"]) == (8, 4)
    assert config.protocol.episodes == {"default": 1000, "coco20i": 7}
    assert config.train.mix == {"runs/a.b": 0.5}
    assert load(["model=umtfss", "model.options={dim: 8}"]).model.options == load(["model.options.dim=8"]).model.options


def test_the_last_of_several_values_counts():
    assert load(["seed=1", "+seed=2", "++seed=3"]).seed == 3


def test_values_of_presets_have_their_type_too():
    assert values.fit(3, float) == 3.0
    assert values.fit([1, 2], list[int] | None) == [1, 2]
    assert values.fit(None, str | None) is None
    for value, kind in ((True, int), (1.5, int), ("1", int), (1, str), (None, str), ([1, "a"], list[int])):
        with pytest.raises(ValueError, match="expected"):
            values.fit(value, kind)


def test_what_a_console_cannot_show_is_printed_escaped(monkeypatch):
    """Names of files that are no text, and any name on a console of few letters."""
    console = io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", console)
    monkeypatch.setattr(sys, "argv", ["a job"])
    folder = types.SimpleNamespace(root="here", name="demo")
    run(Command("pipeline", "A job.", reader=lambda _: folder), lambda _: print(os.fsdecode(b"K\xe4fer"), "größe"))
    assert console.buffer.getvalue() == b"K\\udce4fer gr\\xf6\\xdfe\n"
