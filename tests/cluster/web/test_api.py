"""The API: what is shown, found and refused, each by one sentence."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as rle

from fss.imaging.images import encode_png
from fss.segmenter import marks
from tests.cluster.web.pictures import BOMB, DRAWN, IMAGE, MASK, png, query, several, show, unpacked


def refused(answer, status, sentence):
    assert (answer.status_code, sentence in answer.json()["detail"]) == (status, True), answer.text


def test_masks_are_the_segmenters(client, segmenter):
    thing = show(client)
    answer = client.post("/segment", data={"thing": thing}, files=several(query(0), query(3, (30, 80)))).json()
    expected = segmenter.prepare([IMAGE], [MASK])
    for told, asked in zip(answer["answers"], (query(0), query(3, (30, 80))), strict=True):
        mask = expected.segment(asked)
        np.testing.assert_array_equal(unpacked(told["mask"]), mask)
        assert (told["height"], told["width"]) == mask.shape
        assert told["area"] == pytest.approx(mask.mean())
        assert told["present"] == bool(mask.any())
        assert told["chance"] is None  # this model is not calibrated
    assert [one["file"] for one in answer["answers"]] == ["0.png", "1.png"]
    first = next(one for one in answer["coco"]["annotations"] if one["image_id"] == 1)
    np.testing.assert_array_equal(rle.decode(first["segmentation"]), unpacked(answer["answers"][0]["mask"]))
    assert answer["coco"]["categories"] == [{"id": 1, "name": "thing"}]


def test_borders_follow_the_image_unless_a_request_says_otherwise(client, segmenter):
    photo = Image.new("RGB", (120, 80), (20, 120, 40))
    ImageDraw.Draw(photo).polygon([(0, 0), (100, 0), (40, 80), (0, 80)], fill=(200, 30, 30))
    thing, answer = show(client), segmenter.prepare([IMAGE], [MASK]).answer(photo)
    threshold = float(np.median(answer.probabilities))
    for edges in (True, False):
        how = {"thing": thing, "threshold": threshold, "edges": edges}
        (told,) = client.post("/segment", data=how, files=several(png(photo))).json()["answers"]
        np.testing.assert_array_equal(unpacked(told["mask"]), answer.mask(threshold, edges))
    assert (answer.mask(threshold) != answer.mask(threshold, edges=False)).any()


def test_a_request_may_say_another_threshold_and_tile(client, segmenter):
    thing, big = show(client), query(2, (150, 100))
    how = {"thing": thing, "threshold": 0.3, "tile": 64}
    (told,) = client.post("/segment", data=how, files=several(big)).json()["answers"]
    (answer,) = segmenter.prepare([IMAGE], [MASK]).stream([big], tile=64)
    np.testing.assert_array_equal(unpacked(told["mask"]), answer.mask(0.3))
    refused(client.post("/segment", data={"thing": thing, "threshold": 2}, files=several(big)), 422, "threshold: ")


@pytest.mark.parametrize(
    ("marked", "made"),
    [
        ({"points": "[[20,15,1],[45,35,0]]"}, lambda model: marks.of_points(model, IMAGE, [[20, 15, 1], [45, 35, 0]])),
        ({"box": "[5,10,30,30]"}, lambda model: marks.of_box(model, IMAGE, [5, 10, 30, 30])),
    ],
)
def test_points_and_boxes_become_masks(client, segmenter, marked, made):
    answer = client.post("/supports", files={"image": IMAGE}, data=marked).json()
    np.testing.assert_array_equal(unpacked(answer["mask"]), made(segmenter))
    assert answer["supports"] == 1


def test_a_further_support_makes_another_thing_and_the_same_shown_again_the_same(client, segmenter):
    first = show(client)
    assert show(client) == first
    answer = client.post("/supports", files={"image": query(5, (50, 40)), "mask": DRAWN}, data={"thing": first}).json()
    assert answer["supports"] == 2
    assert answer["thing"] != first
    (told,) = client.post("/segment", data={"thing": answer["thing"]}, files=several(query(0))).json()["answers"]
    both = segmenter.prepare([IMAGE, query(5, (50, 40))], [MASK, MASK])
    np.testing.assert_array_equal(unpacked(told["mask"]), both.segment(query(0)))


def test_supports_are_sent_to_the_model_once(client):
    thing = show(client)
    for _ in range(2):
        client.post("/segment", data={"thing": thing}, files=several(query(0)))
    assert client.finders.asked == [False, True, False]


def test_what_is_not_needed_any_more_is_forgotten_and_can_be_shown_again(serve):
    client = serve(max_things=2)
    first, second = show(client), show(client, thing=show(client))
    client.post("/segment", data={"thing": first}, files=several(query(0)))
    show(client, thing=second)
    assert client.post("/segment", data={"thing": first}, files=several(query(0))).status_code == 404
    refused(client.post("/segment", data={"thing": first}, files=several(query(0))), 404, "or it is forgotten; show it")
    assert show(client) == first
    assert client.post("/segment", data={"thing": first}, files=several(query(0))).status_code == 200


@pytest.mark.parametrize(
    ("files", "marked", "sentence"),
    [
        ({"image": b"no image", "mask": DRAWN}, {}, "support: unreadable: not one of JPEG, PNG"),
        ({"image": b"", "mask": DRAWN}, {}, "expected an image file, got 0 bytes"),
        ({"image": BOMB, "mask": DRAWN}, {}, "12000x12000 is over the budget of 64000000 pixels"),
        ({"image": IMAGE, "mask": BOMB}, {}, "12000x12000 is over the budget of 64000000 pixels"),
        ({"image": IMAGE, "mask": encode_png(MASK * 0)}, {}, "got only background; paint it with 1 or 255"),
        ({"image": IMAGE, "mask": encode_png(MASK[:20])}, {}, "expected a mask of 50x40 like its image, got 50x20"),
        ({"image": IMAGE}, {}, "mask: expected one of mask, box, points, got none; send one"),
        ({"image": IMAGE, "mask": DRAWN}, {"box": "[1,2,3,4]"}, "got mask and box; send one"),
        ({"image": IMAGE}, {"box": "[1,2,3]"}, "box: expected [left,top,right,bottom], numbers in JSON, got [1,2,3]"),
        ({"image": IMAGE}, {"box": "[1,2,3,NaN]"}, "box: expected [left,top,right,bottom], numbers"),
        ({"image": IMAGE}, {"points": "[" * 9999}, "points: expected [[x,y,side]], numbers in JSON, got [[["),
        ({"image": IMAGE}, {"points": "[[99,1,1]]"}, "expected points within 50x40"),
        ({"image": IMAGE}, {"box": "[60,60,70,70]"}, "expected a box [left,top,right,bottom] within 50x40"),
    ],
)
def test_supports_that_cannot_be_used_are_refused(client, files, marked, sentence):
    refused(client.post("/supports", files=files, data=marked), 400, sentence)


def test_queries_that_cannot_be_used_are_refused_by_their_names(serve):
    client = serve(max_images=2)
    thing = show(client)
    ask = {"data": {"thing": thing}}
    refused(client.post("/segment", **ask, files=several(query(0), IMAGE[:200])), 400, "1.png: truncated")
    refused(client.post("/segment", **ask, files=several(BOMB)), 400, "0.png: too_large")
    refused(client.post("/segment", **ask, files=several(IMAGE, IMAGE, IMAGE)), 413, "expected at most 2, got 3; send")
    refused(client.post("/segment", **ask), 422, "images: Field required")
    refused(client.post("/segment", files=several(IMAGE)), 422, "thing: Field required")
    refused(client.post("/segment", data={"thing": "../x"}, files=several(IMAGE)), 404, "there is none called '../x'")


def test_a_thing_has_not_too_many_supports(client, monkeypatch):
    monkeypatch.setattr("cluster.web.service.MOST_SUPPORTS", 1)
    answer = client.post("/supports", files={"image": IMAGE, "mask": DRAWN}, data={"thing": show(client)})
    refused(answer, 413, "expected at most 1 supports, got another; begin a new thing")


def test_masks_are_packed_with_coco(client):
    """Also those that a user has painted, of images that have one name."""
    files = [("masks", (name, DRAWN)) for name in ("a.jpg", "sub/a.png", "b.jpg")]
    answer = client.post("/masks", files=files, data={"name": "ball"})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["a.png", "a-2.png", "b.png", "coco.json"]
        np.testing.assert_array_equal(np.asarray(Image.open(archive.open("a-2.png"))), MASK)
        coco = json.loads(archive.read("coco.json"))
    assert [one["file_name"] for one in coco["images"]] == ["a.jpg", "a.png", "b.jpg"]
    assert coco["categories"] == [{"id": 1, "name": "ball"}]
    np.testing.assert_array_equal(rle.decode(coco["annotations"][0]["segmentation"]), MASK)
    refused(client.post("/masks", files=[("masks", ("a.png", BOMB))]), 400, "a.png: too_large")


def test_no_mask_of_a_zip_is_called_like_another(client):
    files = [("masks", (name, DRAWN)) for name in ("a.jpg", "a.png", "a-2.jpg", "A.jpg")]
    with zipfile.ZipFile(io.BytesIO(client.post("/masks", files=files).content)) as archive:
        assert archive.namelist() == ["a.png", "a-2.png", "a-2-2.png", "A-3.png", "coco.json"]


def test_the_model_says_what_it_is(client, segmenter):
    (model,) = client.get("/models").json()
    assert model["model"] == segmenter.about["model"]
    assert (model["threshold"], model["presence"], model["limits"]) == (0.5, 0.25, {"images": 32, "mib": 64})
    assert client.get("/health").json() == {"status": "UP", "model_class": "correlation"}


def test_the_schema_names_every_route(client):
    schema = client.get("/openapi.json").json()
    assert set(schema["paths"]) == {
        *("/health", "/models", "/supports", "/segment", "/masks"),
        *("/setup", "/predict", "/webhook", "/cvat"),
    }
    assert all(
        way.get("summary") and way.get("description") for one in schema["paths"].values() for way in one.values()
    )
