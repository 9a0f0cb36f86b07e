"""A new source and a new data set are one module and one preset each: no list is edited, and the commands take them."""

import json
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from tests.places import ROOT

SOURCE = '''
"""Source `bands`: lying bands of equal height, whatever the image shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fss.keys import at_least, key
from fss.labelling.sources import Block, Maps, SourceKeys


@dataclass
class Keys(SourceKeys):
    """Bands of images."""

    name: str = "bands"
    bands: int = key(4, at_least(2))
    """How many."""


@dataclass(frozen=True)
class BandLabeller:
    """Labels pixels by their band, from 1."""

    bands: int

    def maps(self, block: Block) -> list[Maps]:
        """See `fss.labelling.sources.Labeller`."""
        from fss.labelling import pseudo

        found = []
        for photo, field in zip(block.photos, block.fields, strict=True):
            cells = self.of(field.shape[0], field.shape[1])
            found.append((self.of(*photo.size)[None].astype(np.uint16), pseudo.regions(cells[None], field, first=1)))
        return found

    def of(self, height: int, width: int) -> np.ndarray:
        """(height, width) int64 bands."""
        return np.repeat(np.arange(height)[:, None] * self.bands // height + 1, width, axis=1)


def labeller(keys: Keys) -> BandLabeller:
    """What labels images."""
    return BandLabeller(keys.bands)
'''

DATASET = '''
"""Data set `beside`: NAME.jpg and its mask NAME.png in one folder, the classes in classes.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fss.datasets import Dataset, DatasetKeys
from fss.datasets.parts import files
from fss.keys import at_least, key


@dataclass
class Keys(DatasetKeys):
    """Images beside their masks."""

    name: str = "beside"
    parts: int = key(1, at_least(1))
    """Folds."""


def dataset(root: str, list_file: str | None = None, parts: int = 1) -> Dataset:
    """All images of the folder, or those of a list."""
    base = Path(root)
    classes = tuple(json.loads((base / "classes.json").read_text()))
    names = files.read_list(base, list_file) if list_file else sorted(path.stem for path in base.glob("*.jpg"))
    return Dataset(
        names=tuple(names),
        class_names=classes,
        folds=files.equal_folds(len(classes), parts),
        path=lambda name: base / f"{name}.jpg",
        read_mask=lambda name: files.read_mask(base / f"{name}.png"),
    )
'''

ADDED = {
    "fss/labelling/sources/bands.py": SOURCE,
    "conf/source/bands.yaml": "name: bands\n",
    "fss/datasets/beside.py": DATASET,
    "conf/dataset/beside.yaml": "name: beside\nmin_area: 60\n",
}
SMALL = [
    "experiment=tiny",
    "backbone.weights=random",
    "corpus=folder",
    "corpus.shard_size=40",
    "tracking.enabled=false",
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the code with the four files."""
    folder = tmp_path_factory.mktemp("tree")
    for room in ("fss", "cluster", "jobs", "conf"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in ADDED.items():
        (folder / name).write_text(text.lstrip())
    return folder


def run(tree, job, *arguments):
    command = [sys.executable, "-m", f"jobs.{job}", *SMALL, *arguments]
    done = subprocess.run(command, cwd=tree, env=os.environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_new_source_labels_images(tree, photos, tmp_path):
    wanted = [f"corpus.root={photos}/JPEGImages", "source=bands", "source.bands=3", f"root={tmp_path}"]
    status, told = run(tree, "label", *wanted)
    assert status == 0, told
    manifest = json.loads((tmp_path / "tiny/label/manifest.json").read_text())
    assert manifest["counts"]["regions"] == 3 * 36
    (table,) = tmp_path.glob("tiny/label/*/*.regions.parquet")
    assert set(pq.read_table(table)["label"].to_pylist()) == {1, 2, 3}


def test_a_new_data_set_is_measured_on(tree, photos, tmp_path):
    folder = tmp_path / "beside"
    folder.mkdir()
    shutil.copy(photos / "classes.json", folder)
    for mask in (photos / "SegmentationClass").glob("*.png"):
        shutil.copy(mask, folder)
        shutil.copy(photos / "JPEGImages" / f"{mask.stem}.jpg", folder)
    wanted = ["model=prototype", "dataset=beside", f"dataset.root={folder}", "dataset.parts=4", "fold=3", "shots=1"]
    status, told = run(tree, "evaluate", *wanted, "episodes=4", f"root={tmp_path}/runs", f"out={tmp_path}/out")
    assert status == 0, told
    figures = json.loads((tmp_path / "out/metrics.json").read_text())
    assert figures["dataset"]["name"] == "beside"


def test_their_keys_are_checked_like_all_others(tree, tmp_path):
    wrong = {
        "source.bands=1": "source.bands: expected at least 2, got 1",
        "source.clusters=9": "source.clusters: expected it unset with source.name=bands, where it does nothing",
        "dataset.parts=0": "dataset.parts: expected at least 1, got 0",
        "dataset.year=2014": "dataset.year: expected it unset with dataset.name=beside, where it does nothing",
    }
    status, told = run(tree, "label", "source=bands", "dataset=beside", f"root={tmp_path}", *wrong)
    assert status == 2, told
    for text in wrong.values():
        assert text in told
    assert list(tmp_path.iterdir()) == []
