"""HSNet's own episodes in an evaluation: its lists are found, read, hashed, and looked at before any work."""

from pathlib import Path

import numpy as np
import pytest

from cluster.evaluate import pairs
from cluster.evaluate.settings import check, settings
from fss.datasets import Dataset
from jobs._config import load

DATASET = Dataset(
    tuple("abcd"), ("ant", "bee", "cat", "dog"), ((1, 2), (3, 4)), Path, lambda _: np.zeros((1, 1), np.uint8)
)
FOLDS = {"fold0.txt": "a__01\nb__01\nc__02\nd__02\n", "fold1.txt": "a__03\nc__03\n"}


@pytest.fixture
def folder(tmp_path):
    for name, text in FOLDS.items():
        (tmp_path / name).write_text(text)
    return str(tmp_path)


def items(folder, folds=(0, 1)):
    return pairs.items(folder, DATASET, folds=folds, shots=(1, 3), seeds=(0,), count=5)


def test_each_fold_walks_its_own_list(folder):
    drawn = items(folder)
    assert [(item.fold, item.shots) for item in drawn[::5]] == [(0, 1), (0, 3), (1, 1), (1, 3)]
    assert [(item.episode.query, item.episode.ways[0].class_id) for item in drawn[:5]] == [
        ("a", 1), ("b", 1), ("c", 2), ("d", 2), ("a", 1)
    ]  # fmt: skip
    assert [item.episode.ways[0].supports for item in drawn[5:7]] == [("b",) * 3, ("a",) * 3]


def test_lists_that_are_missing_or_name_other_images_are_told(folder):
    with pytest.raises(
        ValueError, match=r"^protocol\.pairs: expected a folder with HSNet's fold2\.txt, got .*; set it"
    ):
        items(folder, folds=(2,))
    (Path(folder) / "fold1.txt").write_text("x__03\nc__03\n")
    with pytest.raises(
        ValueError, match=r"^protocol\.pairs: episode 0 of fold 1, .*no image x; .*all of VOC2012's val"
    ):
        items(folder)
    (Path(folder) / "fold1.txt").write_text("no list")
    with pytest.raises(ValueError, match=r"fold1\.txt: expected lines NAME__CLASS .*; take HSNet's own file"):
        items(folder)


def test_the_lists_shape_an_evaluation_and_their_place_does_not(folder, tmp_path_factory):
    assert pairs.hashes(None) is None
    again = tmp_path_factory.mktemp("again")
    for name, text in FOLDS.items():
        (again / name).write_text(text)
    assert pairs.hashes(folder) == pairs.hashes(str(again))
    (again / "fold1.txt").write_text("a__03\nd__03\n")
    assert pairs.hashes(folder) != pairs.hashes(str(again))


def test_a_configuration_is_looked_at_before_any_work(folder, photos):
    root = photos / "JPEGImages"
    chosen = ["corpus=folder", f"corpus.root={root}", "protocol=hsnet"]
    chosen += ["dataset=pascal5i", f"dataset.root={photos}", "dataset.list=ImageSets/val.txt"]
    chosen += ["model=prototype", "backbone=small", "backbone.weights=random", f"protocol.pairs={folder}", "fold=0"]
    config = load(chosen)
    assert settings(config).protocol.pairs == pairs.hashes(folder)
    assert [one for one in check(config) if "protocol.pairs: episode 0 of fold 0" in one]
    several = load([*chosen, "ways=2"])
    assert [one for one in check(several) if one.startswith("ways: expected 1 with protocol.pairs")]
