"""The card of an exported model: what a hub reads of it, and that it says what model.json does."""

import re
import runpy

import numpy as np
import pytest
import yaml
from PIL import Image

from fss import heads, segmenter
from fss.segmenter import card
from fss.segmenter.card import Figure
from tests.fss.conftest import noise_image

FACTS = {
    "fingerprint": "0123456789ab",
    "steps": 60,
    "backbone_weights": "pretrain",
    "corpus": {"fingerprint": "ba9876543210", "images": 123},
    "selection": {"by": "holdout", "step": 40, "holdout_iou": 0.5},
}


@pytest.fixture(scope="module")
def about(folder):
    return segmenter.read_about(folder)


def front_matter(text):
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_every_export_has_its_card(folder, about):
    assert (folder / "README.md").read_text() == card.text(about)
    values, body = front_matter(card.text(about))
    assert values == {
        "library_name": "unlabelled-fss",
        "pipeline_tag": "image-segmentation",
        "license": "other",
        "tags": ["few-shot-segmentation", "correlation", "small"],
    }
    titles = re.findall(r"^## (.*)$", body, re.MULTILINE)
    assert titles == ["What it is", "What it learned from", "What it reaches", "How images go in", "What it is for",
                      "Limits", "How to run it", "Versions"]  # fmt: skip
    assert about["backbone"]["fingerprint"][:12] in body
    assert "stretched to 64 x 64 pixels" in body
    assert "knows of no evaluation" in body


def test_it_says_what_the_model_learned_from(about):
    text = card.text({**about, "facts": FACTS})
    assert "| corpus without labels | 123 images, fingerprint `ba9876543210` |" in text
    assert "| labels | none |" in text
    assert "| training | 60 steps |" in text
    assert "| selected by | holdout, step 40, IoU 50.0 % on held-out pseudo-tasks |" in text
    assert "trained without labels on the corpus, by the run that made this model" in text
    seen = {"labelled": "names", "dataset": "pascal5i", "fold": 0, "classes": ["car", "cow"]}
    assert "| labels | names of whole images of pascal5i, fold 0: car, cow |" in card.text({**about, "facts": seen})


def test_figures_are_told_to_hubs(about):
    figures = [Figure("pascal5i", "1-shot mIoU", 0.2512), Figure("pascal5i", "5-shot mIoU", 0.3)]
    text = card.text(about, measured="a table", figures=figures)
    ((result,),) = [one["results"] for one in front_matter(text)[0]["model-index"]]
    assert result["dataset"] == {"type": "pascal5i", "name": "pascal5i"}
    assert [(one["name"], one["value"]) for one in result["metrics"]] == [("1-shot mIoU", 25.12), ("5-shot mIoU", 30.0)]
    assert "## What it reaches\n\na table\n" in text


def test_torchvisions_weights_are_known_by_their_bytes():
    """Its files carry the first digits of their sha256 in their names: resnet18-f37072fd.pth."""
    named = card.origin("resnet18", "torchvision")
    assert card.origin("resnet18", "sha256:f37072fd" + 56 * "0") == named
    assert card.origin("resnet18", "sha256:f37072fe" + 56 * "0") != named
    assert "ask whoever made the file" in card.origin("small", "sha256:f37072fd" + 56 * "0")[1]


@pytest.mark.parametrize("name", heads.names())
def test_every_head_says_what_it_is(about, name):
    text = card.text({**about, "model": {"name": name, "options": heads.complete(name, {})}})
    (line,) = re.findall(rf"^\| head \| `{name}`: (.+) \|$", text, re.MULTILINE)
    assert len(line) > 30


def test_its_lines_of_python_run_as_they_stand(folder, tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.jpg"):
        noise_image(1, (50, 40)).save(name)
    Image.fromarray(np.eye(40, 50, dtype=np.uint8)).save("a.png")
    (tmp_path / "run.py").write_text(code.replace("FOLDER", str(folder)))
    assert runpy.run_path("run.py")["mask"].shape == (40, 50)
