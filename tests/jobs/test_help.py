"""`--help` of every job, of keys and of groups: complete, true, and without what takes seconds to import."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest

from cluster.config import Config, build, help
from cluster.config.help import Command, answer
from jobs._config import CONF
from jobs.compare import COMMAND as COMPARE
from jobs.predict import COMMAND as PREDICT
from jobs.prepare import COMMAND as PREPARE

JOBS = sorted(path.stem for path in (CONF.parent / "jobs").glob("[a-z]*.py"))

#: Asks every job for help, makes mistakes of form and value, then says which libraries have been imported.
ASK = """
import contextlib, io, runpy, sys

def ends(job, *arguments):
    sys.argv = [job, *arguments]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            runpy.run_module(f"jobs.{job}", run_name="__main__")
        except SystemExit as end:
            return end.code
    return 0

for job in sys.argv[1].split(","):
    key = {"ui": "root", "serve": "port", "push": "to"}.get(job, "out")
    assert ends(job, "--help") == ends(job, "--help", key) == 0, job
    assert ends(job, "nokey=1", "out", "--x") == 2, job
assert ends("pipeline", "experiment=tiny", "train.batch=0") == 2
assert ends("plan", "experiment=tiny", "corpus_size=-1") == 2
assert ends("sync", "root=/nowhere") == 2
print(*[name for name in ("torch", "ray", "mlflow", "deepspeed", "faiss", "sklearn", "scipy") if name in sys.modules])
"""


def command(job):
    """The command of a job as its module describes it."""
    module = importlib.import_module(f"jobs.{job}")
    return getattr(module, "COMMAND", None) or Command(job, module.__doc__, module.KEYS)


def test_help_and_mistakes_import_nothing_that_takes_seconds():
    done = subprocess.run(
        [sys.executable, "-c", ASK, ",".join(JOBS)], cwd=CONF.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("job", JOBS)
def test_every_job_says_what_it_does_its_keys_and_presets(job):
    one = command(job)
    text = answer(one, ["--help"])
    assert one.name == job
    assert text.startswith(one.text.strip().splitlines()[0])
    assert len(re.findall(rf"^    {re.escape(help.python())} -m jobs\.{job} ", text, re.MULTILINE)) >= 2, "two examples"
    assert len(one.keys) >= 3
    for key in one.keys:
        assert re.search(rf"^  {re.escape(key)}=", text, re.MULTILINE), key
    assert max(map(len, text.splitlines())) <= 120
    if job not in {"predict", "export", "ui", "compare", "serve", "push"}:
        for preset in ("experiment=demo, ", "model=cluster_match, ", "backbone="):
            assert f"\n  {preset}" in text


@pytest.mark.parametrize("job", sorted(set(JOBS) - {"predict", "compare"}))
def test_the_examples_of_help_are_right(job, tmp_path):
    """Each is read by the command itself; capitals stand for a user's own files."""
    one = command(job)
    text = one.text.replace("\\\n", " ")
    examples = re.findall(rf"^    python -m jobs\.{job} (.*?)(?:  +#.*)?$", text, re.MULTILINE)
    assert examples
    for line in examples:
        arguments = [re.sub(r"^model=FOLDER$", f"model={tmp_path}", one) for one in shlex.split(line)]
        one.load(arguments)


def test_examples_name_the_python_that_runs_as_it_is_called_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for executable, path, called in (
        (tmp_path / ".venv/bin/python", "/usr/bin", ".venv/bin/python"),
        (tmp_path.parent / "bin/python", tmp_path.parent / "bin", "python"),
        (tmp_path.parent / "bin/python", "/usr/bin", str(tmp_path.parent / "bin/python")),
        (tmp_path.parent / "my venv/bin/python", "/usr/bin", f"'{tmp_path.parent}/my venv/bin/python'"),
    ):
        executable.parent.mkdir(parents=True, exist_ok=True)
        executable.touch(mode=0o755)
        monkeypatch.setattr(sys, "executable", str(executable))
        monkeypatch.setenv("PATH", str(path))
        assert f"\n    {called} -m jobs.predict " in answer(PREDICT, ["--help"])
    assert "Command: python -m" not in answer(PREPARE, ["--help", "experiment"])


def test_a_key_with_its_meaning_default_and_choices():
    text = answer(PREPARE, ["--help", "train.optimizer"])
    assert text.splitlines() == [
        "train.optimizer=adamw by default",
        "  `adamw`, `sgd`, or `mixed` = AdamW for the head's transformers and SGD for the rest, in one step.",
        "  one of adamw, sgd, mixed",
    ]
    assert "acts with train.optimizer sgd or mixed" in answer(PREPARE, ["--help=train.sgd_lr"])
    assert answer(PREPARE, ["experiment=demo", "--help", "train.steps"]).startswith("train.steps=200 by default")
    assert answer(PREDICT, ["--help", "out"]).splitlines() == [
        "out",
        "  Folder that masks, overlays, tables and the contact sheet are written into.",
        "  text",
    ]


def test_a_key_of_another_choice_can_be_asked_for():
    assert "Folder of maps named as the images" in answer(PREPARE, ["--help", "source.maps"])
    assert "train, val or test" in answer(PREPARE, ["--help", "dataset.split"])


def test_a_group_with_its_keys_and_presets():
    text = answer(PREPARE, ["--help", "source"])
    for part in (
        "  source.clusters=40\n",
        "Presets, as in source=",
        "  saliency\n      The salient part of every image",
    ):
        assert part in text
    assert "  source.maps=null\n" in answer(PREPARE, ["source=saliency", "--help", "source"])
    assert "  pair.nearest=0.5\n" in answer(PREPARE, ["--help", "pair"])
    text = answer(PREPARE, ["--help", "experiment"])
    assert "  tiny\n      Every stage on a handful of scenes" in text
    assert f"Command: {help.python()} -m jobs.pipeline experiment=tiny" in text


def test_help_on_what_is_not_there_names_what_is_near():
    for topic, near in (("train.stepz", "train.steps"), ("sourze", "source")):
        with pytest.raises(ValueError, match=rf"there is no key '{topic}'; did you mean .*\b{near}\b"):
            answer(PREPARE, ["--help", topic])


def test_every_key_has_a_meaning():
    """The text below its field, in the class that defines it or in one that it extends."""
    kinds = [Config, *(kind for choice in build.CHOICES.values() for kind in choice.classes().values())]
    keys = [key for kind in [*kinds, PREDICT.schema, COMPARE.schema] for key in help._keys(kind())]
    assert len(keys) > 150
    assert [f"{key.owner.__module__}: {key.name}" for key in keys if not key.text] == []
