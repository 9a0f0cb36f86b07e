"""Label Studio's ML backend, by the requests that Label Studio sends and the answers that it reads."""

import base64
import http.server
import threading

import jsonschema
import numpy as np
import pytest

from cluster.web import brush
from tests.cluster.web.pictures import IMAGE, MASK, query

CONFIG = """<View><Image name="photo" value="$picture"/>
<BrushLabels name="tag" toName="photo"><Label value="cat"/><Label value="dog"/></BrushLabels></View>"""
#: Of what https://labelstud.io/guide/ml_create says of predictions, and its library's converter reads of brushes.
PREDICTIONS = {
    "type": "object",
    "required": ["results", "model_version"],
    "properties": {
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["result", "score", "model_version"],
                "properties": {
                    "score": {"type": "number", "minimum": 0, "maximum": 1},
                    "model_version": {"type": "string"},
                    "result": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["id", "type", "from_name", "to_name", "original_width", "original_height",
                                         "image_rotation", "value"],
                            "properties": {
                                "id": {"type": "string"},
                                "type": {"const": "brushlabels"},
                                "value": {
                                    "type": "object",
                                    "required": ["format", "rle", "brushlabels"],
                                    "properties": {
                                        "format": {"const": "rle"},
                                        "rle": {"type": "array", "items": {"type": "integer", "maximum": 255}},
                                        "brushlabels": {"type": "array", "items": {"type": "string"}},
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}  # fmt: skip


def url(data):
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def region(mask, label):
    return {
        "type": "brushlabels",
        "original_width": mask.shape[1],
        "original_height": mask.shape[0],
        "value": {"format": "rle", "rle": brush.encode(mask), "brushlabels": [label]},
    }


def annotated(*regions, task=1, image=None, action="ANNOTATION_CREATED", project=3):
    return {
        "action": action,
        "annotation": {"id": 5, "result": list(regions)},
        "task": {"id": task, "data": {"picture": image or url(IMAGE)}},
        "project": {"id": project, "label_config": CONFIG},
    }


def predict(client, *images, project="3.1700000000"):
    tasks = [{"id": place, "data": {"picture": image}} for place, image in enumerate(images)]
    answer = client.post("/predict", json={"tasks": tasks, "label_config": CONFIG, "project": project, "params": {}})
    assert answer.status_code == 200, answer.text
    jsonschema.validate(answer.json(), PREDICTIONS)
    return answer.json()["results"]


def test_an_annotation_becomes_a_support_and_others_tasks_get_its_label(client, segmenter):
    assert client.post("/setup", json={"project": "3.17", "schema": CONFIG, "hostname": ""}).json().keys() == {
        "model_version"
    }
    assert predict(client, url(query(0)))[0]["result"] == []
    halves = MASK.copy(), MASK.copy()
    halves[0][:, 20:] = halves[1][:, :20] = 0
    answer = client.post("/webhook", json=annotated(region(halves[0], "cat"), region(halves[1], "cat")))
    assert (answer.status_code, answer.json()) == (201, {"status": "ok", "result": 1})
    (one,) = predict(client, url(query(0)))
    (found,) = one["result"]
    assert (found["from_name"], found["to_name"], found["value"]["brushlabels"]) == ("tag", "photo", ["cat"])
    mask = brush.decode(found["value"]["rle"], (found["original_width"], found["original_height"]))
    np.testing.assert_array_equal(mask, segmenter.segment(query(0), IMAGE, MASK))
    assert one["score"] == found["score"]


def test_labels_tasks_and_projects_are_kept_apart(client, segmenter):
    other = query(5, (50, 40))
    client.post("/webhook", json=annotated(region(MASK, "cat"), region(1 - MASK, "dog")))
    client.post("/webhook", json=annotated(region(MASK, "cat"), task=2, image=url(other)))
    client.post("/webhook", json=annotated(region(1 - MASK, "cat"), project=4))
    (one,) = predict(client, url(query(0)))
    masks = {each["value"]["brushlabels"][0]: brush.decode(each["value"]["rle"], (70, 45)) for each in one["result"]}
    np.testing.assert_array_equal(masks["cat"], segmenter.segment(query(0), [IMAGE, other], [MASK, MASK]))
    np.testing.assert_array_equal(masks["dog"], segmenter.segment(query(0), IMAGE, 1 - MASK))


def test_what_was_annotated_again_counts(client, segmenter):
    client.post("/webhook", json=annotated(region(1 - MASK, "cat")))
    client.post("/webhook", json=annotated(region(MASK, "cat"), action="ANNOTATION_UPDATED"))
    client.post("/webhook", json=annotated(region(1 - MASK, "cat"), action="TASKS_CREATED"))
    (found,) = predict(client, url(query(0)))[0]["result"]
    expected = segmenter.segment(query(0), IMAGE, MASK)
    np.testing.assert_array_equal(brush.decode(found["value"]["rle"], (70, 45)), expected)


class Images(http.server.BaseHTTPRequestHandler):
    """A Label Studio that has one image, which it wants a key for, and one that lies in another store."""

    def do_GET(self):
        self.server.keys.append(self.headers.get("Authorization"))
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/data/upload/3/a.png")
        else:
            self.send_response(200 if self.path == "/data/upload/3/a.png" else 404)
        self.end_headers()
        self.wfile.write(IMAGE)

    def log_message(self, *_):
        pass


@pytest.fixture
def home():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Images)
    server.keys = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_images_come_from_label_studio_with_its_key_and_from_nowhere_else(serve, home):
    server, address = home
    client = serve(label_studio=address, label_studio_key="k")
    client.post("/webhook", json=annotated(region(MASK, "cat")))
    assert predict(client, "/data/upload/3/a.png")[0]["result"]
    assert predict(client, f"{address}/elsewhere")[0]["result"]
    assert server.keys == ["Token k", "Token k", None]  # which goes to no other place
    for elsewhere in ("http://127.0.0.1:9/a.png", "file:///etc/passwd", "//evil.example/a.png"):
        task = {"id": 1, "data": {"picture": elsewhere}}
        answer = client.post("/predict", json={"tasks": [task], "label_config": CONFIG, "project": "3"})
        assert (answer.status_code, f"expected an image of {address}" in answer.json()["detail"]) == (400, True)
    task = {"id": 1, "data": {"picture": "/absent"}}
    answer = client.post("/predict", json={"tasks": [task], "label_config": CONFIG, "project": "3"})
    assert "HTTP Error 404" in answer.json()["detail"]
    assert len(server.keys) == 4


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            annotated(region(MASK, "cat")) | {"project": {"id": 3, "label_config": "<View/>"}},
            "label_config: expected an",
        ),
        (
            annotated(region(MASK, "cat")) | {"project": {"id": 3, "label_config": "<"}},
            "label_config: expected an Image",
        ),
        (annotated(region(MASK, "cat") | {"original_width": 51}), "annotation: expected regions of a brush, got rle: "),
        (
            annotated({"value": {"format": "rle", "brushlabels": ["cat"]}}),
            "annotation: expected regions of a brush, got",
        ),
        (annotated(region(MASK, "cat"), region(MASK[:, :9], "cat")), "annotation: expected regions of a brush, got"),
        (annotated(region(MASK, "cat"), image="/a.png"), "expected the URL of Label Studio to fetch /a.png from; set"),
        (annotated(region(MASK, "cat"), image="data:image/png;base64,ä"), "image: expected a file in base64, got"),
        (annotated(region(MASK, "cat"), image=url(b"x")), "support: unreadable"),
        (annotated(region(MASK * 0, "cat")), "expected a mask that shows the thing, got only background"),
    ],
)
def test_what_cannot_be_used_is_refused(client, body, told):
    answer = client.post("/webhook", json=body)
    assert (answer.status_code, told in answer.json()["detail"]) == (400, True), answer.text
