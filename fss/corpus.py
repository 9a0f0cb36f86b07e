"""From image files to corpus shards: what is taken, what is refused and why, under which key.

A file's shard is a function of its content's hash, so shards are uniform samples of the corpus, exact duplicates meet
in one shard wherever they lay, and no worker needs to know about any other.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable

from PIL import Image

from fss import images, rng, shards


@dataclasses.dataclass(frozen=True)
class Digest:
    """One input file: its path relative to the corpus root, size in bytes and sha256 ("" if it could not be read)."""

    path: str
    size: int
    sha256: str
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One ledger line: what became of an input. `status` is accepted, rejected or duplicate; `reason` says why."""

    path: str
    status: str
    reason: str
    key: str
    size: int
    sha256: str
    width: int = 0
    height: int = 0


def shard_of(digest: Digest, num_shards: int, seed: int) -> int:
    """The shard that an input belongs to; unreadable files, having no content, go by their path."""
    return rng.mix(seed, digest.sha256 or digest.path) % num_shards


def build_shard(
    digests: Iterable[Digest],
    read: Callable[[str], bytes],
    *,
    seed: int,
    longer_side: int = 512,
    max_pixels: int = 64_000_000,
    min_side: int = 16,
) -> tuple[bytes, list[Row]]:
    """Read, check and normalise the inputs of one shard.

    Returns the tar (samples `jpg` + `json`, shuffled by `seed` and content) and one ledger row per input, in path
    order. A JPEG that is upright, RGB and small enough keeps its bytes; anything else is re-encoded once.
    """
    first: dict[str, str] = {}
    rows: list[Row] = []
    samples: list[tuple[int, shards.Sample]] = []
    for digest in sorted(digests, key=lambda d: d.path):
        row, sample = _take(digest, first, read, longer_side, max_pixels, min_side)
        rows.append(row)
        if sample is not None:
            samples.append((rng.mix(seed, "order", row.sha256), sample))
    samples.sort(key=lambda item: item[0])
    return shards.pack(sample for _, sample in samples), rows


def _take(
    digest: Digest,
    first: dict[str, str],
    read: Callable[[str], bytes],
    longer_side: int,
    max_pixels: int,
    min_side: int,
) -> tuple[Row, shards.Sample | None]:
    def refuse(reason: str, status: str = "rejected") -> tuple[Row, None]:
        return Row(digest.path, status, reason, "", digest.size, digest.sha256), None

    if digest.error:
        return refuse(digest.error)
    if digest.sha256 in first:
        return refuse(first[digest.sha256], "duplicate")
    try:
        data = read(digest.path)
    except OSError as error:
        return refuse(f"unreadable: {error}")
    if shards.sha256(data) != digest.sha256:
        return refuse("changed while it was read")
    try:
        image = images.decode(data, max_pixels=max_pixels)
    except images.BadImageError as error:
        return refuse(str(error))
    if min(image.size) < min_side:
        return refuse(f"too_small: {image.width}x{image.height} has a side under {min_side} pixels (corpus.min_side)")
    first[digest.sha256] = digest.path
    key = digest.sha256[:24]
    small = images.fit(image, longer_side)
    jpeg = data if _is_plain_jpeg(data, image, small) else images.encode_jpeg(small)
    about = {"path": digest.path, "sha256": digest.sha256, "width": small.width, "height": small.height}
    about |= {"original_width": image.width, "original_height": image.height}
    row = Row(digest.path, "accepted", "", key, digest.size, digest.sha256, small.width, small.height)
    return row, (key, {"jpg": jpeg, "json": shards.dumps(about)})


def _is_plain_jpeg(data: bytes, image: Image.Image, small: Image.Image) -> bool:
    """Whether the file's own bytes already are what we would store: our size, RGB, nothing to rotate."""
    if image is not small or not data.startswith(b"\xff\xd8") or not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        return False
    original = Image.open(io.BytesIO(data), formats=("JPEG",))
    return original.mode == "RGB" and original.getexif().get(0x0112, 1) == 1
