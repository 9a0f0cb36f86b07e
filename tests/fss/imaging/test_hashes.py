"""Perceptual hashes: near pairs are those of brute force, and photos keep their hash through re-encoding."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fss.imaging import hashes as perceptual
from fss.imaging import images
from tests.places import SHARED

PHOTOS = SHARED / "data/voc2012/JPEGImages"


def test_distances_are_counted_bits():
    one, other = np.array([0, 2**64 - 1, 5], np.uint64), np.array([0, 0, 6], np.uint64)
    assert perceptual.distances(one, other).tolist() == [0, 64, 2]


@pytest.mark.parametrize("limit", [0, 3, 6])
def test_bands_and_blocks_find_what_brute_force_finds(limit, monkeypatch):
    monkeypatch.setattr(perceptual, "_BLOCK", 64)
    generator = np.random.default_rng(limit)
    centres = generator.integers(0, 2**63, 20, dtype=np.uint64)
    flips = [
        sum(1 << int(b) for b in generator.choice(64, generator.integers(0, 8), replace=False)) for _ in range(200)
    ]
    hashes = np.array([int(centres[i % 20]) ^ flip for i, flip in enumerate(flips)], np.uint64)
    best: dict[int, tuple[int, int]] = {}
    for band in perceptual.bands(hashes, limit + 1):
        for row, other, bits in perceptual.earlier_neighbours(hashes, band, limit):
            best[row] = min(best.get(row, (999, 0)), (other, bits))
    table = perceptual.distances(hashes[:, None], hashes[None])
    truth = {i: (int(np.flatnonzero(near)[0]), int(table[i, near.argmax()])) for i in range(1, 200)
             if (near := table[i, :i] <= limit).any()}  # fmt: skip
    assert best == truth


def test_flat_images_have_no_hash():
    assert perceptual.phash(Image.new("RGB", (90, 60), (80, 90, 100))) is None
    assert perceptual.phash(Image.linear_gradient("L")) is not None


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the real photos are not there")
def test_photos_keep_their_hash_and_differ_from_each_other():
    photos = [images.decode(path.read_bytes()) for path in sorted(PHOTOS.iterdir())[:40]]
    hashes = np.array([perceptual.phash(photo) for photo in photos], np.uint64)

    def again(change):
        return perceptual.distances(hashes, np.array([perceptual.phash(change(photo)) for photo in photos], np.uint64))

    def jpeg(photo):
        return Image.open(io.BytesIO(images.encode_jpeg(photo, quality=40)))

    assert again(jpeg).max() <= 6
    assert again(lambda photo: photo.resize((photo.width // 2, photo.height // 2))).max() <= 6
    assert np.median(again(lambda photo: ImageEnhance.Brightness(photo).enhance(0.9))) <= 4
    cropped = again(lambda photo: photo.crop((4, 4, photo.width - 4, photo.height - 4)))
    assert np.median(cropped) <= 10  # crops of 1 % are near, larger ones are not promised
    apart = perceptual.distances(hashes[:, None], hashes[None])[~np.eye(40, dtype=bool)]
    assert apart.min() > 10
