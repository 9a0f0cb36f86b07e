"""The config command: the resolved configuration as YAML, and what each stage would do; nothing is written."""

import os
import subprocess
import sys

import yaml

from cluster.config import plain
from jobs._config import CONF, load


def test_the_configuration_and_what_each_stage_would_do(tmp_path):
    arguments = ["experiment=tiny", "corpus=folder", f"corpus.root={tmp_path}/größe, 'x' #1", f"root={tmp_path}/runs"]
    arguments += [f"dataset.root={tmp_path}", "backbone.weights=random"]
    command = [sys.executable, "-m", "jobs.config", *arguments]
    done = subprocess.run(command, cwd=CONF.parent, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown, _, stages = done.stdout.partition("\n\n")
    assert yaml.safe_load(shown) == plain(load(arguments))
    assert [line.split()[0] for line in stages.splitlines()] == [
        *("shard", "sample", "kmeans", "label", "quality", "pair", "train", "evaluate"),
    ]
    assert list(tmp_path.iterdir()) == []
