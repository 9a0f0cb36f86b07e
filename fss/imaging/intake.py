"""From image files to corpus shards: what is taken, what is refused and why, under which key.

A file's shard is a function of its content's hash, so shards are uniform samples of the corpus, exact duplicates meet
in one shard wherever they lay, and no worker needs to know about any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from fss import rng, shards
from fss.imaging import images, jpeg
from fss.imaging.colour import Reading
from fss.imaging.images import BadImageError
from fss.texts import shown


class GoneError(Exception):
    """An input that was there when it was hashed and cannot be had any more; `str` is the reason for the ledger."""


@dataclasses.dataclass(frozen=True)
class Digest:
    """One input: its path as the corpus names it, size in bytes and sha256 ("" if it could not be read: `error`).

    A member of a tar has the byte `offset` of its content in there. `near` says of which image it is a near-duplicate.
    """

    path: str
    size: int
    sha256: str
    error: str = ""
    offset: int = -1
    near: str = ""


@dataclasses.dataclass(frozen=True)
class LedgerRow:
    """One ledger line: what became of an input. `status` is accepted, rejected or duplicate; `reason` says why."""

    path: str
    status: str
    reason: str
    key: str
    size: int
    sha256: str
    width: int = 0
    height: int = 0


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is taken: bytes of a file, pixels it decodes to, shorter side; the longer side that is stored; and how
    numbers are read that do not say which colours and how bright they are.
    """

    longer_side: int = 512
    max_pixels: int = 64_000_000
    min_side: int = 16
    max_bytes: int = 1 << 29
    bands: tuple[int, ...] | None = None
    range: tuple[float, float] | None = None

    @property
    def reading(self) -> Reading:
        """How numbers become light."""
        return Reading(self.bands, self.range)


def shard_of(digest: Digest, num_shards: int, seed: int) -> int:
    """The shard that an input belongs to; unreadable files, having no content, go by their path."""
    return rng.mix(seed, digest.sha256 or shown(digest.path)) % num_shards


def accept(data: bytes, limits: Limits, longer_side: int, skim: bool = False) -> tuple[images.Decoded, bytes | None]:
    """The image of `data`, if the corpus takes it, and a JPEG's bytes without metadata (None where it has odd ones).

    A JPEG may come decoded at a fraction of its size, see `images.inspect` on `longer_side` and `skim`.

    Raises:
        BadImageError: as `images.inspect`, or with reason `too_small`, `too_narrow` or `constant`.
    """
    most, reading = limits.max_pixels, limits.reading
    decoded = images.inspect(data, max_pixels=most, longer_side=longer_side, skim=skim, reading=reading)
    size, side = f"{decoded.width}x{decoded.height}", limits.min_side
    if min(decoded.width, decoded.height) < side:
        raise BadImageError("too_small", f"{size} has a side under {side} pixels (corpus.min_side)")
    stored = min(1.0, limits.longer_side / max(decoded.width, decoded.height)) * min(decoded.width, decoded.height)
    if round(stored) < min(side, limits.longer_side):
        raise BadImageError(
            "too_narrow",
            f"{size} would be stored with a side of {round(stored)} pixels, under corpus.min_side={side}; "
            "cut it into pieces or raise corpus.longer_side",
        )
    if _is_constant(decoded.image) and (
        not skim or _is_constant(images.decode(data, max_pixels=most, reading=reading))
    ):
        raise BadImageError("constant", "all pixels have one colour: there is nothing to learn from it")
    try:
        return decoded, jpeg.strip(data)
    except ValueError as error:
        raise BadImageError("broken", str(error)) from error


def _is_constant(image: Image.Image) -> bool:
    if image.resize((8, 8), Image.Resampling.NEAREST).getcolors(1) is None:  # cheap, and true of nearly all
        return False
    pixels = np.asarray(image)
    return bool((pixels == pixels[0, 0]).all())


def build_shard(
    digests: Iterable[Digest], read: Callable[[Digest], bytes], *, seed: int, limits: Limits = Limits()
) -> tuple[bytes, list[LedgerRow]]:
    """Read, check and normalise the inputs of one shard.

    Returns the tar (samples `jpg` + `json`, shuffled by `seed` and content) and one ledger row per input, in path
    order. `read` raises `GoneError` for what cannot be had any more. A JPEG that is upright, sRGB and small enough
    keeps its compressed data, without its metadata; anything else is re-encoded once.
    """
    first: dict[str, str] = {}
    rows: list[LedgerRow] = []
    samples: list[tuple[int, shards.Sample]] = []
    for digest in sorted(digests, key=lambda d: (d.path, d.offset)):
        try:
            row, sample = _take(digest, first, read, limits)
        except (BadImageError, GoneError) as error:
            rows.append(_row(digest, "rejected", str(error)))
            continue
        rows.append(row)
        if sample is not None:
            samples.append((rng.mix(seed, "order", row.sha256), sample))
    samples.sort(key=lambda item: item[0])
    return shards.pack(sample for _, sample in samples), rows


def _row(digest: Digest, status: str, reason: str) -> LedgerRow:
    return LedgerRow(shown(digest.path), status, shown(reason), "", digest.size, digest.sha256)


def _take(
    digest: Digest, first: dict[str, str], read: Callable[[Digest], bytes], limits: Limits
) -> tuple[LedgerRow, shards.Sample | None]:
    if digest.error:
        return _row(digest, "rejected", digest.error), None
    if digest.near or digest.sha256 in first:
        return _row(digest, "duplicate", digest.near or first[digest.sha256]), None
    data = read(digest)
    if shards.sha256(data) != digest.sha256:
        return _row(digest, "rejected", "changed while it was read"), None
    stored, size, original = _normal(data, limits)
    first[digest.sha256] = digest.path
    key, path = digest.sha256[:24], shown(digest.path)
    about = {"path": path, "sha256": digest.sha256, "bytes": digest.size, "width": size[0], "height": size[1]}
    about |= {"original_width": original[0], "original_height": original[1]}
    row = LedgerRow(path, "accepted", "", key, digest.size, digest.sha256, *size)
    return row, (key, {"jpg": stored, "json": shards.dumps(about)})


def _normal(data: bytes, limits: Limits) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
    """The JPEG that is stored, its (width, height), and that of the upright original."""
    decoded, bare = accept(data, limits, limits.longer_side, skim=True)
    size = decoded.width, decoded.height
    if decoded.as_stored and max(size) <= limits.longer_side:
        if bare is not None:
            return bare, size, size
        decoded = images.inspect(data, max_pixels=limits.max_pixels)
    small = images.fit(decoded.image, limits.longer_side)
    return images.encode_jpeg(small), small.size, size
