"""Models taken along: each form answers as the Segmenter does, by the lines of Python on its own card."""

import json
import re
import runpy

import numpy as np
import pytest
import yaml
from PIL import Image

from cluster.config.export import FORMATS, ExportConfig
from cluster.engine import publish
from cluster.engine.refused import RefusedError
from cluster.serving.export import export
from fss import segmenter
from fss.segmenter import Segmenter, card
from tests.cluster.evaluate.test_measured import content, table
from tests.fss.conftest import noise_image
from tests.fss.segmenter.test_segmenter import write


def exported(tmp_path, form, name="prototype"):
    write(tmp_path / "model", name)
    out = tmp_path / "out"
    said = export(ExportConfig(str(tmp_path / "model"), form, str(out)))
    assert said == f"export: {form} of {name}; {out}"
    return out


def files(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("form", FORMATS)
def test_the_lines_on_the_card_answer_as_the_segmenter_does(tmp_path, monkeypatch, form):
    out = exported(tmp_path, form)
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a.jpg", "b.jpg")):
        noise_image(number, (64, 64)).save(name)
    thing = np.zeros((64, 64), np.uint8)
    thing[16:50, 10:40] = 255
    Image.fromarray(thing).save("a.png")
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    (tmp_path / "run.py").write_text(code.replace("FOLDER", str(out)))
    said = runpy.run_path("run.py")
    model = Segmenter.load(tmp_path / "model", "cpu")
    expected = model.probabilities("b.jpg", "a.jpg", "a.png")
    assert expected.std() > 0.01
    if form == "segmenter":
        assert np.array_equal(said["mask"], expected > 0.5)
    else:
        np.testing.assert_allclose(said["chances"][0], expected, atol=1e-4 if form == "onnx" else 1e-5)


def test_a_folder_says_what_it_is_and_what_else_it_holds(tmp_path):
    out = exported(tmp_path, "segmenter")
    about = json.loads((out / "export.json").read_text())
    assert about["format"] == "segmenter"
    assert about["size"] == 64
    assert about["model"] == segmenter.read_about(out)
    assert set(about["sha256"]) == files(out) - {"export.json"} == {*segmenter.FILES, ".gitattributes"}
    assert files(tmp_path) == {"model", "out"}


def test_an_earlier_export_is_replaced_and_nothing_of_others_is(tmp_path):
    out = exported(tmp_path, "segmenter")
    (out / "model.safetensors").write_bytes(b"damaged")
    assert export(ExportConfig(str(tmp_path / "model"), "segmenter", str(out)))
    Segmenter.load(out, "cpu")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RefusedError, match=r"out: expected an earlier export alone, .*/out also holds notes.txt"):
        export(ExportConfig(str(tmp_path / "model"), "segmenter", str(out)))
    with pytest.raises(ValueError, match=r"out: expected a new or empty folder"):
        export(ExportConfig(str(tmp_path / "model"), "segmenter", str(tmp_path / "model")))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sst", "sst takes a gradient inside of its forward pass"),
        ("segments", "segments merges segments of each query one by one, with SciPy"),
        ("saliency", "saliency cuts each query in two by an eigenvector, with NumPy"),
        ("cluster_match", "cluster_match cuts each image in two by an eigenvector, with NumPy"),
    ],
)
def test_a_head_that_is_no_graph_is_refused_for_its_own_reason(tmp_path, name, reason):
    with pytest.raises(RefusedError, match=rf"format=torch: expected a head .*, {reason}; .*set format=segmenter"):
        exported(tmp_path, "torch", name)
    assert files(tmp_path) == {"model"}


def evaluation(run, name, figures, **more):
    """A finished evaluation of a run, as far as cards read it."""
    data = json.dumps(figures).encode()
    written = publish.write_bytes(run / "evaluate" / name / "metrics.json", data)
    manifest = {"stage": "evaluate", "fingerprint": name, "settings": {"exported": None}, "inputs": {}, "counts": {}}
    file = {"path": "metrics.json", "count": 0, **written}
    publish.write_sealed(run / "evaluate" / name / "manifest.json", manifest | {"files": [file]} | more)


def test_the_card_tells_the_evaluations_of_the_model_and_no_others(tmp_path):
    model = tmp_path / "run" / "train" / "abc" / "model"
    write(model, facts={"fingerprint": "abc", "steps": 7})
    figures = content(table(seeds=(3,)))
    hashes = segmenter.read_about(model)["sha256"]
    evaluation(tmp_path / "run", "own", figures | {"episodes_sha256": 64 * "1"}, inputs={"train": "abc"})
    evaluation(tmp_path / "run", "other", figures | {"episodes_sha256": 64 * "2"}, inputs={"train": "def"})
    by_path = {"settings": {"exported": {"files": hashes}}}
    evaluation(tmp_path / "run", "path", figures | {"episodes_sha256": 64 * "3"}, **by_path)
    export(ExportConfig(str(model), "segmenter", str(tmp_path / "out")))
    text = (tmp_path / "out" / card.NAME).read_text()
    assert re.findall(r"episode list (\d)", text) == ["1", "3"]
    _, head, body = text.split("---\n", 2)
    (listed,) = yaml.safe_load(head)["model-index"][0]["results"]
    last = figures["models"]["net, meta-trained"]
    expected = [(f"{k}-shot mIoU", round(100 * last[k]["mean"]["miou"], 2)) for k in ("1", "5")]
    assert [(one["name"], one["value"]) for one in listed["metrics"]] == 2 * expected
    low, high = last["1"]["interval"]["miou"]
    assert f"[{100 * low:.1f}, {100 * high:.1f}]" in body
