"""Source saliency: a painted side comes back as label 1 with its region; maps from files by their rule and place."""

import numpy as np
import pytest
import torch
from PIL import Image

from fss.labelling.sources import Block, Photo
from fss.labelling.sources.saliency import MapReader, SaliencyLabeller
from tests.fss.clustering.test_saliency import painted

SIDE = np.zeros((10, 10), bool)
SIDE[3:7, 2:8] = True


def block(*sides: np.ndarray, size=(40, 40), path="sub/a.jpg") -> Block:
    """Images of two kinds of tokens each."""
    fields = torch.from_numpy(np.stack([painted(side) for side in sides]))
    photos = [Photo(f"{i}", torch.zeros(0), size, path=path) for i in range(len(sides))]
    return Block(photos, fields, corners=False)


def test_what_is_salient_is_label_one_and_one_region():
    turned = SIDE.T.copy()
    together, (alone,) = SaliencyLabeller().maps(block(SIDE, turned)), SaliencyLabeller().maps(block(turned))
    for side, (maps, regions) in zip((SIDE, turned), together, strict=True):
        assert maps.shape == (1, 40, 40)
        assert set(np.unique(maps)) == {0, 1}
        middle = maps[0, 2::4, 2::4]  # a cell is 4 pixels
        assert (middle == side).mean() > 0.95
        (region,) = regions
        assert (region.layer, region.label, region.border) == (0, 1, 0.0)
        assert region.area == pytest.approx(0.24)
        expected = painted(side)[side].mean(axis=0)
        assert region.descriptor == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)
    assert np.array_equal(together[1][0], alone[0])  # of the image alone, whatever is in its block


def test_an_image_without_structure_has_no_region():
    plain = Block([Photo("0", torch.zeros(0), (8, 8))], torch.full((1, 5, 5, 4), 0.5), corners=True)
    ((maps, regions),) = SaliencyLabeller().maps(plain)
    assert not maps.any()
    assert list(regions) == []


GREYS = np.tile(np.array([0, 1, 127, 128, 254, 255]), (6, 1))
RULES = {
    "saliency": (GREYS.astype(np.uint8), "saliency", [0, 0, 0, 1, 1, 1]),
    "of 16 bits": ((GREYS * 257).astype(np.uint16), "saliency", [0, 0, 0, 1, 1, 1]),
    "shares": ((GREYS / 255).astype(np.float32), "saliency", [0, 0, 0, 1, 1, 1]),
    "0 and 1": ((GREYS > 127).astype(np.uint8), "saliency", [0, 0, 0, 1, 1, 1]),
    "colours": (np.repeat(GREYS.astype(np.uint8)[..., None], 3, axis=2), "saliency", [0, 0, 0, 1, 1, 1]),
    "classes": (GREYS.astype(np.uint8), "classes", [0, 1, 1, 1, 1, 0]),
}


@pytest.mark.parametrize("name", RULES)
def test_the_rules_of_maps(tmp_path, name):
    values, kind, expected = RULES[name]
    Image.fromarray(values).save(tmp_path / "a.tiff")
    photo = Block([Photo("0", torch.zeros(0), (6, 6), path="sub/a.jpg")], torch.zeros(1, 6, 6, 4), corners=True)
    ((maps, _),) = MapReader(tmp_path, "", kind).maps(photo)
    assert maps[0].tolist() == [expected] * 6
    with pytest.raises(ValueError, match=r"kind of saliency, classes, got 'masks'; set source\.maps_kind"):
        MapReader(tmp_path, "", "masks")


@pytest.mark.parametrize("place", ["sub/a.png", "a.png", "a_mask.png", "sub/a.jpg.PNG", "a-gt.bmp"])
def test_maps_lie_where_their_images_lie_or_directly_in_the_folder(tmp_path, place):
    (tmp_path / "sub").mkdir()
    large = np.kron(SIDE, np.ones((8, 8), bool))  # twice the stored image
    Image.fromarray((large * 200).astype(np.uint8)).save(tmp_path / place)
    ((maps, (region,)),) = MapReader(tmp_path, "").maps(block(SIDE))
    assert np.array_equal(maps[0], np.kron(SIDE, np.ones((4, 4))))
    assert (region.label, region.area) == (1, pytest.approx(0.24))


def test_a_missing_map_is_nothing_and_one_of_another_shape_an_error(tmp_path):
    ((maps, regions),) = MapReader(tmp_path, "empty").maps(block(SIDE))
    assert (maps.any(), list(regions)) == (False, [])
    Image.fromarray(np.zeros((40, 60), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"shape of its image, 40x40 or larger, got 60x40; check source\.maps"):
        MapReader(tmp_path, "one").maps(block(SIDE))
