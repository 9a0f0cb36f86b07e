"""CVAT's detector: an image in base64 goes in, masks as its serverless functions return them come out."""

import base64

import numpy as np

from cluster.web import cvat
from tests.cluster.web.pictures import MASK, query, several, show, unpacked


def ask(client, *, image=None, path="/cvat", **more):
    return client.post(path, json={"image": base64.b64encode(image or query(0)).decode(), **more})


def filled(shape, size):
    """The mask that CVAT makes of a shape: what stands before the last four numbers fills the box that they say."""
    *values, left, top, right, bottom = shape
    mask = np.zeros(size, np.uint8)
    mask[top : bottom + 1, left : right + 1] = np.reshape(values, (bottom - top + 1, right - left + 1))
    return mask


def test_the_thing_is_a_mask_of_cvat(client):
    thing = show(client)
    (told,) = client.post("/segment", data={"thing": thing}, files=several(query(0))).json()["answers"]
    (shape,) = ask(client, path=f"/cvat?thing={thing}&label=cat").json()
    assert set(shape) == {"confidence", "label", "type", "mask"}
    assert (shape["label"], shape["type"]) == ("cat", "mask")
    assert 0 < float(shape["confidence"]) <= 1
    np.testing.assert_array_equal(filled(shape["mask"], (45, 70)), unpacked(told["mask"]))
    assert ask(client).json() == [shape | {"label": "thing"}]  # the thing used last


def test_the_box_is_the_masks_own():
    assert cvat.shape(np.uint8([[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]])) == [1, 0, 1, 1, 1, 1, 2, 2]
    np.testing.assert_array_equal(filled(cvat.shape(MASK), MASK.shape), MASK)


def test_nothing_is_returned_where_the_thing_is_not(client):
    show(client)
    assert ask(client, threshold=0.999).json() == []


def test_what_cannot_be_used_is_refused(client):
    answer = ask(client)
    assert (answer.status_code, answer.json()["detail"][:27]) == (404, "thing: none is known yet; s")
    show(client)
    answer = client.post("/cvat", json={"image": "é"})
    assert (answer.status_code, answer.json()["detail"][:39]) == (400, "image: expected a file in base64, got s")
    answer = ask(client, image=b"no image")
    assert (answer.status_code, answer.json()["detail"][:17]) == (400, "image: unreadable")
    assert ask(client, threshold=7).status_code == 422
