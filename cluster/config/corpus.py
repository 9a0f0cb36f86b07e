"""Keys of the unlabelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fss.keys import at_least, key, one_of, ranged

_FOLDER = ("folder",)
# Beside keys that are called list and range these names must be made elsewhere.
_Bands = list[int]
_Range = list[float]
_Problems = list[str]


@dataclass
class CorpusConfig:
    """The unlabelled images: a folder or URL, or `scenes`, which renders the embedded corpus first."""

    kind: str = key("folder", one_of("folder", "scenes"))
    """`folder` = the user's own, `scenes` = the embedded corpus."""
    root: str | None = key(None, when={"kind": _FOLDER}, path=True)
    """Folder, tar, or pattern of tars (`*`, `{000..009}`), path or fsspec URL; a list's entries are relative to it."""
    list: str | None = key(None, when={"kind": _FOLDER}, path=True)
    """Text file (one image a line), .csv, .tsv, .jsonl or .parquet, a path or URL: entries are paths, URLs, or
    VOC-style names without folder and extension."""
    column: str | None = key(None, when={"kind": _FOLDER, "list": True})
    """Column of a list that is a table; none = the first of path, url, file, filename, file_name, image, image_path."""
    drivers: str | None = key(None, when={"kind": _FOLDER, "list": True})
    """Drivers of fsspec that a list may name beside http(s), s3, gs, az, abfs, hf and plain paths, such as ftp,sftp."""
    longer_side: int = key(512, at_least(1))
    """Larger images are shrunk to this longer side, pixels."""
    shard_size: int = key(500, at_least(1))
    """Images a shard, about: an image's shard follows from its content."""
    min_side: int = key(32, at_least(1))
    """Images with a shorter side than this are rejected, pixels."""
    max_pixels: int = key(64_000_000, at_least(1))
    """Images that would decode to more pixels are rejected by their header."""
    max_bytes: int = key(1 << 29, at_least(1))
    """Larger files are rejected unread, bytes."""
    bands: _Bands | None = None
    """Bands of a TIFF of several that are shown as red, green and blue, or one as grey, counted from 1: [4,3,2]; none =
    as the file says."""
    range: _Range | None = None
    """Numbers that are shown black and white, [low,high], in files of more than 8 bits; none = as their numbers say."""
    near_duplicates: int | None = key(None, ranged("bits from 0 to 16 or null", lambda value: 0 <= value <= 16))
    """Largest number of differing bits of 64-bit perceptual hashes at which two images count as one (3 to 6 finds other
    encodings and sizes of a picture); none = only exact copies are found."""
    scenes: int = key(1200, at_least(1))
    """Rendered images (training) where scenes are rendered."""
    scenes_val: int = key(400, at_least(1))
    """Rendered images of the evaluation list, from other seeds."""
    scene_size: int = key(128, at_least(1))
    """Side of a rendered scene, pixels."""

    def problems(self) -> _Problems:
        """What no rule of a single number says."""
        return reading_problems(self.bands, self.range)


def reading_problems(bands: Sequence[int] | None, shown: Sequence[float] | None) -> list[str]:
    """What is wrong with the keys `bands` and `range` of whoever reads images."""
    wrong = []
    if bands is not None and not (len(bands) in (1, 3) and min(bands) >= 1):
        wrong.append(f"bands: expected one or three numbers of bands from 1, as [3,2,1], got {bands}")
    if shown is not None and not (len(shown) == 2 and shown[0] < shown[1]):
        wrong.append(f"range: expected the numbers of black and white, as [0,4095], got {shown}")
    return wrong
