"""What keys say of themselves: what they may be, and when they act."""

from dataclasses import dataclass

import pytest

from fss.keys import POSITIVE, SHARE, at_least, idle, key, missing, one_of, problems, up_to


@dataclass
class Below:
    share: float = key(0.5, SHARE)


@dataclass
class Keys:
    kind: str = key("plain", one_of("plain", "fancy", "fanciest"))
    size: int | None = key(None, at_least(2))
    counts: list[int] = key([1, 2], at_least(1))
    rate: float = key(0.1, POSITIVE)
    angle: float = key(0.0, up_to(180), when={"kind": ("fancy", "fanciest")})
    colour: str = key("red", when={"kind": ("fancy",), "size": True})
    fallback: int = key(1, when={"size": False})
    below: Below = key(Below)

    def problems(self) -> list[str]:
        return ["size: expected less, got 99"] if self.size == 99 else []


def test_defaults_are_right_and_never_shared():
    one, other = Keys(), Keys()
    assert problems(one) == []
    one.counts.append(0)
    one.below.share = 2
    assert (other.counts, other.below.share) == ([1, 2], 0.5)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kind": "fency"}, "kind: expected one of plain, fancy, fanciest, got 'fency'; did you mean 'fancy'?"),
        ({"size": 1}, "size: expected at least 2, got 1"),
        ({"size": 99}, "size: expected less, got 99"),
        ({"counts": [3, 0]}, "counts[1]: expected at least 1, got 0"),
        ({"rate": float("nan")}, "rate: expected a positive number, got nan"),
        ({"angle": -1.0}, "angle: expected a number from 0 to 180, got -1.0"),
        ({"below": Below(0)}, "below.share: expected a share in (0, 1], got 0"),
    ],
)
def test_each_wrong_value_is_told(values, told):
    assert problems(Keys(**values)) == [told]


def test_everything_that_is_wrong_is_told_at_once():
    assert len(problems(Keys(kind="x", size=0, rate=-1, below=Below(7)))) == 4


def test_keys_that_do_nothing_say_why_and_what_would_let_them_act():
    assert idle(Keys(kind="fancy", size=3)).keys() == {"fallback"}
    silent = idle(Keys(size=3), "group.")
    assert silent["angle"] == ("with group.kind=plain", "set group.kind=fancy")
    assert silent["fallback"] == ("beside group.size=3", "leave group.size out")
    assert idle(Keys(kind="fancy"))["colour"] == ("without size", "set size")


@dataclass
class Places:
    weights: str | None = key(None, path=("random",))
    images: list[str] = key([], path=True)
    shares: dict[str, float] = key({}, path=True)
    name: str = "nowhere"


@dataclass
class Above:
    places: Places = key(Places)


def test_paths_that_are_not_there_are_told_and_nothing_else_is(tmp_path):
    here = str(tmp_path)
    assert missing(Above()) == []
    sound = Places("random", [here, "s3://bucket/x", f"{here}/{{0..9}}.tar", f"{here}/*.jpg"], {here: 0.5})
    assert missing(Above(sound)) == []
    lost = [f"{here}/{number}" for number in range(4)]
    told = missing(Above(Places(lost[0], [here, lost[1], lost[2]], {lost[3]: 0.5})))
    names = ("places.weights", "places.images", "places.images", "places.shares")
    assert told == [
        f"{name}: expected a file or a folder, there is no {path}; set {name}=PATH"
        for name, path in zip(names, lost, strict=True)
    ]
    assert missing(Places(images=["~/x"])) == [
        "images: expected a file or a folder, there is no ~/x; no shell reads ~ behind =, write $HOME"
    ]
