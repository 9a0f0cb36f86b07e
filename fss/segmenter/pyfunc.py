"""An exported model as MLflow's `pyfunc` flavour: the files that say so, and what MLflow loads. Nothing here needs it.

    mlflow.pyfunc.load_model(FOLDER).predict([{"query": TEXT, "supports": [TEXT], "masks": [TEXT]}])

TEXT is an image file in base64, so that rows can be sent as JSON, as `mlflow models serve` takes them. The answer has
for each row `mask`, a PNG of 0 and 1 in base64, of the size of the query.
"""

from __future__ import annotations

import base64
import binascii
import json
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fss.imaging import images

if TYPE_CHECKING:
    from fss.segmenter import Segmenter
    from fss.segmenter.thing import Thing

_EXAMPLE, _SERVING = "input_example.json", "serving_input_example.json"
#: What makes a folder MLflow's beside the model itself.
FILES = ("MLmodel", _EXAMPLE, _SERVING)
_THRESHOLD = 0.5


def files() -> dict[str, bytes]:
    """The files that make an exported model one of MLflow's: a signature, an example, and what loads it."""
    texts: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    inputs = [_column("query", {"type": "string"}), _column("supports", texts), _column("masks", texts)]
    threshold = {"name": "threshold", "type": "double", "default": _THRESHOLD, "shape": None}
    edges = {"name": "edges", "type": "boolean", "default": True, "shape": None}
    model = {
        "flavors": {"python_function": {"loader_module": __name__, "python_version": platform.python_version()}},
        "signature": {
            "inputs": json.dumps(inputs),
            "outputs": json.dumps([_column("mask", {"type": "string"})]),
            "params": json.dumps([threshold, edges]),
        },
        "saved_input_example_info": {
            "artifact_path": _EXAMPLE,
            "pandas_orient": "split",
            "serving_input_path": _SERVING,
            "type": "dataframe",
        },
    }
    example = {"columns": [one["name"] for one in inputs], "data": [_example()]}
    contents = (model, example, {"dataframe_split": example})
    return {name: (json.dumps(one, indent=2) + "\n").encode() for name, one in zip(FILES, contents, strict=True)}


def _column(name: str, kind: Mapping[str, Any]) -> dict[str, Any]:
    return {**kind, "name": name, "required": True}


def _example() -> list[Any]:
    """A bright square on black, its mask, and a query with the square elsewhere."""
    shown, asked, mask = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    shown[8:24, 4:20], asked[4:20, 12:28], mask[8:24, 4:20] = 255, 255, 1
    support, query = (images.encode_png(one) for one in (shown, asked))
    return [_text(query), [_text(support)], [_text(images.encode_png(mask))]]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"{name}: expected an image file in base64, got {error}") from error


class Served:
    """What MLflow calls."""

    def __init__(self, segmenter: Segmenter):
        self.segmenter = segmenter

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> list[dict[str, str]]:
        """Rows with `mask` for a table of rows with `query`, `supports` and `masks`; see the module.

        Args:
            model_input: a data frame.
            params: `threshold`, a probability in (0, 1); `edges`, whether borders follow the photo's.

        Raises:
            ValueError: for what is no image, or masks that do not fit.
        """
        how = params or {}
        threshold, edges = how.get("threshold", _THRESHOLD), how.get("edges", True)
        things: dict[tuple[tuple[str, ...], ...], Thing] = {}
        answers = []
        for row in model_input.to_dict("records"):
            shown = tuple(tuple(row[name]) for name in ("supports", "masks"))
            if shown not in things:  # rows that show the same are made ready once
                things[shown] = self._thing(*shown)
            mask = things[shown].segment(_bytes(row["query"], "query"), threshold, edges)
            answers.append({"mask": _text(images.encode_png(mask))})
        return answers

    def _thing(self, supports: Sequence[str], masks: Sequence[str]) -> Thing:
        shown = [_bytes(text, f"supports[{i}]") for i, text in enumerate(supports)]
        return self.segmenter.prepare(shown, [_bytes(text, f"masks[{i}]") for i, text in enumerate(masks)])


def _load_pyfunc(path: str) -> Served:
    """What MLflow loads an exported model with; `path` is its folder."""
    from fss.segmenter import Segmenter

    return Served(Segmenter.load(path))
