"""The card of an exported model: README.md as model hubs read it, written from model.json and nothing else.

What was measured, and how the model is run, stands in it where whoever exports knows it.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fss import backbones, choices, heads

NAME = "README.md"
#: Libraries that run a model; their versions are told.
_LIBRARIES = ("unlabelled-fss", "torch", "torchvision", "numpy", "pillow", "safetensors")
_PYTHON = """```python
from fss.segmenter import Segmenter

segmenter = Segmenter.load("FOLDER")  # the folder of this card
mask = segmenter.segment("b.jpg", supports=["a.jpg"], masks=["a.png"])  # 0 and 1, of the size of b.jpg
```"""
#: What the two runtimes of a program have in common; each takes three arrays and gives one.
_PROGRAM = """```python
import numpy
{imports}
from PIL import Image

def pixels(path):  # (3, {side}, {side}) uint8
    image = Image.open(path).convert("RGB").resize(({side}, {side}), Image.Resampling.{interpolation})
    return numpy.asarray(image).transpose(2, 0, 1)

def mask(path):  # ({side}, {side}) uint8: 1 is the thing, 0 the rest, 255 void
    image = Image.open(path).convert("L").resize(({side}, {side}), Image.Resampling.NEAREST)
    return (numpy.asarray(image) > 0).astype(numpy.uint8)

queries, supports, masks = numpy.stack([pixels("b.jpg")]), numpy.stack([pixels("a.jpg")]), numpy.stack([mask("a.png")])
{run}
found = chances > 0.5  # for each query ({side}, {side}); enlarge the chances first for a mask of its size
```

Any number of queries and of supports may be given; all queries are asked with the same supports.
For images of {side} x {side} pixels the chances are those of `Segmenter`, up to rounding:
within 0.00001 from `torch.export`, and 0.01 from ONNX, whose kernels round otherwise."""
_RUNTIMES = {
    "torch": {
        "imports": "import torch",
        "run": """program = torch.export.load("FOLDER/program.pt2").module()
chances = program(*map(torch.from_numpy, (queries, supports, masks))).numpy()""",
    },
    "onnx": {
        "imports": "import onnxruntime",
        "run": """session = onnxruntime.InferenceSession("FOLDER/model.onnx")
(chances,) = session.run(None, {"queries": queries, "supports": supports, "masks": masks})""",
    },
}


class Figure(NamedTuple):
    """One number of an evaluation, a fraction in [0, 1], as model hubs list it."""

    dataset: str
    name: str
    value: float


def text(
    about: Mapping[str, Any],
    run: str = _PYTHON,
    measured: str = "",
    figures: Sequence[Figure] = (),
) -> str:
    """The card.

    Args:
        about: the content of model.json.
        run: Markdown, how this export is run.
        measured: Markdown, what evaluations of the model found; empty where there was none.
        figures: the numbers of it.
    """
    name, network = about["model"]["name"], about["backbone"]
    sections = {
        "What it is": _rows(_what(about)),
        "What it learned from": _rows(_learned(about["facts"])),
        "What it reaches": measured or "This export knows of no evaluation of the model. `jobs.evaluate` makes one.",
        "How images go in": _lines(_preprocessing(network)),
        "What it is for": _lines(_USE),
        "Limits": _lines(_limits(about)),
        "How to run it": run,
        "Versions": _rows({"format of model.json": str(about["format"]), **_versions()}),
    }
    body = "\n\n".join(f"## {title}\n\n{content}" for title, content in sections.items())
    head = (
        f"# {name} on {network['name']}: few-shot segmentation\n\nGive it one or a few images with a mask of a thing."
    )
    return f"{_front_matter(about, figures)}\n{head}\nIt finds that thing in other images.\n\n{body}\n"


def how_to_run(form: str, network: Mapping[str, Any]) -> str:
    """Markdown with lines of Python for an export of this `form` of a model on this backbone of model.json."""
    if form not in _RUNTIMES:
        return _PYTHON
    how = _interpolation(network).upper()
    return _PROGRAM.format(side=network["size"], interpolation=how, **_RUNTIMES[form])


def _interpolation(network: Mapping[str, Any]) -> str:
    return str(network.get("interpolation", "bilinear"))  # models of before there was a choice


def _versions() -> dict[str, str]:
    """Of Python and of the libraries that run a model, as far as they are installed."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a checkout on the path is no package
            continue
    return versions


def _front_matter(about: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """YAML between two lines of dashes; its values are written as JSON, which YAML reads."""
    name, backbone = about["model"]["name"], about["backbone"]["name"]
    values: dict[str, Any] = {
        "library_name": "unlabelled-fss",
        "pipeline_tag": "image-segmentation",
        "license": "other",
        "tags": ["few-shot-segmentation", name, backbone],
    }
    if figures:
        values["model-index"] = [{"name": f"{name} on {backbone}", "results": _index(figures)}]
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---"])


def _index(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    by_dataset: dict[str, list[dict[str, Any]]] = {}
    for one in figures:
        metric = {"type": "mean_iou", "name": one.name, "value": round(100 * one.value, 2)}
        by_dataset.setdefault(one.dataset, []).append(metric)
    task = {"type": "image-segmentation"}
    return [
        {"task": task, "dataset": {"type": name, "name": name}, "metrics": metrics}
        for name, metrics in by_dataset.items()
    ]


def _what(about: Mapping[str, Any]) -> dict[str, str]:
    model, network = about["model"], about["backbone"]
    weights, licence = origin(network["name"], about["facts"].get("backbone_weights"))
    tuned = ", tuned together with the head" if about["facts"].get("tuned") else ", frozen"
    tuned += f", {share:g} of its directions taken out as position's" if (share := network.get("debias")) else ""
    return {
        "head": f"`{model['name']}`: {_first_line(model['name'])}",
        "source": _source(model["name"]),
        "options": ", ".join(f"`{key}={json.dumps(value)}`" for key, value in sorted(model["options"].items())),
        "backbone": f"`{network['name']}`, stride {network['stride']}, {network['padding']} padding{tuned}",
        "weights of the backbone": weights,
        "licence of these weights": licence,
        "fingerprint of the backbone": f"`{network['fingerprint'][:12]}`",
        "licence of this model": "none was chosen; whoever made it chooses one, within the terms of weights and images",
    }


def _document(name: str) -> str:
    return inspect.getdoc(choices.load(heads.__name__, name)) or ""


def _first_line(name: str) -> str:
    return _document(name).partition("\n")[0]


def _source(name: str) -> str:
    """The publication that a head's module names first."""
    source = re.search(r"^Source: (.*?\(.*?\))", _document(name), re.DOTALL | re.MULTILINE)
    return " ".join(source[1].split()) if source else "none, it is this project's own or a plain read-out"


def origin(name: str, weights: str | None) -> tuple[str, str]:
    """Where the weights of backbone `name` come from, and under which terms: two sentences.

    `weights`: `random`, `pretrain`, `torchvision`, `timm`, or of a file `sha256:` and its hash, by which torchvision's
    are known; None where a model does not say.
    """
    own = "no others' weights are in it"
    known = {
        "random": ("drawn at random, never trained", own),
        "pretrain": ("trained without labels on the corpus, by the run that made this model", own),
        "torchvision": (
            "torchvision's first ImageNet weights, trained with labels",
            "torchvision is BSD-3-Clause; its weights may have the terms of ImageNet, which allows research",
        ),
        "timm": (
            "timm's own weights of this network",
            "timm is Apache-2.0; its weights have the terms of whoever trained them, see the network's page in timm",
        ),
    }
    if weights is None:
        return "not told", "not known here"
    if weights.startswith("sha256:") and _is_torchvisions(name, weights.removeprefix("sha256:")):
        weights = "torchvision"
    return known.get(weights, (f"a file, `{weights}`", "not known here; ask whoever made the file"))


def _is_torchvisions(name: str, digest: str) -> bool:
    """Whether torchvision names weights of this network by the first digits of this hash."""
    import torchvision

    try:
        offered = torchvision.models.get_model_weights(backbones.torchvision_name(name))
    except (ValueError, KeyError):
        return False
    return any(digest[:8] in one.url.rpartition("-")[2] for one in offered)


def _learned(facts: Mapping[str, Any]) -> dict[str, str]:
    told = {"corpus without labels": "none, or not told", "labels": _labels(facts)}
    if corpus := facts.get("corpus"):
        images = f"{corpus['images']} images, " if "images" in corpus else ""
        told["corpus without labels"] = f"{images}fingerprint `{corpus['fingerprint']}`"
    if mix := facts.get("mix"):
        told["tasks of other runs"] = ", ".join(f"pair stage `{one}`" for one in mix)
    told["training"] = f"{facts['steps']} steps" if "steps" in facts else "none: nothing of the head is learned"
    told["made by stage"] = f"`{facts['fingerprint']}`" if "fingerprint" in facts else "not told"
    if selection := facts.get("selection"):
        value = selection.get("holdout_iou")
        measured = "" if value is None else f", IoU {100 * value:.1f} % on held-out pseudo-tasks"
        told["selected by"] = f"{selection['by']}, step {selection['step']}{measured}"
    return told


def _labels(facts: Mapping[str, Any]) -> str:
    """Which labels training saw, in words."""
    if not (kind := facts.get("labelled")):
        return "none"
    of = "names of whole images" if kind == "names" else f"masks of {facts.get('images', 'some')} images"
    return f"{of} of {facts.get('dataset')}, fold {facts.get('fold')}: {', '.join(facts.get('classes', ()))}"


def _preprocessing(network: Mapping[str, Any]) -> list[str]:
    side, how = network["size"], _interpolation(network)
    return [
        f"An image is turned upright, made sRGB and stretched to {side} x {side} pixels, {how}, with antialiasing.",
        "Its values are divided by 255 and normalised with ImageNet's mean and standard deviation.",
        *(["The network makes of these what its own mean and deviation give."] if "timm/" in network["name"] else []),
        f"A mask becomes the shares of thing and background in every cell of {network['stride']} pixels; 255 is void.",
        "The answer is enlarged to the image's own size, bilinear, before the larger side of each pixel is taken.",
    ]


_USE = (
    "Finding one kind of thing in many images, shown by one to five images with a mask, without training.",
    "Studying what can be learned about segmentation from images without labels.",
)


def _limits(about: Mapping[str, Any]) -> list[str]:
    side, stride = about["backbone"]["size"], about["backbone"]["stride"]
    return [
        f"Details below {stride} of {side} pixels are not seen, and borders are as coarse.",
        "It answers for one kind of thing at a time, and does not tell one thing of a kind from the next.",
        "What the corpus does not show it may not find. Nobody looked for biases of the corpus or of the weights.",
        "Its errors are frequent, see the figures. Do not decide about people, health or safety by its masks.",
    ]


def _rows(values: Mapping[str, str]) -> str:
    rows = (f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in values.items())
    return "\n".join(["| | |", "|---|---|", *rows])


def _lines(values: Iterable[str]) -> str:
    return "\n".join(f"* {value}" for value in values)
