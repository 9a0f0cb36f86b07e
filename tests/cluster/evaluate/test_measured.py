"""What readers get of an evaluation: figures that fit the published schema, tables and pictures that say the same."""

import io
import itertools
import json

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from cluster.engine.session import ROOT
from cluster.evaluate import figures, measured
from cluster.evaluate.measure import SCHEMA
from cluster.evaluate.results import results_table
from fss.datasets import Dataset
from fss.evaluation.metrics import FIELDS, MODEL

NAMES = ("cat", "dog_s", "cow & calf", "sheep")


def dataset() -> Dataset:
    return Dataset(names=(), class_names=NAMES, folds=((1, 2), (3, 4)), path=lambda n: ROOT, read_mask=lambda n: None)


def table(models=("floor", "net, meta-trained"), shots=(1, 5), seeds=(0, 1), ways=1) -> pa.Table:
    """Ten episodes a list; the second model is right twice as often."""
    random = np.random.default_rng(0)
    lists = itertools.product(enumerate(models, 1), (0, 1), shots, seeds, range(10), range(ways))
    rows = []
    for (quality, model), fold, k, seed, episode, way in lists:
        both = int(random.integers(1, 20)) * quality
        counts = (both, 60, *((900, 920) if way == 0 else (0, 0)), both + 5, 55)
        place = {"fold": fold, "shots": k, "ways": ways, "seed": seed, "episode": episode, "way": way}
        about = {"class_id": 2 * fold + (episode + way) % 2 + 1, "query": "q", "supports": ["s"] * k}
        names = {f"{prefix}{name}": n for prefix in ("", MODEL) for name, n in zip(FIELDS, counts, strict=True)}
        rows.append({"model": model, **place, **about, **names})
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def content(rows: pa.Table, headline="miou", **more):
    """metrics.json of `rows`."""
    protocol = {
        "name": "ours",
        "order": "classes",
        "tiny_queries": False,
        "supports": "masks",
        "support_iou": None,
        "headline": headline,
        "model_resolution": 400,
    }
    protocol |= {key: sorted(set(rows[key].to_pylist())) for key in ("ways", "seed")}
    protocol["seeds"] = protocol.pop("seed")
    return {
        "format": 2,
        "dataset": {"name": "folder", "images": 20, "folds": 2, "min_area": 10},
        "protocol": protocol | {"episodes": 80},
        "episodes_sha256": "0" * 64,
        "selection": {"by": "holdout", "step": 300, "holdout_iou": 0.5},
        "left_out": {"5": ["sheep"]},
        "class_names": {str(i): name for i, name in enumerate(NAMES, 1)},
        "models": figures.summary(rows, dataset()),
    } | more


@pytest.fixture(scope="module")
def found():
    return content(table())


@pytest.mark.parametrize("options", [{}, {"seeds": (3,)}, {"ways": 2}, {"shots": (2,), "models": ("alone",)}])
def test_metrics_json_fits_its_schema(options):
    schema = json.loads((ROOT / "docs/metrics.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    value = json.loads(json.dumps(content(table(**options))))
    jsonschema.validate(value, schema)
    del value["models"]["alone" if "models" in options else "floor"]["2" if "shots" in options else "1"]["interval"]
    with pytest.raises(jsonschema.ValidationError, match="'interval' is a required property"):
        jsonschema.validate(value, schema)


def test_tables_hold_the_figures(found):
    made = {name: data.decode() for name, data in measured.files(found).items() if not name.endswith("png")}
    mean = found["models"]["net, meta-trained"]["1"]
    low, high = mean["interval"]["miou"]
    cell = f"{100 * mean['mean']['miou']:.1f} ± {100 * mean['spread']['miou']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    assert cell in made["table.md"]
    assert "selected on held-out pseudo-tasks, without labels (step 300)" in made["table.md"]
    assert "5-shot: left out for want of images: sheep" in made["table.md"]
    assert made["table.tex"].count(r"\begin{tabular}") == made["table.tex"].count(r"\end{tabular}") == 2
    iou = found["models"]["floor"]["1"]["folds"]["1"]["classes"]["cow & calf"]["iou"]
    (line,) = [line for line in made["classes.md"].splitlines() if line.startswith("| cow & calf")]
    assert line.split("|")[2].strip() == f"{100 * iou:.1f}"


def test_a_protocol_shows_its_own_figure_first():
    shown = measured.results(content(table(), headline="model_resolution.miou_episode_mean"))
    assert list(dict.fromkeys(r.metric for r in shown)) == ["episode-mean mIoU at 400 px", "mIoU", "FB-IoU"]
    several = measured.results(content(table(ways=2)))
    assert list(dict.fromkeys(r.metric for r in several)) == ["mIoU", "mIoU with background"]
    assert {r.protocol for r in several} == {"2-way 1-shot", "2-way 5-shot"}


def test_one_fold_of_several_is_named():
    rows = table()
    shown = measured.results(content(rows.filter(pc.equal(rows["fold"], 1))))
    assert {tuple(r.numbers) for r in shown} == {(1,)}
    assert "fold 1" in results_table(shown)
    whole = {"name": "fss1000", "images": 20, "folds": 1, "min_area": 1}
    assert "all classes" in results_table(
        measured.results(content(rows.filter(pc.equal(rows["fold"], 0)), dataset=whole))
    )


def test_selection_on_labels_is_said(found):
    told = measured.notes_on(found | {"selection": {"by": "test_classes", "steps": {"fold 0, 1-shot": 100}}})
    assert "the trained model was selected on test classes (step fold 0, 1-shot: 100)" in told
    assert not any("selected" in note for note in measured.notes_on(found | {"selection": {}}))


def test_bars_are_a_picture_with_a_row_for_each_class(found):
    few = Image.open(io.BytesIO(measured.bars({"a": {"x": 0.5}, "b": {"x": 0.25}})))
    many = Image.open(io.BytesIO(measured.bars(measured.class_scores(found))))
    assert many.height > few.height
    colours = np.asarray(few.convert("RGB")).reshape(-1, 3)
    bar = (colours == (0x9E, 0xCA, 0xE1)).all(axis=1).sum()
    wider = np.asarray(Image.open(io.BytesIO(measured.bars({"b": {"x": 0.5}}))).convert("RGB")).reshape(-1, 3)
    assert (wider == (0x9E, 0xCA, 0xE1)).all(axis=1).sum() == pytest.approx(2 * bar, rel=0.2)
