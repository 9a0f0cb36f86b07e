import numpy as np
import pytest

from fss.drawing import atlas, pictures


def test_a_crop_shows_the_region_in_its_square():
    image = np.full((40, 60, 3), 10, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:50] = True  # 20 wide, 10 high: a square of 25 around (40, 15)
    image[mask] = (200, 0, 0)
    found = atlas.crop(image, mask, 100)
    assert found.shape == (100, 100, 3)
    assert found[50, 50].tolist() == [200, 0, 0]
    assert found[5, 50].tolist() == [106] * 3  # dimmed: 0.55 * 10 + 0.45 * 225
    blue = (found == pictures.BLUE).all(axis=2)
    rows, columns = np.flatnonzero(blue.any(axis=1)), np.flatnonzero(blue.any(axis=0))
    assert rows[[0, -1]] == pytest.approx([30, 69], abs=4)
    assert columns[[0, -1]] == pytest.approx([10, 89], abs=4)


def test_a_region_at_the_corner_has_paper_beyond_the_image():
    image, mask = np.zeros((30, 30, 3), np.uint8), np.zeros((30, 30), bool)
    mask[:10, :10] = True
    found = atlas.crop(image, mask, 48)
    assert found[0, 0].tolist() == pytest.approx([225] * 3, abs=6)  # resampling swings a little
    assert found[30, 30].max() < 6
    assert atlas.crop(image, np.ones((30, 30), bool), 48).shape == (48, 48, 3)


def test_a_page_has_a_place_for_every_crop():
    crops = [np.full((32, 32, 3), colour, np.uint8) for colour in ((200, 10, 10), (10, 200, 10))]
    rows = [atlas.AtlasRow(str(i), "figures", crops) for i in range(3)]
    found = atlas.page(rows, crops=2, size=32, columns=2)
    assert [int((found == crop[0, 0]).all(axis=2).sum()) for crop in crops] == [3 * 32 * 32] * 2
    assert not (atlas.page(rows[:1], crops=2, size=32) == atlas.page(rows[1:2], crops=2, size=32)).all()  # names differ
    with pytest.raises(ValueError, match="got none"):
        atlas.page([], crops=2, size=32)


@pytest.mark.parametrize(("number", "pages"), [(5, [5]), (60, [60]), (61, [31, 30]), (150, [50, 50, 50])])
def test_rows_spread_evenly_over_pages(number, pages):
    assert atlas.paged(number, 60) == pages
