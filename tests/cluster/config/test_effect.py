"""A key that would do nothing is refused where the user gave it, and left out and named where a preset set it."""

import dataclasses
import logging

import pytest

from cluster.config import Config
from cluster.config.build import CHOICES, build
from cluster.config.compose import CONF, load
from fss import keys

RANDOM = {"weights": "random"}

#: Values under which a key does nothing, its value, the reason, and values under which it acts.
IDLE = {
    "source.maps": ("x", {}, "with source.name=clusters", {"source": {"name": "saliency"}}),
    "source.maps_kind": ("classes", {"source": {"name": "saliency"}}, "without source.maps", {"source": {"maps": "x"}}),
    "source.words": ("x", {}, "with source.name=clusters", {"source": {"name": "cam"}}),
    "source.temperature": (
        0.2,
        {"source": {"name": "cam", "weighting": "paper"}},
        "with source.weighting=paper",
        {"source": {"weighting": "softmax"}},
    ),
    "source.clusters": (9, {"source": {"name": "mining"}}, "with source.name=mining", {"source": {"name": "clusters"}}),
    "source.granularities": (
        [4],
        {"source": {"segments": "none", "unit": "pixels"}},
        "with source.segments=none",
        {"source": {"segments": "ncut"}},
    ),
    "source.points_per_image": (9, {}, "with source.unit=segments", {"source": {"unit": "pixels"}}),
    "refine.rounds": (1, {}, "with refine.name=none", {"refine": {"name": "consensus"}}),
    "refine.dims": (64, {}, "with refine.name=none", {"refine": {"name": "consensus"}}),
    "pair.inside": (
        0.2,
        {"pair": {"balance": "clusters"}},
        "with pair.balance=clusters",
        {"pair": {"balance": "images"}},
    ),
    "pair.split.slope": (0.2, {}, "with pair.pairing=cross_image", {"pair": {"pairing": "mask_split"}}),
    "pair.nearest": (
        0.2,
        {"pair": {"pairing": "mask_split"}},
        "with pair.pairing=mask_split",
        {"pair": {"pairing": "cross_image"}},
    ),
    "pair.sample": (9, {}, "with pair.similarity=exact", {"pair": {"similarity": "sampled"}}),
    "dataset.year": (2014, {}, "with dataset.name=pascal5i", {"dataset": {"name": "coco20i"}}),
    "dataset.num_folds": (2, {}, "with dataset.name=pascal5i", {"dataset": {"name": "folder"}}),
    "dataset.sbd": (
        "x",
        {"dataset": {"name": "scenes"}},
        "with dataset.name=scenes",
        {"dataset": {"name": "pascal5i"}},
    ),
    "dataset.split": (
        "val",
        {"dataset": {"name": "fss1000", "list": "x"}},
        "beside dataset.list=x",
        {"dataset": {"list": None}},
    ),
    "backbone.levels_by": (
        "consistency",
        {"backbone": {"levels": [6, 9, 12]}},
        "beside backbone.levels=[6, 9, 12]",
        {"backbone": {"levels": None}},
    ),
    "corpus.root": ("x", {"corpus": {"kind": "scenes"}}, "with corpus.kind=scenes", {"corpus": {"kind": "folder"}}),
    "corpus.column": ("x", {}, "without corpus.list", {"corpus": {"list": "x"}}),
    "corpus.drivers": ("ftp", {}, "without corpus.list", {"corpus": {"list": "x"}}),
    "corpus.scenes": (9, {}, "with corpus.kind=folder", {"corpus": {"kind": "scenes"}}),
    "corpus.scenes_val": (9, {}, "with corpus.kind=folder", {"dataset": {"name": "scenes"}}),
    "train.sgd_lr": (0.2, {}, "with train.optimizer=adamw", {"train": {"optimizer": "sgd"}}),
    "train.sgd_weight_decay": (0.2, {}, "with train.optimizer=adamw", {"train": {"optimizer": "mixed"}}),
    "train.lr": (0.2, {"train": {"optimizer": "sgd"}}, "with train.optimizer=sgd", {"train": {"optimizer": "mixed"}}),
    "train.ratio": (0.2, {}, "with train.tasks=shards", {"train": {"tasks": "labelled"}, "fold": 0}),
    "train.images": ("x", {}, "with train.tasks=shards", {"source": {"name": "cam"}}),
    "train.views": (
        3,
        {"train": {"features": "fresh"}},
        "with train.features=fresh",
        {"train": {"features": "cached"}},
    ),
    "train.augment.flip": (0.2, {}, "with train.views=2", {"train": {"views": 3}}),
    "train.augment.keep": (
        0.2,
        {"train": {"views": 3}},
        "with train.features=cached",
        {"train": {"features": "fresh"}},
    ),
    "train.tune_factor": (0.2, {}, "without train.tune", {"train": {"tune": ["layer4"], "features": "fresh"}}),
    "train.examples": (2, {"train": {"holdout": 0}}, "without train.holdout", {"train": {"holdout": 8}}),
    "train.unlabelled_run": (
        "x",
        {},
        "without train.unlabelled",
        {"train": {"unlabelled": 1}, "model": {"name": "mining"}},
    ),
    "pretrain.steps": (
        9,
        {},
        "without backbone.weights=pretrain",
        {"backbone": {"weights": "pretrain", "name": "small", "size": 64}},
    ),
    "model.path": ("x", {}, "with model.name=umtfss", {"model": {"name": "trained"}}),
    "protocol.pairs": ("x", {}, "with protocol.order=classes", {"protocol": {"order": "pairs"}}),
    "protocol.tiny_queries": (True, {}, "with protocol.order=classes", {"protocol": {"order": "images"}}),
    "tracking.uri": (
        "x",
        {"tracking": {"enabled": False}},
        "without tracking.enabled",
        {"tracking": {"enabled": True}},
    ),
}


def merged(*several):
    found = {}
    for values in several:
        for name, value in values.items():
            found[name] = merged(found.get(name, {}), value) if isinstance(value, dict) else value
    return found


def nested(name, value):
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def at(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize("name", IDLE)
def test_a_key_that_does_nothing_is_refused_with_its_reason(name):
    value, without, why, _ = IDLE[name]
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        build(merged(without, nested(name, value)), given={name})
    assert f"{name}: expected it unset {why}, where it does nothing; leave it out, or " in str(error.value)


@pytest.mark.parametrize("name", IDLE)
def test_a_preset_may_set_it_which_is_said_and_changes_nothing(name, caplog):
    value, without, why, _ = IDLE[name]
    with caplog.at_level(logging.INFO):
        config = build(merged(without, nested(name, value)))
    assert f"settings of presets that do nothing here: {name} ({why})" in caplog.text
    caplog.clear()
    assert config == build(without)
    assert caplog.text == ""


@pytest.mark.parametrize("name", IDLE)
def test_it_acts_where_the_other_keys_let_it(name, caplog):
    value, without, _, acting = IDLE[name]
    with caplog.at_level(logging.INFO):
        config = build(merged(without, acting, nested(name, value)), given={name})
    assert at(config, name) == value
    assert name not in caplog.text


def test_every_conditional_key_is_in_the_table_or_beside_one_that_is():
    """A condition that nobody tried is not a promise."""
    kinds = {f"{group}.": type(value) for group, value in vars(Config()).items() if dataclasses.is_dataclass(value)}
    conditional = {
        f"{g}{f.name}" for g, kind in kinds.items() for f in dataclasses.fields(kind) if f.metadata.get("when")
    }
    for group, choice in CHOICES.items():
        for kind in choice.classes().values():
            conditional |= {f"{group}.{f.name}" for f in dataclasses.fields(kind) if f.metadata.get("when")}
    assert conditional - set(IDLE) <= {"corpus.list", "train.weight_decay", "tracking.experiment"}


def test_the_whole_group_may_be_given_at_once():
    with pytest.raises(ValueError, match=r"pair\.split\.slope: expected it unset with pair\.pairing=cross_image"):
        build({"pair": {"split": {"slope": 0.2}}}, given={"pair.split"})


@pytest.mark.parametrize("preset", [f"{path.parent.name}={path.stem}" for path in sorted(CONF.glob("*/*.yaml"))])
def test_presets_hold_only_keys_that_act(preset, caplog):
    with caplog.at_level(logging.INFO):
        load([preset])
    assert caplog.text == ""


def test_a_preset_under_another_choice_is_said_in_one_line(caplog):
    with caplog.at_level(logging.INFO):
        config = load(["experiment=photos", "source=saliency"])
    (line,) = caplog.messages
    assert line.startswith("settings of presets that do nothing here: source.clusters (with source.name=saliency), ")
    assert config.source.name == "saliency"
    assert not hasattr(config.source, "clusters")


def test_values_of_the_command_line_win_over_presets():
    with pytest.raises(ValueError, match=r"source\.clusters: expected it unset with source\.name=saliency"):
        load(["experiment=photos", "source=saliency", "source.clusters=7"])
    assert load(["experiment=photos", "source.clusters=7"]).source.clusters == 7
    assert keys.problems(load(["experiment=photos"])) == []


def test_options_of_a_head_that_do_nothing_are_treated_alike(caplog):
    values = {"model": {"name": "sst", "options": {"step": 0.0, "order": "second", "dim": 16}}, "backbone": RANDOM}
    with pytest.raises(ValueError, match=r"model\.options\.order: expected it unset without model\.options\.step"):
        build(values, given={"model.options.order"})
    with caplog.at_level(logging.INFO):
        assert build(values).model.options == {"step": 0.0, "dim": 16}
    assert "do nothing here: model.options.order (without model.options.step)" in caplog.text
