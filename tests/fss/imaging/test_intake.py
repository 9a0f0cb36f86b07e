"""Corpus shards: every input is accounted for, duplicates meet, and the bytes depend on the content alone."""

import io
import itertools
import json
import random

import numpy as np
import pytest
from PIL import Image

from fss import shards
from fss.imaging import images, intake


def picture(seed: int, size: tuple[int, int] = (40, 30), kind: str = "JPEG", **options: object) -> bytes:
    array = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def digest(path: str, data: bytes) -> intake.Digest:
    return intake.Digest(path, len(data), shards.sha256(data))


def build(files: dict[str, bytes], order: list[str] | None = None, **options: object):
    digests = [digest(path, files[path]) for path in order or list(files)]
    data, rows = intake.build_shard(digests, lambda d: files[d.path], seed=0, limits=intake.Limits(**options))
    return data, {row.path: row for row in rows}


def samples_of(data: bytes) -> dict[str, dict[str, bytes]]:
    return dict(shards.unpack(data))


def test_an_accepted_image_is_a_sample_with_its_story():
    data, rows = build({"a/x.jpg": picture(0)})
    key = shards.sha256(picture(0))[:24]
    assert rows["a/x.jpg"] == intake.LedgerRow(
        "a/x.jpg", "accepted", "", key, len(picture(0)), shards.sha256(picture(0)), 40, 30
    )
    sample = samples_of(data)[key]
    assert json.loads(sample["json"]) == {
        "path": "a/x.jpg",
        "sha256": shards.sha256(picture(0)),
        "bytes": len(picture(0)),
        "width": 40,
        "height": 30,
        "original_width": 40,
        "original_height": 30,
    }


def test_upright_rgb_jpegs_keep_their_bytes_up_to_the_end_of_the_picture():
    files = {
        "a.jpg": picture(0),
        "b.jpg": picture(1) + b"\0" * 7,
        "c.jpg": picture(2) + picture(3),
        "d.jpg": rotated(1),
    }
    data, _ = build(files)
    stored = {sample["jpg"] for sample in samples_of(data).values()}
    assert stored == {picture(0), picture(1), picture(2), picture(4)}


def rotated(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture(2 if orientation == 6 else 4, exif=exif, comment="taken at home")


def grey() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((40, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("original", "size"),
    [
        (picture(0, kind="PNG"), (40, 30)),
        (rotated(), (30, 40)),
        (grey(), (40, 30)),
        (picture(0, (200, 100)), (64, 32)),
        (picture(0, (600, 400)), (64, 43)),
    ],
    ids=["png", "rotated", "grey", "large", "drafted"],
)
def test_anything_else_is_encoded_once(original, size):
    data, rows = build({"a": original}, longer_side=64)
    ((_, sample),) = samples_of(data).items()
    assert sample["jpg"] != original
    stored = Image.open(io.BytesIO(sample["jpg"]))
    assert (stored.format, stored.mode, stored.size) == ("JPEG", "RGB", size)
    assert (rows["a"].width, rows["a"].height) == size
    again = images.fit(images.inspect(original, longer_side=64).image, 64)
    assert sample["jpg"] == images.encode_jpeg(again)


def test_a_corrupt_exif_block_does_not_stop_a_shard():
    data, rows = build({"a.jpg": picture(0, exif=b"Exif\0\0garbage that is no TIFF header"), "b.jpg": picture(1)})
    assert {row.status for row in rows.values()} == {"accepted"}
    assert len(samples_of(data)) == 2


def test_exact_duplicates_are_found_and_name_the_first_by_path():
    files = {"z.jpg": picture(0), "a.jpg": picture(0), "m.jpg": picture(0), "b.jpg": picture(1)}
    data, rows = build(files)
    assert len(samples_of(data)) == 2
    assert {path: (row.status, row.reason, bool(row.key)) for path, row in rows.items()} == {
        "a.jpg": ("accepted", "", True),
        "b.jpg": ("accepted", "", True),
        "m.jpg": ("duplicate", "a.jpg", False),
        "z.jpg": ("duplicate", "a.jpg", False),
    }


def test_every_input_gets_one_row_in_path_order():
    files = {
        "text.jpg": b"<html>",
        "empty.png": b"",
        "good.jpg": picture(0),
        "cut.jpg": picture(1)[:900],
        "tiny.png": picture(2, (40, 9), "PNG"),
        "huge.png": picture(3, (120, 100), "PNG"),
    }
    digests = [digest(path, data) for path, data in files.items()]
    digests.append(intake.Digest("gone.jpg", 5, "0" * 64))
    digests.append(intake.Digest("locked.jpg", 0, "", error="unreadable: permission denied"))
    digests.append(intake.Digest("moving.jpg", 5, "1" * 64))
    data, rows = intake.build_shard(digests, _reader(files), seed=0, limits=intake.Limits(max_pixels=10_000))
    assert [row.path for row in rows] == sorted(d.path for d in digests)
    reasons = {row.path: (row.status, row.reason) for row in rows}
    assert reasons.pop("good.jpg") == ("accepted", "")
    assert {status for status, _ in reasons.values()} == {"rejected"}
    assert reasons["empty.png"][1] == "empty: expected an image file, got 0 bytes"
    assert reasons["text.jpg"][1].startswith("unsupported: a web page, not an image; download")
    assert reasons["cut.jpg"][1].startswith("truncated: ")
    assert reasons["tiny.png"][1] == "too_small: 40x9 has a side under 16 pixels (corpus.min_side)"
    assert reasons["huge.png"][1].startswith("too_large: 120x100 is over the budget of 10000 pixels; shrink it, or")
    assert reasons["gone.jpg"][1] == "unreadable: no such file"
    assert reasons["locked.jpg"][1] == "unreadable: permission denied"
    assert reasons["moving.jpg"][1] == "changed while it was read"
    assert len(samples_of(data)) == 1


def _reader(files: dict[str, bytes]):
    def read(wanted: intake.Digest) -> bytes:
        if wanted.path == "moving.jpg":
            return picture(9)
        if wanted.path not in files:
            raise intake.GoneError("unreadable: no such file")
        return files[wanted.path]

    return read


def test_a_bad_file_twice_is_rejected_twice():
    _, rows = build({"a.jpg": b"<html>", "b.jpg": b"<html>"})
    assert [row.status for row in rows.values()] == ["rejected", "rejected"]


def test_bytes_do_not_depend_on_the_order_of_the_inputs():
    files = {f"{i}.jpg": picture(i % 5) for i in range(8)}
    order = list(files)
    first = build(files)
    for shuffle in range(3):
        random.Random(shuffle).shuffle(order)
        assert build(files, order) == first


def test_the_seed_and_the_content_order_the_samples():
    files = {f"{i}.jpg": picture(i) for i in range(8)}
    digests = [digest(path, data) for path, data in files.items()]
    orders = [list(samples_of(intake.build_shard(digests, lambda d: files[d.path], seed=s)[0])) for s in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    assert len({frozenset(order) for order in orders}) == 1


def test_the_shard_is_a_function_of_content_and_seed():
    one, twin = digest("a.jpg", b"same"), digest("b.jpg", b"same")
    assert intake.shard_of(one, 7, seed=0) == intake.shard_of(twin, 7, seed=0)
    lost = [intake.Digest(f"{i}", 0, "", "unreadable") for i in range(50)]
    assert len({intake.shard_of(d, 7, seed=0) for d in lost}) == 7
    places = [[intake.shard_of(digest("", bytes([i, j])), 4, seed=0) for i in range(30)] for j in range(30)]
    counts = np.bincount(list(itertools.chain(*places)), minlength=4)
    assert counts.min() > 180
