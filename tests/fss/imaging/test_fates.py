"""The fate of every kind of bad file (numbers: the project's list of bad inputs), and that metadata is not stored."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from fss import shards
from fss.imaging import images, intake, jpeg

GRADIENT = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 3, np.arange(96) * 2, 90), 2).astype(np.uint8)
LIMITS = intake.Limits(min_side=32, max_pixels=1_000_000)


def encoded(image, kind="PNG", **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(mode="RGB") -> Image.Image:
    return Image.fromarray(GRADIENT).convert(mode)


def fate(data: bytes):
    """(status, reason, stored pixels or None) of a file."""
    digest = intake.Digest("x", len(data), shards.sha256(data))
    tar, (row,) = intake.build_shard([digest], lambda _: data, seed=0, limits=LIMITS)
    stored = [np.asarray(Image.open(io.BytesIO(sample["jpg"]))) for _, sample in shards.unpack(tar)]
    return row.status, row.reason, (stored or [None])[0]


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    head = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in (head, *chunks)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def middle(data: bytes, junk: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + junk + data[half + len(junk) :]


JPEG = encoded(rgb(), "JPEG", quality=95)
NOISE = encoded(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), "JPEG")
GREY = np.asarray(rgb("L"))
FRAMES = {"save_all": True, "append_images": [Image.new("RGB", (96, 64), (9, 9, 200))]}
BROKEN_CRC = encoded(rgb()).replace(b"IDAT", b"IDAX", 1)

REJECTED = [
    (1, b"", "empty"),
    (2, b"\xff", "unreadable"),
    (3, b"<!DOCTYPE html><p>404", "unsupported"),
    (4, bytes(500), "unreadable"),
    (5, NOISE[: len(NOISE) // 2], "truncated"),
    (6, JPEG[: JPEG.index(b"\xff\xda")], "broken"),
    (7, middle(NOISE, b"\xff\x02"), "broken"),
    (24, b"\0\0\0\x18ftypheic\0\0\0\0mif1", "unsupported"),
    (24, b"\xff\x0a" + bytes(50), "unsupported"),
    (29, BROKEN_CRC, ""),
    (30, png(96, 64, (b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000))), (b"IDAT", b"")), ""),
    (31, png(0, 0), "unreadable"),
    (32, png(20_000, 20_000, (b"IDAT", b"")), "too_large"),
    (33, png(10_000, 10_000, (b"IDAT", b"")), "too_large"),
    (34, encoded(Image.new("RGB", (1, 1))), "too_small"),
    (35, encoded(Image.new("RGB", (1, 4000))), "too_small"),
    (35, encoded(Image.linear_gradient("L").resize((4000, 40))), "too_narrow"),
    (36, encoded(Image.new("RGB", (96, 64), (1, 2, 3)), "JPEG"), "constant"),
    (37, encoded(Image.new("RGBA", (96, 64))), "constant"),
    (38, b"<?xml version='1.0'?><svg/>", "unsupported"),
    (39, b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported"),
]


@pytest.mark.parametrize(("number", "data", "reason"), REJECTED)
def test_rejected(number, data, reason):
    status, said, _ = fate(data)
    assert (status, said.split(":")[0] if reason else "") == ("rejected", reason), said
    assert said


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"<!DOCTYPE html><p>404", "unsupported: a web page, not an image; download the image itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "unsupported: a git-lfs pointer, not the image; run git lfs"),
        (b"II*\0\0\0\0\0", "broken: its pixels cannot be decoded"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(data, told):
    assert fate(data)[1].startswith(told)


WHITE = np.full_like(GRADIENT, 255)
DEEP = (GREY.astype(np.uint16) << 8) | GREY
ACCEPTED = [
    (8, JPEG + b"trailing garbage", GRADIENT),
    (9, JPEG + NOISE, GRADIENT),
    (10, encoded(rgb()), GRADIENT),
    (13, encoded(rgb("CMYK"), "JPEG", quality=95), np.asarray(rgb("CMYK").convert("RGB"))),
    (13, encoded(rgb("CMYK"), "TIFF"), np.asarray(rgb("CMYK").convert("RGB"))),
    (14, encoded(rgb("L"), "JPEG"), GREY),
    (15, encoded(rgb("LA")), GREY),
    (16, encoded(np.dstack([GRADIENT, np.arange(64 * 96).reshape(64, 96) % 96 // 48 * 255]).astype(np.uint8)),
     np.where(np.arange(96)[None, :, None] < 48, WHITE, GRADIENT)),
    (17, encoded(rgb().quantize(64)), np.asarray(rgb().quantize(64).convert("RGB"))),
    (18, encoded(rgb("1")), np.asarray(rgb("1").convert("RGB"))),
    (19, encoded(DEEP), GREY),
    (19, encoded(DEEP, "TIFF"), GREY),
    (20, encoded((GREY / 255).astype(np.float32), "TIFF"), GREY),
    (21, encoded(rgb(), "TIFF", **FRAMES), GRADIENT),
    (22, encoded(rgb(), "GIF", **FRAMES), np.asarray(Image.open(io.BytesIO(encoded(rgb(), "GIF"))).convert("RGB"))),
    (23, encoded(rgb(), "WEBP", lossless=True, **FRAMES), GRADIENT),
    (24, encoded(rgb(), "AVIF", quality=100), GRADIENT),
    (25, encoded(rgb(), "JPEG", quality=95, exif=exif(6)), np.rot90(GRADIENT, -1)),
    (26, encoded(rgb(), "JPEG", quality=95, exif=exif(99)), GRADIENT),
    (27, encoded(rgb(), "JPEG", quality=95, exif=b"Exif\0\0garbage"), GRADIENT),
]  # fmt: skip


@pytest.mark.parametrize(("number", "data", "expected"), ACCEPTED)
def test_accepted_with_the_right_pixels(number, data, expected):
    status, reason, stored = fate(data)
    assert (status, reason) == ("accepted", "")
    expected = np.asarray(Image.fromarray(np.ascontiguousarray(expected)).convert("RGB")).astype(int)
    assert stored.shape == expected.shape
    hard = number in (16, 17, 18, 22)  # edges, which JPEG blurs
    assert np.abs(stored - expected).mean() < (12 if hard else 3)


def wide_gamut() -> bytes:
    """sRGB's profile with its red and green columns exchanged: what is red in the file's numbers is green."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


def test_28_a_profile_is_applied_and_srgb_is_not():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    _, _, plain = fate(encoded(rgb(), "JPEG", icc_profile=profile))
    assert np.array_equal(plain, np.asarray(Image.open(io.BytesIO(encoded(rgb(), "JPEG")))))
    _, _, moved = fate(encoded(rgb(), "JPEG", quality=95, icc_profile=wide_gamut()))
    assert np.abs(moved.astype(int) - GRADIENT[..., [1, 0, 2]]).mean() < 4
    _, _, broken = fate(encoded(rgb(), "JPEG", icc_profile=b"no profile"))
    assert np.array_equal(broken, plain)


@pytest.mark.parametrize("progressive", [False, True])
def test_stored_jpegs_tell_nothing_but_the_picture(progressive):
    secret = exif(1)
    secret[0x010F] = "secret camera"
    data = encoded(rgb(), "JPEG", exif=secret, comment="secret", xmp=b"<x>secret</x>", progressive=progressive)
    bare = jpeg.strip(data)
    assert data.count(b"secret") >= 3
    assert b"secret" not in bare
    assert bare == encoded(rgb(), "JPEG", progressive=progressive)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bare))), np.asarray(Image.open(io.BytesIO(data))))
    turned = encoded(rgb(), "JPEG", exif=exif(3), comment="secret")
    assert b"secret" not in images.encode_jpeg(images.decode(turned))


@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}])
def test_skimming_refuses_what_decoding_refuses(kind):
    data = encoded(Image.open(io.BytesIO(NOISE)), "JPEG", **kind)
    generator, refused = np.random.default_rng(3), 0
    for trial in range(60):
        at = int(generator.integers(200, len(data) - 100))
        junk = (b"", generator.bytes(40), bytes(40), bytes([data[at] ^ 8]))[trial % 4]
        hurt = data[:at] + junk + data[at + len(junk) :] if junk else data[:at]
        verdicts = []
        for skim in (False, True):
            try:
                found = images.inspect(hurt, longer_side=96, skim=skim)
                verdicts.append((found.width, found.height, found.as_stored))
            except images.BadImageError as error:
                verdicts.append(error.reason)
        assert verdicts[0] == verdicts[1]
        refused += isinstance(verdicts[0], str)
    assert 10 < refused < 60


@pytest.mark.parametrize(
    ("data", "longer_side", "size"),
    [
        (JPEG, 96, (12, 8)),
        (JPEG, 95, (96, 64)),
        (JPEG, None, (96, 64)),
        (encoded(rgb()), 96, (96, 64)),
        (encoded(rgb("L"), "JPEG"), 96, (96, 64)),
        (encoded(rgb(), "JPEG", exif=exif(6)), 96, (64, 96)),
    ],
)
def test_only_what_is_kept_as_it_is_gets_skimmed(data, longer_side, size):
    found = images.inspect(data, longer_side=longer_side, skim=True)
    assert found.image.size == size
    assert (found.width, found.height) == ((64, 96) if size == (64, 96) else (96, 64))


def test_a_picture_that_is_plain_at_an_eighth_is_not_constant():
    """Every block has the same mean."""
    blocks = np.full((64, 96), 128, np.uint8)
    blocks[::2] += 40
    blocks[1::2] -= 40
    data = encoded(Image.fromarray(blocks).convert("RGB"), "JPEG", quality=95)
    assert images.inspect(data, longer_side=96, skim=True).image.getcolors(1) is not None
    assert fate(data)[:2] == ("accepted", "")


def lossless_jpeg(grey: np.ndarray) -> bytes:
    """A lossless JPEG (T.81, process 14, predictor 1): differences to the left, each size with a code of five bits."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    height, width = grey.shape
    bits = ""
    for y in range(height):
        for x in range(width):
            before = 128 if x == y == 0 else int(grey[y - 1, 0] if x == 0 else grey[y, x - 1])
            step = int(grey[y, x]) - before
            size = abs(step).bit_length()
            bits += f"{size:05b}" + (f"{step if step > 0 else step + (1 << size) - 1:0{size}b}" if size else "")
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    table = b"\0" + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17))
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"
    parts = [segment(0xC3, frame), segment(0xC4, table), segment(0xDA, b"\1\1\0\1\0\0"), scan]
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9"


def test_lossless_jpegs_are_taken():
    """No decoder gives them at a part of their size: asking for it was an error."""
    data = lossless_jpeg(GREY)
    assert jpeg.is_lossless(data)
    assert not jpeg.is_lossless(JPEG)
    assert np.array_equal(np.asarray(images.decode(data))[..., 0], GREY)
    for longer_side in (96, 20, 5):
        found = images.inspect(data, longer_side=longer_side, skim=True)
        assert (found.image.size, found.as_stored) == ((96, 64), False)
    status, reason, stored = fate(data)
    assert (status, reason) == ("accepted", "")
    assert np.abs(stored[..., 0].astype(int) - GREY).max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_25_every_orientation_is_turned_as_pillow_does(orientation):
    data = encoded(rgb(), "JPEG", quality=95, exif=exif(orientation))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(images.decode(data)), np.asarray(expected))
    assert images.upright_size(data) == expected.size


def test_7_damage_is_seen_where_it_makes_a_marker():
    """Random bytes over a sector of compressed data are found most of the times; Pillow alone says nothing."""
    generator, found = np.random.default_rng(1), 0
    for _ in range(50):
        try:
            jpeg.strip(middle(NOISE, generator.bytes(1024)))
        except ValueError as error:
            found += "in the compressed data at byte" in str(error)
    assert found >= 40
