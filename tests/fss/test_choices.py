"""Choices are found by the name of their file, without a list and without an import."""

import subprocess
import sys

import pytest

from fss import choices
from tests.places import ROOT

PACKAGES = {
    "fss.datasets": {"coco20i", "folder", "fss1000", "pascal5i", "scenes"},
    "fss.labelling.sources": {"cam", "clusters", "mining", "saliency"},
    "fss.tasks.pairing": {"cross_image", "mask_split"},
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with two choices, what they share, and a hidden one."""
    folder = tmp_path / "flavours"
    for name in ("__init__", "sweet", "sour", "_draft", "parts/__init__", "parts/sugar"):
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    (folder / "sour.py").write_text("raise RuntimeError('imported')\n")
    (folder / "sweet.py").write_text("TASTE = 'sweet'\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "flavours"


def test_the_files_of_a_folder_are_its_choices(package):
    assert choices.names(package) == ("sour", "sweet")  # and sour was not imported
    assert choices.load(package, "sweet").TASTE == "sweet"


def test_an_unknown_choice_names_what_there_is_and_the_nearest(package):
    with pytest.raises(ValueError, match=r"expected one of sour, sweet, got 'sweat'; did you mean 'sweet'\?"):
        choices.load(package, "sweat")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_module_is_a_choice_with_keys_of_its_name(name):
    assert PACKAGES[name] <= set(choices.names(name))
    for one in choices.names(name):
        keys = choices.load(name, one).Keys()
        assert one in (getattr(keys, "name", None), getattr(keys, "pairing", None))


def test_names_and_keys_need_no_torch():
    asked = "; ".join(f"[choices.load({name!r}, one).Keys() for one in choices.names({name!r})]" for name in PACKAGES)
    code = f"import sys; from fss import choices; {asked}; import cluster.config.build; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
