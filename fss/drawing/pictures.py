"""Pictures of images, masks, label maps and episodes. Every function returns a new (H,W,3) uint8 RGB array.

An *image* is a (H,W), (H,W,3) or (H,W,4) array, uint8 in 0..255 or float in [0,1], or a PIL image. A *mask* is a (H,W)
array of {0,1,255} or bool, 255 being void. The colours are from the colour-blind safe set of Okabe and Ito (2008).
"""

import colorsys
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Picture = np.ndarray | Image.Image

ORANGE: Colour = (230, 159, 0)
BLUE: Colour = (0, 140, 255)
YELLOW: Colour = (255, 240, 60)
PAPER: Colour = (255, 255, 255)
INK: Colour = (40, 40, 40)
VOID = 255
_GAP = 6


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans of matplotlib, `size` pixels high: Pillow's own has no letters beyond ASCII, which names hold."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def to_rgb(image: Picture) -> np.ndarray:
    """`image` as (H,W,3) uint8; grey is repeated, transparency is dropped."""
    array = np.asarray(image)
    if array.dtype.kind == "f":
        array = np.rint(np.clip(np.nan_to_num(array), 0, 1) * 255)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in {3, 4}:
        raise ValueError(f"an image has shape (H,W), (H,W,3) or (H,W,4); got {array.shape}: move channels last")
    return array[..., :3].astype(np.uint8)


def outline(mask: np.ndarray, width: int = 2) -> np.ndarray:
    """The foreground pixels less than `width` pixels from background or border: (H,W) bool."""
    from scipy.ndimage import binary_erosion

    inside = _foreground(mask)
    return inside & ~binary_erosion(inside, np.ones((3, 3)), iterations=width) if width > 0 else np.zeros_like(inside)


def overlay(
    image: Picture, mask: np.ndarray, colour: Colour = BLUE, alpha: float = 0.45, outline_width: int = 2
) -> np.ndarray:
    """`image` with the foreground tinted by `alpha` (0: not, 1: opaque) and outlined; void stays as it is."""
    picture = to_rgb(image)
    inside = _foreground(mask)
    if inside.shape != picture.shape[:2]:
        raise ValueError(f"image {picture.shape[:2]} and mask {inside.shape} differ in size: resize one of them")
    tint = np.asarray(colour, dtype=np.float64)
    picture[inside] = np.rint((1 - alpha) * picture[inside] + alpha * tint).astype(np.uint8)
    picture[outline(mask, outline_width)] = colour
    return picture


def colour_of(label: int) -> Colour:
    """The colour of a label id: always the same one, and far from its neighbours' (golden ratio steps in hue)."""
    hue = (0.57 + label * 0.618033988749895) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.75, 0.5, 0.9)[label % 3], (0.95, 0.8, 0.65)[label // 3 % 3])
    return round(255 * red), round(255 * green), round(255 * blue)


def label_map_picture(label_map: np.ndarray, void: int | None = VOID) -> np.ndarray:
    """Each label of an integer (H,W) map in its colour; `void` is light grey."""
    labels, positions = np.unique(np.asarray(label_map), return_inverse=True)
    colours = [(225, 225, 225) if label == void else colour_of(int(label)) for label in labels]
    return np.asarray(colours, dtype=np.uint8)[positions.reshape(np.shape(label_map))]


def label_overlay(image: Picture, label_map: np.ndarray, alpha: float = 0.55, void: int | None = VOID) -> np.ndarray:
    """`image` tinted by the colours of a label map of its size, with dark lines between labels; void stays as it is."""
    picture, label_map = to_rgb(image), np.asarray(label_map)
    tinted = np.rint((1 - alpha) * picture + alpha * label_map_picture(label_map, void)).astype(np.uint8)
    edges = np.zeros(label_map.shape, dtype=bool)
    edges[:, 1:] |= label_map[:, 1:] != label_map[:, :-1]
    edges[1:] |= label_map[1:] != label_map[:-1]
    tinted[edges] = INK
    keep = label_map == void
    tinted[keep] = picture[keep]
    return tinted


def label_maps_sheet(images: Sequence[Picture], steps: dict[str, Sequence[np.ndarray]], cell: int = 200) -> np.ndarray:
    """One row an image: the image, then its label map of each segment step, by the steps' names.

    Raises ValueError if a step has not one map for every image, or a map's size is not its image's.
    """
    rows: list[list[Picture]] = [[image] for image in images]
    for maps in steps.values():
        for row, label_map in zip(rows, maps, strict=True):
            row.append(label_overlay(row[0], label_map))
    return contact_sheet(rows, [["image", *steps]] * len(rows), cell=cell)


def heat(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """A (H,W) map of numbers in matplotlib's viridis, from `low` (default the minimum) to `high` (the maximum)."""
    from matplotlib import colormaps

    values = np.asarray(values, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low = (finite.min() if finite.size else 0.0) if low is None else low
    high = (finite.max() if finite.size else 1.0) if high is None else high
    scaled = np.clip((np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-12), 0, 1)
    return to_rgb(colormaps["viridis"](scaled)[..., :3])


def fit(image: Picture, size: int) -> np.ndarray:
    """`image` resized so that its longer side has `size` pixels."""
    return np.asarray(_resize(Image.fromarray(to_rgb(image)), size, Image.Resampling.LANCZOS))


def fit_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """A mask or label map resized like `fit` does, without mixing labels; keeps an integer dtype."""
    array = np.asarray(mask)
    array = array.astype(np.uint8) if array.dtype == bool else array
    resized = _resize(Image.fromarray(array.astype(np.int32)), size, Image.Resampling.NEAREST)
    return np.asarray(resized).astype(array.dtype)


def contact_sheet(
    rows: Sequence[Sequence[Picture]],
    captions: Sequence[Sequence[str]] | None = None,
    title: str = "",
    cell: int = 160,
) -> np.ndarray:
    """Images in rows on white, fitted into cells `cell` pixels wide, with `captions` (of the same layout) below.

    Rows may differ in length; a row is as high as its highest image, and the sheet at least as wide as its title.
    Raises ValueError if there is no image.
    """
    if not any(len(row) for row in rows):
        raise ValueError("a contact sheet needs at least one image; got none")
    small = [[fit(image, cell) for image in row] for row in rows]
    text = max(12, cell // 14)
    below = text + 2 * _GAP if captions else _GAP
    tops = [2 * text + _GAP if title else _GAP]
    for row in small:
        tops.append(tops[-1] + max((image.shape[0] for image in row), default=0) + below)
    headline = font(text + 3)
    width = max(max(map(len, rows)) * (cell + _GAP) + _GAP, math.ceil(headline.getlength(title)) + 2 * _GAP)
    sheet = Image.new("RGB", (width, tops[-1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), title, fill=INK, font=headline)
    for i, row in enumerate(small):
        bottom = tops[i + 1] - below
        for j, image in enumerate(row):
            x = _GAP + j * (cell + _GAP)
            middle = (x + (cell - image.shape[1]) // 2, (tops[i] + bottom - image.shape[0]) // 2)
            sheet.paste(Image.fromarray(image), middle)
            if captions and j < len(captions[i]):
                _caption(draw, captions[i][j], (x, bottom + 3), cell, text)
    return np.asarray(sheet)


def episode_picture(
    supports: Sequence[Picture],
    masks: Sequence[np.ndarray],
    query: Picture,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    *,
    title: str = "",
    note: str = "",
    cell: int = 240,
) -> np.ndarray:
    """One episode in a row: the supports with their masks (orange), then the query with the prediction.

    The prediction is blue; the outline of the truth, if there is one, is yellow. `note` (such as the IoU) goes below
    the query. All masks have the size of their image.
    """
    if len(supports) != len(masks):
        raise ValueError(f"each support has one mask; got {len(supports)} images and {len(masks)} masks")
    pairs = zip(supports, masks, strict=True)
    images = [overlay(fit(image, cell), fit_mask(mask, cell), ORANGE) for image, mask in pairs]
    answer = overlay(fit(query, cell), fit_mask(prediction, cell), BLUE, outline_width=0)
    if truth is not None:
        answer[outline(fit_mask(truth, cell))] = YELLOW
    names = ["support" if len(supports) == 1 else f"support {i + 1}" for i in range(len(supports))]
    captions = [*names, "query", note or "prediction"]
    return contact_sheet([[*images, fit(query, cell), answer]], [captions], title, cell)


def task_sheet(
    tasks: Sequence[tuple[Sequence[Picture], Sequence[np.ndarray]]], title: str = "", cell: int = 200
) -> np.ndarray:
    """Training tasks, one in a row: the query with its mask (blue), then the supports with theirs (orange).

    Each task is its images and their masks of the same size, the query's first; a support without any foreground is
    called a distractor. Raises ValueError if there is no task.
    """
    rows, captions = [], []
    for images, masks in tasks:
        pairs = zip(images, masks, strict=True)
        small = [(fit(image, cell), fit_mask(mask, cell)) for image, mask in pairs]
        rows.append([overlay(image, mask, ORANGE if place else BLUE) for place, (image, mask) in enumerate(small)])
        captions.append(["query", *("support" if _foreground(m).any() else "distractor" for m in masks[1:])])
    return contact_sheet(rows, captions, title, cell)


def _foreground(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask has shape (H,W); got {mask.shape}: take one mask at a time")
    return mask if mask.dtype == bool else (mask != 0) & (mask != VOID)


def _resize(image: Image.Image, size: int, resampling: Image.Resampling) -> Image.Image:
    scale = size / max(image.size)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), resampling)


def _caption(draw: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], width: int, size: int) -> None:
    """`text` in the middle of `width` pixels, cut with ``…`` where it is too long."""
    letters = font(size)
    shown = text
    while shown and draw.textlength(shown, letters) > width:
        shown = shown[:-2].rstrip() + "…" if len(shown) > 2 else ""
    x, y = corner
    draw.text((x + (width - draw.textlength(shown, letters)) / 2, y), shown, fill=INK, font=letters)
