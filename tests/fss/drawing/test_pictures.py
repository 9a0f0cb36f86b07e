import numpy as np
import pytest
from PIL import Image

from fss.drawing import pictures
from fss.drawing.pictures import (
    BLUE,
    ORANGE,
    YELLOW,
    colour_of,
    contact_sheet,
    episode_picture,
    fit,
    fit_mask,
    heat,
    label_map_picture,
    label_maps_sheet,
    label_overlay,
    outline,
    overlay,
    task_sheet,
    to_rgb,
)

SQUARE = np.zeros((9, 9), np.uint8)
SQUARE[2:7, 2:7] = 1


@pytest.mark.parametrize(
    ("image", "value"),
    [
        (np.full((2, 3), 7, np.uint8), 7),
        (np.full((2, 3, 3), 0.5), 128),
        (np.full((2, 3, 4), 9, np.uint8), 9),
        (np.full((2, 3, 3), np.nan), 0),
        (Image.new("L", (3, 2), 11), 11),
    ],
)
def test_to_rgb(image, value):
    rgb = to_rgb(image)
    assert rgb.shape == (2, 3, 3)
    assert rgb.dtype == np.uint8
    assert (rgb == value).all()


def test_an_image_with_channels_first_is_an_error():
    with pytest.raises(ValueError, match=r"got \(3, 5, 5\): move channels last"):
        to_rgb(np.zeros((3, 5, 5)))


def test_outline_is_the_inner_rim():
    rim = outline(SQUARE, width=1)
    assert rim.sum() == 16
    assert not rim[3:6, 3:6].any()
    assert outline(SQUARE, width=2).sum() == 24
    assert outline(SQUARE, width=0).sum() == 0
    assert outline(np.ones((4, 4)), width=1).sum() == 12, "the image's border counts as an edge"


def test_overlay_tints_the_inside_and_leaves_void_and_input_alone():
    image = np.full((9, 9, 3), 100, np.uint8)
    mask = SQUARE.copy()
    mask[0, 0] = 255
    picture = overlay(image, mask, (200, 0, 100), alpha=0.25, outline_width=1)
    assert (picture[4, 4] == (125, 75, 100)).all()
    assert (picture[2, 2] == (200, 0, 100)).all()
    assert (picture[0, 0] == 100).all()
    assert (picture[8] == 100).all()
    assert (image == 100).all()


def test_overlay_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"image \(4, 4\) and mask \(9, 9\) differ in size"):
        overlay(np.zeros((4, 4, 3)), SQUARE)
    with pytest.raises(ValueError, match="take one mask at a time"):
        overlay(np.zeros((9, 9, 3)), SQUARE[None])


def test_label_colours_are_stable_and_distinct():
    assert label_map_picture(np.array([[3, 7]]))[0, 0].tolist() == list(colour_of(3))
    assert label_map_picture(np.array([[7, 3, 9]], np.uint16))[0, 1].tolist() == list(colour_of(3))
    colours = np.array([colour_of(label) for label in range(64)])
    distances = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(64)
    assert distances.min() > 10
    neighbours = np.abs(np.diff(colours[:32], axis=0)).sum(1)
    assert neighbours.min() > 100


def test_void_is_grey_and_configurable():
    assert label_map_picture(np.array([[255]]))[0, 0].tolist() == [225, 225, 225]
    assert label_map_picture(np.array([[255]]), void=None)[0, 0].tolist() == list(colour_of(255))


def test_label_overlay_keeps_void_and_draws_borders():
    labels = np.zeros((4, 6), np.uint8)
    labels[:, 3:] = 1
    labels[0] = 255
    image = np.full((4, 6, 3), 80, np.uint8)
    picture = label_overlay(image, labels, alpha=1.0)
    assert (picture[0] == 80).all()
    assert picture[2, 1].tolist() == list(colour_of(0))
    assert picture[2, 3].tolist() == [40, 40, 40]
    assert picture[2, 5].tolist() == list(colour_of(1))


def test_heat_spans_the_colour_map():
    picture = heat(np.array([[0.0, 1.0, np.nan]]))
    assert picture[0, 0].tolist() == picture[0, 2].tolist() == [68, 1, 84]
    assert picture[0, 1].tolist() == [253, 231, 37]
    assert heat(np.full((2, 2), 3.0)).shape == (2, 2, 3)
    assert (heat(np.array([[5.0]]), 0, 5) == heat(np.array([[9.0]]), 0, 5)).all()


@pytest.mark.parametrize(("shape", "expected"), [((10, 20), (25, 50)), ((20, 10), (50, 25)), ((1, 200), (1, 50))])
def test_fit_keeps_the_aspect_ratio_for_images_and_masks(shape, expected):
    assert fit(np.zeros(shape), 50).shape == (*expected, 3)
    assert fit_mask(np.zeros(shape, np.uint8), 50).shape == expected


def test_fit_mask_mixes_no_labels():
    labels = np.array([[1, 900], [255, 40_000]], np.uint16)
    resized = fit_mask(labels, 31)
    assert resized.dtype == np.uint16
    assert set(np.unique(resized)) == {1, 255, 900, 40_000}


def test_contact_sheet_layout():
    red, wide = np.zeros((40, 40, 3), np.uint8), np.zeros((20, 40, 3), np.uint8)
    red[..., 0] = 255
    sheet = contact_sheet([[red, red], [wide]], cell=40)
    assert sheet.shape == (6 + 40 + 6 + 20 + 6, 2 * 46 + 6, 3)
    assert sheet[20, 20].tolist() == [255, 0, 0]
    assert sheet[6 + 46 + 10, 20].tolist() == [0, 0, 0]
    assert sheet[6 + 46 + 10, 70].tolist() == [255, 255, 255], "a short row leaves paper"
    taller = contact_sheet([[red]], [["a caption much too long for its cell, and then some"]], "title", cell=40)
    assert taller.shape[0] > 46 + 6
    assert taller.shape[1] == 40 + 12


def test_a_title_is_not_cut_off():
    red = np.zeros((40, 40, 3), np.uint8)
    sheet = contact_sheet([[red]], title="a title that is wider than all of its pictures", cell=40)
    inked = np.flatnonzero((sheet[:20] != 255).any((0, 2)))
    assert inked[-1] > 200
    assert sheet.shape[1] - inked[-1] > 3, "it ends within the sheet"


def test_letters_of_other_alphabets_are_drawn():
    """A font that lacks them draws one and the same box for all."""
    shapes = {bytes(pictures.font(20).getmask(letter)) for letter in "äöéñøłΩЖ"}
    assert len(shapes) == 8


def test_an_empty_contact_sheet_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([[], []])


def test_episode_picture_shows_support_query_prediction_and_truth():
    grey = np.full((90, 90, 3), 128, np.uint8)
    mask = np.zeros((90, 90), np.uint8)
    mask[20:70, 20:70] = 1
    shifted = np.roll(mask, 20, axis=1)
    picture = episode_picture([grey, grey], [mask, mask], grey, mask, shifted, cell=90)
    assert picture.shape[1] == 4 * 96 + 6
    cells = [picture[6:96, 6 + 96 * j : 96 + 96 * j] for j in range(4)]
    assert cells[0][20, 30].tolist() == cells[1][20, 30].tolist() == list(ORANGE)
    assert (cells[2] == 128).all()
    assert cells[3][45, 20].tolist() == list(YELLOW)
    tinted = np.rint(0.55 * 128 + 0.45 * np.array(BLUE))
    assert cells[3][45, 80].tolist() == tinted.tolist()
    without = episode_picture([grey], [mask], grey, None, shifted, cell=90)
    assert not (without == YELLOW).all(-1).any()


def test_episode_picture_wants_a_mask_per_support():
    grey = np.zeros((4, 4, 3))
    with pytest.raises(ValueError, match="got 2 images and 1 masks"):
        episode_picture([grey, grey], [np.zeros((4, 4))], grey, None, np.zeros((4, 4)))


def test_a_sheet_of_label_maps_has_a_column_for_each_step():
    image, labels = np.full((20, 30, 3), 90, np.uint8), np.arange(600).reshape(20, 30) // 300
    sheet = label_maps_sheet([image] * 2, {"ncut": [labels] * 2, "none": [labels] * 2}, cell=60)
    assert sheet.shape[1] == 3 * 66 + 6
    with pytest.raises(ValueError, match="shorter"):
        label_maps_sheet([image] * 2, {"ncut": [labels]})


def test_a_task_sheet_marks_the_query_the_support_and_the_distractor():
    image, empty = np.full((9, 9, 3), 100, np.uint8), np.zeros((9, 9), np.uint8)
    sheet = task_sheet([([image] * 3, [SQUARE, SQUARE, empty])], cell=60)
    columns = [sheet[:, start : start + 66].reshape(-1, 3) for start in (6, 72, 138)]
    found = [{colour for colour in (BLUE, ORANGE) if (part == colour).all(axis=1).any()} for part in columns]
    assert found == [{BLUE}, {ORANGE}, set()]
    with pytest.raises(ValueError, match="at least one image"):
        task_sheet([])
