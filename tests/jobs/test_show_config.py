"""The config command: the resolved configuration as YAML, what each stage would do, and what a run would refuse."""

import os
import subprocess
import sys

import pytest
import yaml

from cluster.config import plain
from jobs._config import CONF, load
from jobs.config import show

STAGES = ["shard", "sample", "kmeans", "label", "quality", "pair", "train", "evaluate"]


def told(output):
    """The configuration that was printed, and the names of the stages below."""
    shown, _, stages = output.partition("\n\n")
    return yaml.safe_load(shown), [line.split()[0] for line in stages.splitlines()]


def test_the_configuration_and_what_each_stage_would_do(photos, tmp_path):
    corpus = tmp_path / "größe, 'x' #1"
    corpus.symlink_to(photos / "JPEGImages")
    arguments = ["experiment=tiny", "corpus=folder", f"corpus.root={corpus}", f"root={tmp_path}/runs"]
    arguments += [f"dataset.root={photos}", "fold=0", "backbone.weights=random"]
    command = [sys.executable, "-m", "jobs.config", *arguments]
    done = subprocess.run(command, cwd=CONF.parent, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert told(done.stdout) == (plain(load(arguments)), STAGES)
    assert list(tmp_path.iterdir()) == [corpus]


def test_all_that_a_run_would_refuse_is_told_after_them(tmp_path, capsys):
    paths = {"corpus.root": "corpus", "dataset.root": "data", "backbone.weights": "w.pth"}
    wrong = [f"{key}={tmp_path}/{name}" for key, name in paths.items()]
    config = load(["experiment=tiny", "corpus=folder", "dataset=pascal5i", f"root={tmp_path}/runs", *wrong])
    with pytest.raises(ValueError, match="this cannot work, nothing was started:") as error:
        show(config)
    _, *lines = str(error.value).splitlines()
    assert all(any(f"{tmp_path}/{name}" in line for line in lines) for name in paths.values())
    assert told(capsys.readouterr().out) == (plain(config), STAGES)
    assert list(tmp_path.iterdir()) == []
