"""One run of a command names all its mistakes, in one answer, before any work."""

import importlib
import os
import runpy
import subprocess
import sys

import pytest

from jobs._config import CONF, load
from jobs.compare import COMMAND as COMPARE
from jobs.plan import COMMAND as PLAN
from jobs.predict import COMMAND as PREDICT
from jobs.prepare import COMMAND as PREPARE

JOBS = sorted(path.stem for path in (CONF.parent / "jobs").glob("[a-z]*.py"))


def told(load_arguments, *arguments):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared by the caller
        load_arguments(arguments)
    return str(error.value)


def test_all_kinds_of_mistakes_in_one_answer():
    text = told(
        load,
        *("experiment=tiny", "model=pfenets", "trian.lr=1", "train.steps=many", "train.batch=0", "train.loss=focal"),
        *("source.levels=[mid,top]", "fold=each", "--verbose", "~seed", "corpus"),
    )
    assert text.splitlines()[0] == "the configuration cannot work:"
    for line in (
        "model: expected one of cluster_match, ",
        "there is no key 'trian.lr'; did you mean train.lr, ",
        "train.steps: expected a whole number, got 'many'",
        "train.batch: expected at least 1, got 0",
        "train.loss: expected one of cross_entropy, dice, cross_entropy_dice, got 'focal'",
        "source.levels[1]: expected one of low, mid, high, got 'top'",
        "fold: expected a number from 0 or all, got 'each'",
        "expected key=value or --help, got '--verbose'; write verbose without dashes",
        "expected key=value, got '~seed'; keys are not removed, set seed=null",
        "expected key=value arguments, got 'corpus'",
    ):
        assert f"\n  {line}" in text
    assert len(text.splitlines()) == 1 + 10


def test_a_single_mistake_is_a_single_line():
    (line,) = told(load, "train.stepz=3").splitlines()
    assert line.startswith("there is no key 'train.stepz'; did you mean train.steps, ")


def test_contradictions_that_may_only_follow_from_a_mistake_are_not_told():
    both = ("experiment=tiny", "cluster.train_workers=3")
    assert "train.batch: expected a multiple of cluster.train_workers=3, got 4" in told(load, *both)
    assert told(load, *both, "train.batch=six") == "train.batch: expected a whole number, got 'six'"
    assert told(load, *both, "seed=six") == "seed: expected a whole number, got 'six'"
    text = told(load, *both, "seed=six", "train.batch=7")
    assert "train.batch: expected a multiple of cluster.train_workers=3, got 7" in text
    assert "seed: expected a whole number" in text


def test_paths_that_are_not_there_are_told_beside_mistakes_of_form(tmp_path, monkeypatch):
    """Where workers see other files than this machine nobody can say."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    paths = ("corpus.root", "dataset.root", "backbone.weights", "train.init_from", "train.mix", "episode_list")
    given = [f"{key}={tmp_path}/{key}" for key in paths if key != "train.mix"]
    given += ["experiment=photos", f"train.mix={{{tmp_path}/train.mix: 0.5}}"]
    assert load(given).corpus.root == f"{tmp_path}/corpus.root"
    text = told(load, *given, "trian.lr=1")
    for key in paths:
        assert f"\n  {key}: expected a file or a folder, there is no {tmp_path}/{key}; set {key}=PATH" in text
    assert len(text.splitlines()) == 2 + len(paths)
    assert len(told(load, *given, "trian.lr=1", "cluster.address=auto").splitlines()) == 1
    text = told(PREDICT.load, "modle=m", f"query={tmp_path}/gone", f"support=[{tmp_path},{tmp_path}/lost]")
    assert f"query: expected a file or a folder, there is no {tmp_path}/gone" in text
    assert f"support: expected a file or a folder, there is no {tmp_path}/lost" in text


def test_a_group_of_keys_takes_no_value():
    assert told(load, "train=5") == "train: expected one of its keys and a value, such as tasks, got '5'"
    assert told(load, "seed.x=5") == "seed: expected a whole number, got {'x': '5'}"
    assert told(load, "train.lr.x=5") == "train.lr: expected a number, got {'x': '5'}"


def test_the_name_given_on_the_command_line_says_which_keys_there_are():
    assert load(["corpus=folder", "source.name=saliency", "source.maps=/maps"]).source.maps == "/maps"
    assert "source.maps: expected it unset with source.name=clusters" in told(load, "source.maps=/maps")


def test_predict_names_all_that_is_missing_or_wrong():
    text = told(
        PREDICT.load, "modle=m", "support=[a.jpg,b.jpg]", "support_mask=a.png", "threshold=2", "overwrite=maybe"
    )
    for line in (
        "there is no key 'modle'; did you mean model?",
        "expected a value for model, out, query: give it as key=value",
        "threshold: expected a probability in (0, 1), got 2.0",
        "support_mask: expected one mask for each support, got 1 for 2 supports",
        "overwrite: expected true or false, got 'maybe'",
    ):
        assert f"\n  {line}" in text


def test_predict_names_all_files_that_cannot_be_used(tmp_path):
    from jobs.predict import predict

    (tmp_path / "broken.jpg").write_bytes(b"no image")
    names = {"model": "m", "support": "[a.jpg,broken.jpg]", "support_mask": "[a.png,b.png]", "query": "q", "out": "o"}
    at = {key: value.replace("[", f"[{tmp_path}/").replace(",", f",{tmp_path}/") for key, value in names.items()}
    text = told(lambda arguments: predict(PREDICT.load(arguments)), *(f"{key}={value}" for key, value in at.items()))
    for part in (
        f"support: expected an image at {tmp_path}/a.jpg, there is no",
        f"support: {tmp_path}/broken.jpg: ",
        f"support_mask: expected an image at {tmp_path}/a.png, there is no",
        "b.png, there",
        "query=q",
        "exported model",
    ):
        assert part in text
    assert len(text.splitlines()) == 6


def test_compare_names_all_runs_that_cannot_be_used(tmp_path):
    from jobs.compare import compare

    assert "samples: expected at least 1, got 0" in told(COMPARE.load, "runs=[a,b]", "samples=0", "bsae=a")
    text = told(lambda arguments: compare(COMPARE.load(arguments)), f"runs=[{tmp_path}/A,{tmp_path}/B]")
    assert [f"{tmp_path}/{name} or" in line for name, line in zip("AB", text.splitlines(), strict=True)] == [True] * 2


def test_plan_and_prepare_name_theirs_beside_the_others():
    text = told(PLAN.load, "experiment=tiny", "plan.images=3", "plan.workers=-1", "train.batch=0")
    for key in ("plan.corpus_size: ", "plan.images: ", "plan.workers: ", "train.batch: "):
        assert f"\n  {key}expected" in text
    text = told(PREPARE.load, "dataset=coco20i", "dataset.folds=x")
    assert "dataset.root: expected the folder of coco20i" in text
    assert "dataset.folds: expected" in text


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("arguments", [("out='[1].jpg", "nokey"), ("=",), ("a=${b",), ("-x",), ("\0=\0",)])
def test_no_job_ends_in_a_traceback_of_a_parser(job, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [job, *arguments])
    sys.modules.pop(f"jobs.{job}", None)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"jobs.{job}", run_name="__main__")
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    importlib.import_module(f"jobs.{job}")


def test_exit_status_2_before_any_work(tmp_path):
    command = [sys.executable, "-m", "jobs.pipeline", "experiment=tiny", f"root={tmp_path}/runs", "train.stepz=3"]
    done = subprocess.run(command, cwd=CONF.parent, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: there is no key 'train.stepz'; did you mean train.steps, ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("job", "arguments", "expected"),
    [
        ("prepare", ["dataset=pascal5i", "dataset.root=/nowhere"], "expected the folder of pascal5i, /nowhere is none"),
        ("plan", ["corpus_size=9", "experiment=tiny", "corpus=folder", "corpus.root=/nowhere"], "=/nowhere, there is"),
    ],
)
def test_a_folder_that_is_not_there_is_refused_before_anything_is_made(
    job, arguments, expected, tmp_path, monkeypatch, capsys
):
    """Also where the command's own work finds it, after the configuration was read."""
    monkeypatch.setattr(sys, "argv", [f"jobs.{job}", *arguments, f"root={tmp_path / 'runs'}"])
    monkeypatch.delitem(sys.modules, f"jobs.{job}")
    with pytest.raises(SystemExit) as end:
        runpy.run_module(f"jobs.{job}", run_name="__main__")
    assert end.value.code == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
