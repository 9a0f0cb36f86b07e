"""Source cam: tables of names, masks from heat, and labels of images by their names."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fss.datasets import Dataset
from fss.labelling import heatmaps
from fss.labelling.names import ImageNames, names_of_masks, read_names
from fss.labelling.sources import Block, Photo
from fss.labelling.sources.cam import CamLabeller, segmented


def test_masks_by_hand():
    """The hottest of two names has a pixel; 0.4 of the largest is enough; the gate hides the first name's peak."""
    heat = np.array([[[1.0, 0.5, 0.3, 0.1]], [[0.0, 0.6, 0.2, 0.3]]])
    assert segmented(heat, None, 0.4).tolist() == [[1, 2, 0, 2]]
    gate = np.array([[False, True, True, False]])
    assert segmented(heat, gate, 0.4).tolist() == [[0, 2, 1, 0]]
    assert segmented(heat, np.zeros_like(gate), 0.4).tolist() == [[0, 0, 0, 0]]
    assert segmented(0 * heat, None, 0.4).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_table_of_names(tmp_path, name):
    gap = "\t" if name.endswith("tsv") else ","
    lines = ["image,names", "sub/a.jpg,dog;cat", "b,Sofa", "", "b.png,dog", "2007_000.1,cat,bird"]
    (tmp_path / name).write_text("\n".join(line.replace(",", gap) for line in lines))
    table = read_names(str(tmp_path / name))
    assert table == {"sub/a": ("dog", "cat"), "b": ("Sofa", "dog"), "2007_000.1": ("cat", "bird")}
    found = ImageNames.of(table)
    assert found.names == ("Sofa", "bird", "cat", "dog")
    assert [found.labels(path) for path in ("sub/a.jpg", "other/b.jpeg", "c.jpg", "a.jpg")] == [(3, 4), (1, 4), (), ()]


def test_synonyms_are_quoted(tmp_path):
    (tmp_path / "a.csv").write_text('a,"sofa, couch";dog\n'.replace(";", ","))
    assert read_names(str(tmp_path / "a.csv")) == {"a": ("sofa, couch", "dog")}


def test_the_mark_that_spreadsheets_put_first_is_no_part_of_a_name(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffimage,names\na,dog\n")
    assert read_names(str(tmp_path / "a.csv")) == {"a": ("dog",)}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no image has a name"),
        (b"image,names\n", "no image has a name"),
        (b"a.jpg\n", r"line 1: got 'a.jpg'; expected a line an image"),
        (b"a,dog\n,cat\n", r"line 2: got ',cat'"),
        (b"a,K\xe4fer\n", r"a.csv: expected text in UTF-8, got the byte 0xe4 at 3"),
        (b'a,"dog\n', r"cannot read .*unexpected end of data"),
    ],
)
def test_bad_tables_are_refused(tmp_path, content, complaint):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read_names(str(tmp_path / "a.csv"))


def test_masks_reduced_to_names(tmp_path):
    masks = {"a": [[0, 1, 3]], "b": [[0, 0, 2]], "c": [[0, 255, 0]]}
    for name in masks:
        Image.new("RGB", (3, 1)).save(tmp_path / f"{name}.jpg")
    dataset = Dataset(
        tuple(masks), ("cat", "dog", "cow"), (), lambda n: tmp_path / f"{n}.jpg", lambda n: np.uint8(masks[n])
    )
    assert names_of_masks(dataset, "abc", (1, 3)) == {"a": ("cat", "cow")}
    assert names_of_masks(dataset, "abc", (1, 2, 3)) == {"a": ("cat", "cow"), "b": ("dog",)}


class _Left:
    """A gate: the left half is salient."""

    def maps(self, block):
        half = np.zeros((1, *block.photos[0].size), np.uint16)
        half[:, :, : half.shape[2] // 2] = 1
        return [(half, [])] * len(block.photos)


@pytest.fixture
def channels(monkeypatch):
    """A classifier whose class c sees channel c."""

    class Channels(torch.nn.Module):
        corners = False

        def maps(self, images, classes):
            return images[:, classes]

    monkeypatch.setattr(heatmaps, "load", lambda name, weights: Channels())


@pytest.mark.usefixtures("channels")
def test_a_support_is_masked_by_its_name_alone():
    """Red left and green right: each name's side; a gate that leaves nothing of it, or no evidence, is passed over."""
    picture, field = torch.zeros(3, 4, 4), torch.ones(4, 4, 5)
    picture[0, :, 0], picture[1, :, 3] = 1, 2
    photo = Photo("a", picture, (8, 8))
    names = ImageNames(("red", "green", "blue"), {})
    free = CamLabeller("tiny", "random", names, np.eye(3, dtype=np.float32), None, threshold=0.5)
    gated = replace(free, gate=_Left())
    red, green, blue = (free.mask(photo, field, False, label) for label in (1, 2, 3))
    assert red.dtype == np.uint8
    assert red[:, :2].all()
    assert not red[:, 2:].any()
    assert np.array_equal(green, red[:, ::-1])
    assert blue.all()
    assert np.array_equal(gated.mask(photo, field, False, 1), red)
    assert np.array_equal(gated.mask(photo, field, False, 2), green)
    picture[1, :, 1] = 1
    assert free.mask(photo, field, False, 2)[:, 6:].all()
    assert not gated.mask(photo, field, False, 2)[:, 4:].any()


@pytest.mark.usefixtures("channels")
def test_images_are_labelled_by_their_names():
    """A red left, a green right and a blue middle."""
    names = ImageNames.of({"a": ("dog", "cat"), "b": ("cat",)})
    labeller = CamLabeller("tiny", "random", names, np.float32([[0, 1, 0], [1, 0, 0]]), None, threshold=0.5)
    picture = torch.zeros(3, 4, 4)
    picture[0, :, 0], picture[1, :, 3], picture[2, :, 1:3] = 1, 2, 1
    photos = [Photo(n, picture, (8, 8), path=f"{n}.jpg") for n in "abc"]
    fields = torch.nn.functional.normalize(torch.rand(3, 4, 4, 5, generator=torch.Generator().manual_seed(0)), dim=3)
    block = Block(photos, fields, corners=False)
    (a, regions), (b, _), (c, nothing) = labeller.maps(block)
    assert a.shape == (1, 8, 8)
    assert a.dtype == np.uint16
    expected = np.kron(np.array([2, 0, 0, 1]), np.ones((8, 2)))
    assert (a[0] == expected)[:, [0, 1, 6, 7]].all()  # a cell's border is interpolated
    assert set(np.unique(a)) == {0, 1, 2}
    assert [(region.label, region.area) for region in regions] == [(1, 0.25), (2, 0.25)]
    assert set(np.unique(b)) == {0, 1}
    assert not c.any()
    assert list(nothing) == []
    gated = CamLabeller("tiny", "random", names, labeller.shares, _Left(), threshold=0.5).maps(block)
    assert not gated[0][0][:, :, 4:].any()
    assert np.array_equal(gated[0][0][:, :, :2], a[:, :, :2])
