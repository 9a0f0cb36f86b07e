"""An exported model as MLflow loads it: its signature and example, and the answers of the Segmenter."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from fss.imaging import images
from fss.segmenter import Segmenter
from tests.fss.segmenter.test_segmenter import MASKS, SUPPORTS, noise_image


@pytest.fixture(scope="module")
def loaded(folder):
    import mlflow

    return mlflow.pyfunc.load_model(str(folder))


def text(picture):
    return base64.b64encode(images.encode_png(np.asarray(picture))).decode()


def row(query, shots):
    shown, drawn = map(text, SUPPORTS[:shots]), map(text, MASKS[:shots])
    return {"query": text(query), "supports": list(shown), "masks": list(drawn)}


def masks(answers):
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one["mask"])))) for one in answers]


def test_rows_are_answered_as_the_segmenter_does(folder, loaded):
    import pandas

    queries = [noise_image(0, (70, 45)), noise_image(5)]
    found = masks(loaded.predict(pandas.DataFrame([row(queries[0], 1), row(queries[1], 2)])))
    model = Segmenter.load(folder, "cpu")
    for mask, query, shots in zip(found, queries, (1, 2), strict=True):
        assert np.array_equal(mask, model.segment(query, SUPPORTS[:shots], MASKS[:shots]))
    chances = model.probabilities(queries[0], SUPPORTS[:1], MASKS[:1])
    middle = float(np.median(chances))
    (mask,) = masks(
        loaded.predict(pandas.DataFrame([row(queries[0], 1)]), params={"threshold": middle, "edges": False})
    )
    assert np.array_equal(mask, chances > middle)
    assert 0 < mask.mean() < 1


def test_its_signature_and_example_are_mlflows(loaded):
    signature = loaded.metadata.signature
    assert signature.inputs.input_names() == ["query", "supports", "masks"]
    assert signature.outputs.input_names() == ["mask"]
    assert [one.name for one in signature.params.params] == ["threshold", "edges"]
    assert masks(loaded.predict(loaded.input_example))[0].shape == (32, 32)


def test_what_is_no_image_or_no_row_is_said(loaded):
    import pandas

    with pytest.raises(ValueError, match=r"supports\[0\]: expected an image file in base64, got "):
        loaded.predict(pandas.DataFrame([row(noise_image(0), 1) | {"supports": ["no!"]}]))
    with pytest.raises(Exception, match="masks"):
        loaded.predict(pandas.DataFrame([{"query": "", "supports": []}]))


def test_its_server_takes_the_example_as_json(folder):
    """What `mlflow models serve` runs, without a port."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    body = (folder / "serving_input_example.json").read_text()
    answer = scoring_server.invocations(body, "application/json", mlflow.pyfunc.load_model(str(folder)), None)
    assert answer.status == 200
    assert masks(json.loads(answer.response)["predictions"])[0].shape == (32, 32)


def test_rows_that_show_the_same_make_it_ready_once(loaded, monkeypatch):
    import pandas

    made, real = [], Segmenter.prepare
    monkeypatch.setattr(Segmenter, "prepare", lambda self, *shown: made.append(shown) or real(self, *shown))
    rows = [row(noise_image(0), 1), row(noise_image(5), 1), row(noise_image(5), 2)]
    assert len(loaded.predict(pandas.DataFrame(rows))) == 3
    assert [len(supports) for supports, _ in made] == [1, 2]
