"""A pipeline without labelled images: all stages but evaluate, and a report on the tasks that were held out."""

import io
import shlex
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cluster.engine import publish
from cluster.engine.run import Run
from cluster.report import summary, unmeasured
from cluster.stages import STAGES
from cluster.train import candidates
from fss import seals
from jobs import predict

NO_LABELS = ("dataset=pascal5i", "dataset.root=null")


@pytest.fixture
def train(tmp_path):
    """What the report reads of a train stage: step 4 of 6 was exported."""
    selection = {"by": "holdout", "step": 4, "holdout_iou": 0.578}
    about = seals.sealed({"format": 2, "facts": {"selection": selection}})
    publish.write_json(tmp_path / "model" / "model.json", about)
    for step in (2, 4, 6):
        candidates.write(tmp_path, step, b"weights", {"holdout_iou": 0.5, "holdout_area_ratio": 1 + step / 100})
    picture = io.BytesIO()
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(picture, "PNG")
    publish.write_bytes(tmp_path / "examples" / "step-00000006.png", picture.getvalue())
    return SimpleNamespace(folder=tmp_path, counts={"steps": 6, "episodes": 24}, stage="train")


def test_the_figures_are_those_of_the_exported_step(train):
    told = unmeasured.text(train)
    assert told.startswith("IoU 57.8 % on held-out pseudo-tasks (step 4 of 6). No label was looked at.")
    assert "dataset.root=FOLDER" in told
    assert [headline.value for headline in unmeasured.headlines(train)] == ["57.8", "1.04", "24"]
    gallery = unmeasured.gallery(train)
    assert [tile.image.size for tile in gallery.tiles] == [(40, 30)]


def test_without_held_out_tasks_it_says_so(train):
    about = seals.sealed({"format": 2, "facts": {"selection": {"by": "last", "step": 6, "holdout_iou": None}}})
    publish.write_json(train.folder / "model" / "model.json", about)
    shutil.rmtree(train.folder / "examples")
    assert unmeasured.text(train).startswith("No task was held out and no labelled images were given")
    assert (unmeasured.headlines(train), unmeasured.gallery(train)) == ([], None)


@pytest.mark.parametrize(
    ("keys", "last"),
    [((), "evaluate"), (NO_LABELS, "train"), ((*NO_LABELS, "model=smoothed"), "evaluate")],
    ids=["labels", "none", "nothing to train"],
)
def test_the_last_stage(configure, tmp_path, keys, last):
    assert summary.stages(Run(configure(tmp_path, *keys), STAGES))[-1] == last


def test_a_run_without_labels_ends_with_its_report(tiny_run, configure, start, tmp_path, photos):
    shutil.copytree(tiny_run.folder, tmp_path / tiny_run.config.name)
    with start(configure(tmp_path, *NO_LABELS)) as run:
        told = summary.conclude(run)
    assert run.fresh == ["quality"]
    assert "on held-out pseudo-tasks (step " in told
    model = run.manifest("train").folder / "model"
    (printed,) = (line for line in told.splitlines() if line.startswith("segment:"))
    predict.predict(predict.COMMAND.load(shlex.split(printed.partition(" -m jobs.predict ")[2])))
    assert len(list((run.folder / "masks").glob("*.png"))) == len(list((photos / "JPEGImages").iterdir()))
    assert f"report:    {run.folder}/report.html" in told
    page = (run.folder / "report.html").read_text()
    for title in ("Training", "Pseudo-labels", "Pseudo-tasks", "Held-out tasks", "Stages", "How to go on"):
        assert f"<h2>{title}</h2>" in page
    assert "<h2>Results</h2>" not in page
    about = publish.read_json(run.folder / "summary.json")
    assert (about["results"], about["model"]) == (None, str(model))
