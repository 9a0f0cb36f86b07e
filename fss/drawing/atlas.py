"""An atlas of clusters: their most central regions, cut out of their images, in rows with a line of figures each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from fss.drawing import pictures
from fss.drawing.pictures import Picture

_GAP = 4
_TEXT = 15
_LINE = 22
_BETWEEN = 10


@dataclasses.dataclass(frozen=True)
class AtlasRow:
    """One cluster: its name, its figures, and its crops, (S, S, 3) uint8 each, the most central first."""

    name: str
    figures: str
    crops: Sequence[np.ndarray]


def crop(image: Picture, mask: np.ndarray, size: int, margin: float = 0.12) -> np.ndarray:
    """The square around a region, `margin` of its longer side wider on every side, with the region's outline.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, the region, of at least one pixel.
        size: S, pixels. What lies outside of the image is light grey, what lies outside of the region is dimmed.

    Returns:
        (S, S, 3) uint8.
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    (top, bottom), (left, right) = ((int(side[0]), int(side[-1]) + 1) for side in (rows, columns))
    side = round(max(bottom - top, right - left) * (1 + 2 * margin))
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    height, width = mask.shape
    inside = np.s_[max(y, 0) : min(y + side, height), max(x, 0) : min(x + side, width)]
    corner = (inside[0].start - y, inside[1].start - x)
    paper = np.full((side, side, 3), 225, dtype=np.uint8)
    region = np.zeros((side, side), dtype=bool)
    target = np.s_[corner[0] : corner[0] + mask[inside].shape[0], corner[1] : corner[1] + mask[inside].shape[1]]
    there = pictures.to_rgb(image)[inside]
    paper[target] = np.where(mask[inside][..., None], there, (0.55 * there + 0.45 * 225).astype(np.uint8))
    region[target] = mask[inside]
    tile = np.array(Image.fromarray(paper).resize((size, size), Image.Resampling.LANCZOS))
    small = np.asarray(Image.fromarray(region).resize((size, size), Image.Resampling.NEAREST))
    tile[pictures.outline(small, 2)] = pictures.BLUE
    return tile


def page(rows: Sequence[AtlasRow], *, crops: int, size: int, columns: int = 2) -> np.ndarray:
    """Rows from left to right and from top to bottom on white: (H, W, 3) uint8.

    Args:
        rows: the clusters; a row of fewer than `crops` crops leaves the rest blank.
        crops: places for crops in a row.
        size: side of a crop, pixels.
        columns: rows side by side.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("expected clusters for a page of the atlas, got none")
    columns = min(columns, len(rows))
    width, height = crops * (size + _GAP) + 4 * _GAP, _LINE + size + _BETWEEN
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * width, lines * height), pictures.PAPER)
    draw, font = ImageDraw.Draw(sheet), pictures.font(_TEXT)
    for number, row in enumerate(rows):
        line, column = divmod(number, columns)
        x, y = column * width + 2 * _GAP, line * height
        draw.text((x, y), row.name, fill=pictures.INK, font=font, stroke_width=0.4, stroke_fill=pictures.INK)
        draw.text((x + draw.textlength(f"{row.name}   ", font), y), row.figures, fill=(95, 100, 108), font=font)
        for place, picture in enumerate(row.crops[:crops]):
            sheet.paste(Image.fromarray(picture), (x + place * (size + _GAP), y + _LINE))
    return np.asarray(sheet)


def paged(number: int, most: int) -> list[int]:
    """`number` rows spread evenly over as few pages as hold at most `most` each: the rows of each page."""
    pages = -(-number // most)
    return [number // pages + (page < number % pages) for page in range(pages)]
