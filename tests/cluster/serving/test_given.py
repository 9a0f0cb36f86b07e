"""Which images a query means, and what is said where it means none."""

import numpy as np
import pytest
from PIL import Image

from cluster.serving.given import _queries


@pytest.fixture
def folder(tmp_path):
    """Images in two folders, and what is none."""
    for name in ("b.JPG", "a.png", "deep/c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
        image.save(tmp_path / name)
    (tmp_path / "notes.md").write_text("no image")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7Mac OS X")
    return tmp_path


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["a.png", "b.JPG"]),
        ("a.png", ["a.png"]),
        ("*.png", ["a.png"]),
        ("**/*", ["a.png", "b.JPG", "c.tif"]),
        ("*/*.tif", ["c.tif"]),
    ],
)
def test_an_image_a_folder_and_patterns(folder, query, names):
    assert [path.name for path in _queries(str(folder / query))] == names


def test_a_name_that_holds_a_pattern_is_a_name(folder):
    (folder / "[a].png").write_bytes((folder / "a.png").read_bytes())
    assert [path.name for path in _queries(str(folder / "[a].png"))] == ["[a].png"]


def test_a_list_is_relative_to_its_folder_and_keeps_its_order(folder):
    (folder / "list.txt").write_text(f"\ufeffdeep/c.tif\n\n  b.JPG \n{folder}/a.png\n", "utf-8")
    assert [path.name for path in _queries(str(folder / "list.txt"))] == ["c.tif", "b.JPG", "a.png"]


def test_a_list_of_windows_is_read_and_one_of_unknown_encoding_refused(folder):
    listed = folder / "list.txt"
    listed.write_text("a.png\r\nb.JPG\r\n", "utf-16")
    assert [path.name for path in _queries(str(listed))] == ["a.png", "b.JPG"]
    listed.write_bytes(b"K\xe4fer.png\n")
    with pytest.raises(ValueError, match=r"list\.txt: expected text in UTF-8, got the byte 0xe4 at 1"):
        _queries(str(listed))


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("absent", r"expected an image, a video or a folder of images at query=.*absent, found none"),
        ("*.webp", r"expected an image, a video or a folder of images at query=.*\*\.webp, found none"),
        ("lost.txt", r"expected one image a line in query=.*, there is no .*/x\.png, nor 1 others"),
        ("empty.txt", r"expected one image a line in query=.*, got none"),
    ],
)
def test_what_is_no_image_is_explained(folder, query, told):
    (folder / "lost.txt").write_text("a.png\nx.png\ny.png\n")
    (folder / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=told):
        _queries(str(folder / query))
