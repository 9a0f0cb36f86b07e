"""Keys of heads: what is given takes the place of defaults, and every mistake is named at once."""

import dataclasses
import inspect
import re

import pytest

from fss import heads
from fss.heads.parts.options import read

CHANNELS = {"low": 8, "mid": 8, "high": 8}


def refused(name: str, **options: object) -> str:
    """What `build` says."""
    with pytest.raises(ValueError, match=f"model {name} cannot have these options:") as caught:
        heads.build(name, options, CHANNELS, corners=True)
    return str(caught.value)


def test_unknown_heads_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"model: expected one of .*umtfss, got 'umtfs'; did you mean 'umtfss'"):
        heads.build("umtfs", {}, CHANNELS, corners=True)


def test_all_mistakes_are_named_at_once():
    told = refused("panet", dims=3, levels=["mid", "deep"], align="much", project=1)
    names = "residual, by_shots, otsu, own, levels, dim, project, align"
    assert told.splitlines()[1:] == [
        f"  model.options.dims: expected one of {names}, got an unknown key; did you mean 'dim'?",
        "  model.options.project: expected true or false, got 1",
        "  model.options.align: expected a number, got 'much'",
        "  model.options.levels[1]: expected one of low, mid, high, got 'deep'",
    ]


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("nearest", {"k": 0}, "k: expected at least 1, got 0"),
        ("nearest", {"levels": []}, "levels: expected a list of one or more, each text, got []"),
        ("nearest", {"levels": "mid"}, "levels: expected a list of one or more, each text, got 'mid'"),
        ("segments", {"tau": 1.5}, "tau: expected a share in [0, 1], got 1.5"),
        (
            "smoothed",
            {"residual": "prototype"},
            "residual: expected one of levels, steps, scale, otsu, got an unknown key",
        ),
        ("correlation", {"residual": True}, "residual: expected text, got True"),
        (
            "correlation",
            {"residual": "nearest"},
            "residual: expected one of none, corpus_readout, prototype, smoothed, got",
        ),
        ("correlation", {"dim": 6}, "dim: expected a multiple of 4, got 6"),
        ("masksplit", {"dim": 48}, "dim: expected a multiple of 32, got 48"),
        ("masksplit", {"shots": "mean"}, "shots: expected one of prototypes, logits, got 'mean'"),
        ("pfenet", {"bins": []}, "bins: expected a list of one or more, each a number, got []"),
        ("pfenet", {"bins": [1.0, 2]}, "bins[1]: expected a share in (0, 1], got 2.0"),
        ("sst", {"order": "third"}, "order: expected one of first, second, got 'third'"),
        ("pixel_meta", {"asked": "some"}, "asked: expected one of all, drawn, got 'some'"),
        ("mining", {"mine": -1}, "mine: expected a number from 0, got -1.0"),
        ("mining", {"width": 12}, "width: expected a multiple of 8, got 12"),
        ("cyctr", {"dim": 16, "heads": 3}, "dim: expected a multiple of heads=3, got 16"),
        ("cyctr", {"heads": 0}, "heads: expected at least 1, got 0"),
        ("umtfss", {"variant": "publish"}, "variant: expected one of ours, paper, released, got 'publish'"),
        ("umtfss", {"dim": 24, "heads": 5}, "dim: expected a multiple of heads=5, got 24"),
        ("umtfss", {"foreground_prototypes": 0}, "foreground_prototypes: expected at least 1, got 0"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_named(name, options, told):
    assert f"\n  model.options.{told}" in refused(name, **options)


@pytest.mark.parametrize("name", heads.names())
def test_every_key_has_a_default_that_can_be_and_a_meaning(name):
    options, wrong = heads.read_options(name, {})
    assert wrong == []
    source = "\n".join(inspect.getsource(kind) for kind in type(options).__mro__[:-1])
    for field in dataclasses.fields(options):
        assert re.search(rf'^    {field.name}: [^\n]*\n    """', source, re.M), field.name
    assert heads.read_options(name, dataclasses.asdict(options))[0] == options


def test_keys_that_do_nothing_beside_the_others_are_known():
    silent = heads.idle_options("sst", {"step": 0, "order": "second", "fusion": "mean"})
    assert silent == {"order": ("without model.options.step", "set model.options.step")}
    assert heads.idle_options("sst", {"order": "second"}) == {}
    assert heads.idle_options("cyctr", {"self_attention": "dense"}) == {}
    assert list(heads.idle_options("cyctr", {"self_attention": "dense", "points": 4})) == ["points"]
    assert list(heads.idle_options("cyctr", {"by_shots": True})) == ["by_shots"]
    assert list(heads.idle_options("cyctr", {"otsu": 0.5})) == ["otsu"]
    assert list(heads.idle_options("cyctr", {"own": 0.5})) == ["own"]
    assert heads.idle_options("cyctr", {"by_shots": True, "otsu": 0.5, "own": 0.5, "residual": "smoothed"}) == {}


def test_numbers_and_lists_become_what_the_fields_are():
    options, wrong = heads.read_options("pfenet", {"dropout": 0, "bins": [1, 0.5]})
    assert wrong == []
    assert (options.dropout, options.bins) == (0.0, (1.0, 0.5))
    assert type(options.dropout) is float


def test_a_variant_sets_what_is_not_given():
    from fss.heads.umtfss import Options

    paper, _ = read(Options, {"variant": "paper"})
    released, _ = read(Options, {"variant": "released", "blocks": 3, "marker": True})
    assert (paper.foreground_prototypes, paper.background_prototypes) == (50, 100)
    assert (released.foreground_prototypes, released.background_prototypes) == (20, 50)
    assert (paper.unit_prototypes, released.unit_prototypes) == (False, True)
    assert (paper.dim, paper.heads, paper.blocks, paper.dropout) == (256, 8, 2, 0.1)
    assert (paper.marker, paper.maps, released.maps) == (False, False, False)
    assert (released.blocks, released.marker) == (3, True)
    assert read(Options, {})[0].marker
