"""Models on a hub: the folder is one that the Segmenter reads, and what the hub says is told."""

from pathlib import Path

import httpx2
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import HfHubHTTPError

from cluster.config.push import PushConfig
from cluster.engine.refused import RefusedError
from cluster.serving.push import push
from fss.segmenter import FILES, Segmenter
from tests.fss.segmenter.test_segmenter import MASKS, SUPPORTS, write

LAYOUT = {*FILES, ".gitattributes", "export.json"}


@pytest.fixture
def model(tmp_path):
    write(tmp_path / "model", "prototype")
    return str(tmp_path / "model")


def hub(monkeypatch, error=None):
    """A hub that notes what it is asked and given, or refuses."""
    asked = []

    class Hub:
        def create_repo(self, name, **options):
            if error:
                raise error
            asked.append((name, options))
            return f"https://hub/{name}"

        def upload_folder(self, repo_id, folder_path, commit_message):
            asked.append((repo_id, {path.name for path in Path(folder_path).iterdir()}))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return asked


def test_a_folder_in_the_hubs_layout(model, tmp_path):
    out = tmp_path / "hub"
    for _ in range(2):
        assert push(PushConfig(model, str(out))) == f"push: segmenter of prototype; {out}"
    assert {path.name for path in out.iterdir()} == LAYOUT
    assert (out / "README.md").read_text().startswith("---\nlibrary_name: ")
    assert "*.safetensors filter=lfs" in (out / ".gitattributes").read_text()
    here, there = (Segmenter.load(folder, "cpu").segment(SUPPORTS[0], SUPPORTS, MASKS) for folder in (model, out))
    np.testing.assert_array_equal(here, there)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(
        RefusedError, match=r"^to: expected an earlier export alone, .* also holds notes\.txt; set another to"
    ):
        push(PushConfig(model, str(out)))


@pytest.mark.parametrize("public", [False, True])
def test_a_repository_on_the_hub(model, monkeypatch, public):
    asked = hub(monkeypatch)
    assert push(PushConfig(model, "hf://me/birds", public)) == "push: https://hub/me/birds"
    assert asked == [("me/birds", {"private": not public, "exist_ok": True}), ("me/birds", LAYOUT)]


def test_what_the_hub_refuses_is_told(model, monkeypatch):
    response = httpx2.Response(401, request=httpx2.Request("POST", "https://hub/api"))
    hub(monkeypatch, HfHubHTTPError("401 Unauthorized", response=response))
    with pytest.raises(ValueError, match=r"^to: the hub did not take hf://me/birds \(401 .*\); set HF_TOKEN"):
        push(PushConfig(model, "hf://me/birds"))


@pytest.mark.parametrize("to", ["hf://birds", "hf://", "hf://me/birds/main"])
def test_an_address_that_is_none_is_refused(model, to):
    with pytest.raises(RefusedError, match=r"^to: expected hf://OWNER/NAME or a folder, got hf://"):
        push(PushConfig(model, to))
