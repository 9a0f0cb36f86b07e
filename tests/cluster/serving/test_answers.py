"""The files of answers: numbers that others read as they were written, and who comes first on the contact sheet."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from cluster.config.predict import PredictConfig
from cluster.serving import answers
from fss.drawing import pictures
from fss.imaging.inputs import as_labels, as_mask
from fss.segmenter.thing import Answer
from tests.fss.conftest import noise_image

SURE = np.zeros((30, 40), np.float32)
SURE[5:15, 10:30] = 0.75
NOTHING = np.full((30, 40), 0.2, np.float32)


def write(out: Path, name: str, answer: Answer, **keys: object) -> answers.Row:
    return answers.write(out, Path(f"photos/{name}"), noise_image(0, (40, 30)), answer, PredictConfig(**keys))


def test_a_mask_keeps_its_numbers_and_is_seen_in_colour(tmp_path):
    write(tmp_path, "a.jpg", Answer(SURE))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert image.convert("RGB").getpixel((20, 10)) == pictures.BLUE
        np.testing.assert_array_equal(np.asarray(image), SURE > 0.5)
    np.testing.assert_array_equal(as_mask(tmp_path / "a.png"), SURE > 0.5)
    np.testing.assert_array_equal(as_labels(tmp_path / "a.png"), SURE > 0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.overlay.jpg", "a.png"]


def test_borders_follow_the_photo_unless_they_are_not_to(tmp_path):
    photo, soft = Image.new("RGB", (160, 120), (20, 120, 40)), np.full((120, 160), 0.1, np.float32)
    photo.paste((200, 30, 30), (40, 30, 120, 90))
    soft[22:82, 50:130] = 0.9
    wrong = {}
    for sharp in (True, False):
        answers.write(tmp_path, Path("a.jpg"), photo, Answer(soft, photo=photo), PredictConfig(edges=sharp))
        mask = np.asarray(Image.open(tmp_path / "a.png"))
        wrong[sharp] = (mask != (np.asarray(photo)[..., 0] > 100)).sum()
    assert wrong[False] == 2320, "the answer is 10 pixels too far right and 8 too high"
    assert wrong[True] < wrong[False] / 2


def test_a_soft_map_has_16_bits(tmp_path):
    write(tmp_path, "a.jpg", Answer(SURE), soft=True)
    soft = np.asarray(Image.open(tmp_path / "a.soft.png"))
    assert soft.dtype == np.uint16
    np.testing.assert_allclose(soft / 65535, SURE, atol=1 / 65535)


@pytest.mark.parametrize(
    ("answer", "keys", "present", "confidence"),
    [
        (Answer(SURE), {}, True, 0.75),
        (Answer(NOTHING), {}, False, 0),
        (Answer(SURE, 0.2), {}, False, 0.75),
        (Answer(SURE, 0.2), {"presence": 0.1}, True, 0.75),
        (Answer(NOTHING, 0.9), {"threshold": 0.1}, True, 0.2),
    ],
)
def test_whether_the_thing_is_there(tmp_path, answer, keys, present, confidence):
    row = write(tmp_path, "a.jpg", answer, **keys)
    assert row.present == present
    assert row.confidence == pytest.approx(confidence)


@pytest.fixture
def concluded(tmp_path):
    """Six images: four with the thing, one of them without a mask, and two without."""
    given = [Answer(SURE * (1 - place / 10), 0.9 - place / 10) for place in range(3)]
    given += [Answer(NOTHING, 0.95), Answer(SURE, 0.2), Answer(NOTHING, 0.1)]
    rows = [write(tmp_path, f"{place}.jpg", answer) for place, answer in enumerate(given)]
    answers.conclude(tmp_path, rows, [(noise_image(1, (50, 50)), np.ones((50, 50), np.uint8))], "cat")
    return tmp_path, rows


def test_the_table_has_a_row_for_each_image(concluded):
    out, _ = concluded
    rows = list(csv.DictReader((out / "answers.csv").open()))
    assert [row["file"] for row in rows] == [f"photos/{place}.jpg" for place in range(6)]
    assert [row["present"] for row in rows] == ["1", "1", "1", "1", "0", "0"]
    assert float(rows[0]["area"]) == pytest.approx(200 / 1200, abs=1e-6)
    assert (rows[0]["confidence"], rows[0]["chance"]) == ("0.7500", "0.9000")


def test_a_name_that_is_no_text_is_told_as_text(tmp_path):
    """As unzipping an archive of another encoding leaves it."""
    row = write(tmp_path, os.fsdecode(b"K\xe4fer.jpg"), Answer(SURE))
    answers.conclude(tmp_path, [row], [(noise_image(1, (50, 50)), np.ones((50, 50), np.uint8))], "beetle")
    (told,) = csv.DictReader((tmp_path / "answers.csv").open())
    assert told["file"] == "photos/K\\xe4fer.jpg"
    assert json.loads((tmp_path / "coco.json").read_text())["images"][0]["file_name"] == "K\\xe4fer.jpg"


def test_cocos_own_reader_gives_the_masks_back(concluded):
    out, _ = concluded
    coco = COCO(out / "coco.json")
    assert [one["file_name"] for one in coco.loadImgs(coco.getImgIds())] == [f"{place}.jpg" for place in range(6)]
    assert coco.loadCats(1) == [{"id": 1, "name": "cat"}]
    found = coco.loadAnns(coco.getAnnIds())
    assert [one["image_id"] for one in found] == [1, 2, 3], "those with a mask of a thing that is there"
    assert found[0]["bbox"] == [10, 5, 20, 10]
    assert found[0]["area"] == 200
    np.testing.assert_array_equal(coco.annToMask(found[0]), SURE > 0.5)
    assert json.loads((out / "coco.json").read_text())["annotations"][0]["score"] == 0.9


def test_the_sheet_shows_supports_then_best_median_and_worst(concluded, monkeypatch):
    out, rows = concluded
    seen = {}
    monkeypatch.setattr(
        pictures, "contact_sheet", lambda lines, captions, title, **_: seen.update(rows=captions, title=title)
    )
    answers._sheet(out, rows, [(noise_image(1, (50, 50)), np.ones((50, 50), np.uint8))], "cat")
    assert [len(row) for row in seen["rows"]] == [1, 2, 2, 2]
    assert seen["rows"][0] == ["support"]
    assert seen["rows"][1] == ["best, 95 %: 3", "best, 90 %: 0"]
    assert seen["rows"][3] == ["worst, 20 %: 4", "worst, 10 %: 5"]
    assert seen["title"] == "cat: in 4 of 6 images; per cent: the chance that they hold it"
    assert Image.open(out / "sheet.jpg").size[0] > 2 * 300
