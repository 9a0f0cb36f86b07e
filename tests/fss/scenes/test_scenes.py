"""The embedded corpus: deterministic, balanced enough, and ordinary files on disk."""

import json

import numpy as np
import pytest
from PIL import Image

from fss.scenes.paint import TEXTURES, cover, noise_tile
from fss.scenes.scene import CLASSES, VOID, render, write
from fss.scenes.shapes import SHAPES, box

SCENES = 120


@pytest.fixture(scope="module")
def masks() -> list[np.ndarray]:
    return [render(5, index, 96)[1] for index in range(SCENES)]


def test_a_scene_is_a_pure_function_of_seed_and_index() -> None:
    image, mask = render(3, 7, 96)
    render(3, 8, 96)
    again, mask_again = render(3, 7, 96)
    assert image.tobytes() == again.tobytes()
    assert np.array_equal(mask, mask_again)
    assert image.tobytes() != render(3, 8, 96)[0].tobytes()
    assert image.tobytes() != render(4, 7, 96)[0].tobytes()


def test_a_mask_agrees_with_its_image_and_the_classes(masks: list[np.ndarray]) -> None:
    image, mask = render(0, 0, 128)
    assert image.mode == "RGB"
    assert image.size == mask.shape == (128, 128)
    assert {int(label) for mask in masks for label in np.unique(mask)} <= {*range(len(CLASSES) + 1), VOID}
    assert all(mask.dtype == np.uint8 for mask in masks)


def test_there_are_four_even_folds_and_every_class_appears(masks: list[np.ndarray]) -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 20
    scenes_of = [sum(bool((mask == label).any()) for mask in masks) for label in range(1, len(CLASSES) + 1)]
    assert min(scenes_of) >= 3
    assert max(scenes_of) <= SCENES / 4


def test_scenes_hold_several_classes_and_mostly_background(masks: list[np.ndarray]) -> None:
    classes = np.array([len(set(np.unique(mask)) - {0, VOID}) for mask in masks])
    assert set(classes) >= {1, 2, 3}
    assert classes.max() <= 4
    assert 1.5 < classes.mean() < 3
    background = np.mean([(mask == 0).mean() for mask in masks])
    assert 0.6 < background < 0.9
    assert 0.005 < np.mean([(mask == VOID).mean() for mask in masks]) < 0.1


def test_colour_alone_does_not_name_a_class() -> None:
    scenes = [render(1, index, 64) for index in range(120)]
    for label in (1, 2):
        seen = [np.asarray(image)[mask == label] for image, mask in scenes]
        colours = [pixels.mean(0) for pixels in seen if len(pixels) > 20]
        assert np.std(colours, axis=0).mean() > 15


def test_ranges_written_apart_are_the_corpus_written_at_once(tmp_path) -> None:
    write(tmp_path / "once", 10, seed=2, size=64)
    write(tmp_path / "apart", 10, seed=2, size=64, start=6)
    write(tmp_path / "apart", 10, seed=2, size=64, stop=6)
    once, apart = (
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("once", "apart")
    )
    assert once == apart
    assert len(once) == 10 + 10 + 2 + 1
    assert once["ImageSets/train.txt"].split() == [b"%06d" % i for i in range(8)]
    assert once["ImageSets/val.txt"].split() == [b"000008", b"000009"]
    assert json.loads(once["classes.json"]) == list(CLASSES)


def test_files_hold_what_was_rendered(tmp_path) -> None:
    write(tmp_path, 3, seed=1, size=64, start=2)
    image, mask = render(1, 2, 64)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "SegmentationClass/000002.png")), mask)
    written = np.asarray(Image.open(tmp_path / "JPEGImages/000002.jpg")).astype(int)
    assert np.abs(written - np.asarray(image)).mean() < 16
    assert not (tmp_path / "JPEGImages/000001.jpg").exists()


def test_wrong_arguments_say_what_is_right(tmp_path) -> None:
    with pytest.raises(ValueError, match="at least 32 pixels"):
        render(0, 0, 16)
    with pytest.raises(ValueError, match="count = 4, got 3 and 9"):
        write(tmp_path, 4, start=3, stop=9)


def test_coverage_is_the_area_of_the_polygon() -> None:
    rows, columns, share = cover(box(2, 3, 7, 9), 32)
    whole = np.zeros((32, 32))
    whole[rows, columns] = share
    assert (whole[3:9, 2:7] == 1).all()
    assert whole.sum() == pytest.approx(30, abs=6)
    assert cover(box(40, 40, 50, 50), 32) is None


@pytest.mark.parametrize("name", TEXTURES)
def test_textures_stay_in_range_and_vary(name: str) -> None:
    noise = noise_tile(np.random.default_rng(0))
    v, u = np.mgrid[-3:3:64j, -3:3:64j].astype(np.float32)
    mix = TEXTURES[name](u, v, noise)
    assert mix.shape == u.shape
    assert 0 <= mix.min() <= mix.max() <= 1
    assert name == "plain" or mix.std() > 0.1


@pytest.mark.parametrize("name", CLASSES)
def test_parts_fill_their_frame(name: str) -> None:
    for seed in range(5):
        parts = SHAPES[name](np.random.default_rng(seed))
        points = np.concatenate([part.points for part in parts])
        assert len(parts) >= 2
        assert np.abs(points).max() <= 1.1
        assert np.ptp(points, axis=0).min() > 0.6
        assert {part.texture for part in parts} <= set(TEXTURES)
