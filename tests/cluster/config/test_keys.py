"""Every key that is checked refuses a wrong value by its name; lists of names agree with what they name."""

import dataclasses
import itertools
import math

import pytest

from cluster.config import Config
from cluster.config import backbone as backbone_keys
from cluster.config import protocol as protocol_keys
from cluster.config import train as train_keys
from cluster.config.build import CHOICES, build, classes, every_key
from cluster.config.export import ExportConfig
from cluster.config.predict import PredictConfig
from cluster.config.ui import UiConfig
from fss import choices, keys
from fss.backbones import padding
from fss.evaluation import episodes
from fss.heads.parts import losses
from fss.imaging import images
from fss.labelling import heatmaps, segments
from fss.labelling.sources import cam, clusters

#: Values of which a rule refuses at least one.
ODD = ("no such thing", -1, 0, 7, 1e9, math.nan, "../x")


def dataclasses_of_keys():
    """Every config dataclass with the name of its group."""
    for field in dataclasses.fields(Config):
        if field.name in CHOICES:
            for name, kind in CHOICES[field.name].classes().items():
                yield f"{field.name}:{name}", kind
        elif dataclasses.is_dataclass(kind := type(getattr(Config(), field.name))):
            yield field.name, kind
    yield "config", Config
    yield "predict", PredictConfig
    yield "export", ExportConfig
    yield "ui", UiConfig


CHECKED = [
    pytest.param(kind, field, id=f"{group}.{field.name}")
    for group, kind in dataclasses_of_keys()
    for field in dataclasses.fields(kind)
    if field.metadata.get("rule")
]


def fails(rule, value):
    try:
        return not rule.holds(value)
    except TypeError:
        return False


@pytest.mark.parametrize(("kind", "field"), CHECKED)
def test_every_rule_refuses_something_and_names_the_key(kind, field):
    rule = field.metadata["rule"]
    odd = next(value for value in ODD if fails(rule, value))
    several = isinstance(getattr(kind(), field.name), list)
    holder = kind(**{field.name: [odd] if several else odd})
    place = f"{field.name}[0]" if several else field.name
    told = [
        problem for problem in keys.problems(holder) if problem.startswith(f"{place}: expected {rule.words()}, got ")
    ]
    assert len(told) == 1


def test_most_keys_are_checked():
    assert len(CHECKED) > 90


@pytest.mark.parametrize(("group", "kind"), list(dataclasses_of_keys()))
def test_defaults_are_right(group, kind):
    assert [problem for problem in keys.problems(kind()) if "heads" not in problem] == []


@pytest.mark.parametrize(("group", "kind"), list(dataclasses_of_keys()))
def test_conditions_are_on_keys_beside_them(group, kind):
    names = {field.name for field in dataclasses.fields(kind)}
    for field in dataclasses.fields(kind):
        assert set(field.metadata.get("when", ())) <= names


def test_names_that_help_lists_without_torch_are_those_of_the_code():
    assert tuple(losses.LOSSES) == train_keys.LOSSES
    assert set(backbone_keys.PADDINGS) == set(padding.MODES)
    assert backbone_keys.INTERPOLATIONS == images.INTERPOLATIONS
    assert protocol_keys.ORDERS == episodes.ORDERS
    assert set(clusters.SEGMENTS) == set(segments.NAMES)
    assert set(clusters.GRADED) == set(segments.GRADED)
    assert (cam.WEIGHTINGS, cam.SCALES) == (heatmaps.WEIGHTINGS, heatmaps.SCALES)


OWN = {  # what a choice says of keys that do not go together
    "cut and pooled": ({"source": {"segments": "none"}}, "source.unit: expected pixels with source.segments=none"),
    "equal granularities": ({"source": {"granularities": [3, 3]}}, "source.granularities: expected different numbers"),
    "no granularities": ({"source": {"granularities": []}}, "source.granularities: expected different numbers"),
    "hierarchy": ({"source": {"hierarchy": [9, 30]}}, "source.hierarchy: expected falling numbers of clusters"),
    "no levels": ({"source": {"levels": []}}, "source.levels: expected at least one of low, mid, high, got none"),
    "no levels of cam": ({"source": {"name": "cam", "levels": []}}, "source.levels: expected at least one of"),
    "areas": ({"pair": {"min_area": 0.9}}, "pair.min_area: expected 0 <= min_area < max_area <= 1, got 0.9, 0.7"),
    "layers": ({"pair": {"layers": [-1]}}, "pair.layers: expected numbers from 0, or null for all layers, got [-1]"),
    "split": (
        {"pair": {"pairing": "mask_split", "split": {"slope": 2.0}}},
        "pair.split.slope: expected a share in [0, 1], got 2.0",
    ),
    "crop": ({"train": {"augment": {"crop": 0.0}, "views": 4}}, "train.augment.crop: expected a share in (0, 1]"),
    "pre-trained ResNet": (
        {"backbone": {"weights": "pretrain"}},
        "backbone.weights: expected backbone=small and a backbone.size that is a multiple of 32 with pretrain, got",
    ),
    "position out of a backbone that learns": (
        {"backbone": {"debias": 0.49, "weights": "random"}, "train": {"tune": ["layer4"], "features": "fresh"}},
        "backbone.debias: expected 0 with train.tune, got 0.49; the directions are those of a backbone that does not",
    ),
    "names without a classifier": (
        {"protocol": {"supports": "names"}},
        "source: expected cam with protocol.supports=names, as it makes masks of names, got clusters; set source=cam",
    ),
    "an unknown source": (
        {"source": {"name": "cluster"}},
        "source.name: expected one of cam, clusters, min",
    ),
    "an unknown pairing": ({"pair": {"pairing": "split"}}, "pair.pairing: expected one of cross_image, mask_split"),
    "an unknown data set": ({"dataset": {"name": "pascal"}}, "got 'pascal'; did you mean 'pascal5i'?"),
    "half of everything": ({"dataset": {"name": "folder", "num_folds": 0}}, "dataset.num_folds: expected at least 1"),
}


@pytest.mark.parametrize(("values", "told"), OWN.values(), ids=OWN)
def test_what_does_not_go_together_is_told(values, told):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        build(values)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "a/../b", "/a", "a//b", "a\nb", "a\0b", "x" * 201, "features", "mlflow.db"]
)
def test_a_name_that_leaves_root_or_lies_on_what_is_there_is_refused(name):
    with pytest.raises(
        ValueError,
        match="name: expected the name of a folder below root, of 200 bytes at most and none of compare, features",
    ):
        build({"name": name})


def test_names_and_numbers_that_are_taken():
    assert [build({"name": name}).name for name in ("a b", "ü", "a/b", ".x", "-1")] == ["a b", "ü", "a/b", ".x", "-1"]
    for values, told in (
        ({"train": {"lr": float("inf")}}, "train.lr: expected a positive number, got inf"),
        ({"seed": 10**99}, "seed: expected a number below"),
    ):
        with pytest.raises(ValueError, match=told):
            build(values)


def test_all_mistakes_are_told_in_one_answer():
    """Unknown, of a wrong type, out of range, of another choice, contradicting: each by its name."""
    values = {
        "sed": 1,
        "source": {"name": "saliency", "maps_kind": "both", "clusters": 3},
        "train": {"steps": "many", "lr": -1, "stepz": 4},
        "dataset": {"name": "fss1000", "split": "all"},
        "pair": {"repeats": 1},
    }
    values["train"]["tasks"] = "stream"
    with pytest.raises(ValueError, match="the configuration cannot work") as error:
        build(values, given={"source.clusters"})
    lines = str(error.value).splitlines()
    wanted = [
        "there is no key 'sed'; did you mean seed",
        "there is no key 'train.stepz'; did you mean train.steps",
        "train.steps: ",
        "train.lr: expected a positive number, got -1",
        "source.clusters: expected it unset with source.name=saliency, where it does nothing",
        "source.maps_kind: expected one of saliency, classes, got 'both'",
        "dataset.split: expected one of train, val, test, got 'all'",
        "pair.repeats: expected null with train.tasks=stream",
    ]
    for text in wanted:
        assert [line for line in lines if text in line], text
    assert len(lines) == len(wanted) + 1


def test_a_configuration_has_the_keys_of_what_is_chosen():
    schema, wrong = classes({"source": {"name": "cam"}, "dataset": {"name": "coco20i"}})
    assert wrong == []
    every = every_key(schema)
    assert {"source.words", "dataset.year", "train.augment.crop", "pair.nearest", "seed"} <= set(every)
    assert not {"source.clusters", "dataset.sbd", "pair.split.slope"} & set(every)
    assert len(every) == len(set(every))


def test_values_have_the_types_of_their_keys():
    config = build({"name": "2024", "train": {"lr": 1}, "pair": {"layers": [1]}, "backbone": {"weights": "random"}})
    assert (config.name, config.train.lr, config.pair.layers) == ("2024", 1.0, [1])
    assert isinstance(config.train.lr, float)


def test_every_choice_can_be_built():
    for group, choice in CHOICES.items():
        for name in choices.names(choice.package):
            config = build({group: {choice.key: name}})
            assert type(getattr(config, group)) is choice.module(name).Keys
    pairs = list(itertools.product(*(choices.names(choice.package) for choice in CHOICES.values())))
    assert len(pairs) >= 40


def test_random_weights_are_taken_only_when_they_are_asked_for():
    with pytest.raises(
        ValueError, match=r"backbone\.weights: expected where the weights of resnet50 come from, got none"
    ):
        build({}).backbone.chosen_weights()
    for weights in ("random", "torchvision", "some/file.pth"):
        assert build({"backbone": {"weights": weights}}).backbone.chosen_weights() == weights
