"""`.ci/readme.py` reads the README's commands and ranges, and a run's printed tables, as they are."""

import importlib.util
import sys

import pytest

from cluster.evaluate.results import ModelResult, results_table
from tests.docs.pages import blocks, commands
from tests.places import ROOT


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("readme_script", ROOT / ".ci" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture(scope="module")
def page():
    return blocks(ROOT / "README.md")


def test_the_readme_has_what_the_script_does(script, page):
    demo = [line for block in script.section(page, "Try it", "sh") for line in commands(block)]
    own = [line for block in script.section(page, "Your own photos", "sh") for line in commands(block)]
    assert demo == ["make demo", "make ui"]
    assert [line.split()[:3] for line in own[1:]] == [
        [".venv/bin/python", "-m", "jobs.pipeline"],
        [".venv/bin/python", "-m", "jobs.predict"],
    ]
    assert len(script.section(page, "In Python", "python")) == 1


def test_ranges_are_read_from_the_readmes_table(script, page):
    found = script.ranges(page)
    assert {figure for _, figure in found} == {"1-shot mIoU", "5-shot mIoU", "1-shot FB-IoU"}
    assert ("umtfss, meta-trained", "1-shot mIoU") in found
    assert all(0 < low < high < 100 for low, high in found.values())


def test_figures_are_read_from_what_a_run_prints(script):
    text = results_table(
        [
            ModelResult("umtfss, meta-trained", "mIoU", 1, [0.23, 0.25], interval=(0.225, 0.253)),
            ModelResult("umtfss, meta-trained", "mIoU", 5, [0.3, 0.31], spread=0.004, interval=(0.29, 0.32)),
            ModelResult("umtfss, meta-trained", "FB-IoU", 1, [0.5, 0.55], interval=(0.51, 0.54)),
        ]
    )
    assert script.printed(f"evaluate: done\n\n{text}\n\nreport: x") == {
        ("umtfss, meta-trained", "1-shot mIoU"): 24.0,
        ("umtfss, meta-trained", "5-shot mIoU"): 30.5,
        ("umtfss, meta-trained", "1-shot FB-IoU"): 52.5,
    }
