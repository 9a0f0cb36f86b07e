"""Views of images for training: what is changed, drawn beforehand as a pure function of (seed, image, number).

A view is a few numbers. `fss.tasks.augment` makes it of pictures and masks as tensors; the image itself and its
mirror image, which features are kept of most often, are made of the decoded picture, exactly.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image

from fss import rng
from fss.keys import key, ranged, up_to

#: Crops that are drawn before the whole image is taken.
_TRIES = 8
#: Pixels of an object that are looked at to see what a view keeps of it, about.
_PIXELS = 1000
#: Logarithm of the largest stretch of a crop against the image's own aspect: 4:5.
_STRETCH = 0.22
#: Range of a blur's standard deviation, shares of the view's side.
_BLUR = (0.001, 0.004)


@dataclasses.dataclass
class Augment:
    """Random changes of a training image, drawn for query and supports independently; 0 turns one off.

    With train.features=cached the first two views of an image are itself and its mirror image, and only later ones
    are changed like this; a cached view cannot know which object a task asks for, so it is cropped blindly.
    """

    crop: float = key(0.5, ranged("a share in (0, 1], 1 for no crops", lambda value: 0 < value <= 1))
    """Smallest share of the image's area that a crop keeps; 1 = no crops."""
    keep: float = key(0.6, up_to(1))
    """Share of the object that a crop must keep (features=fresh)."""
    rotation: float = key(10.0, up_to(180))
    """Largest angle, degrees."""
    flip: float = key(0.5, up_to(1))
    """Probability of mirroring left to right."""
    colour: float = key(0.2, up_to(1))
    """Largest relative change of brightness, contrast and saturation."""
    blur: float = key(0.2, up_to(1))
    """Probability of a Gaussian blur."""
    gray: float = key(0.0, up_to(1))
    """Probability of no colour at all."""
    vertical_flip: float = key(0.0, up_to(1))
    """Probability of mirroring top to bottom."""
    hue: float = key(0.0, up_to(0.5))
    """Largest turn of the colours, share of their circle, at most 0.5."""
    widest: float = key(1.0, ranged("a number from 1 to 4", lambda value: 1 <= value <= 4))
    """Largest area that a view spans, share of the image's; above 1 it may show what is void around the image."""


@dataclasses.dataclass(frozen=True)
class View:
    """A crop, turned, mirrored, then recoloured and blurred."""

    flip: bool = False
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    """Left, top, right and bottom as shares of the image."""
    angle: float = 0.0
    """Degrees by which the picture turns clockwise about the middle of the box."""
    aspect: float = 1.0
    """Width of the image over its height, in pixels: a square view of it must still turn without a shear."""
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    """Factors, in this order; 1 changes nothing."""
    hue: float = 0.0
    """Turn of the colours, in [-0.5, 0.5]; after the factors."""
    blur: float = 0.0
    """Standard deviation of a Gaussian, share of the view's side; 0 = none."""
    upside: bool = False
    """Mirrored top to bottom."""

    @property
    def plain(self) -> bool:
        """Whether this is the image itself or its mirror image."""
        return dataclasses.replace(self, flip=False, aspect=1.0) == View()

    @property
    def moved(self) -> bool:
        """Whether pixels lie elsewhere than in the image or its mirror image."""
        return self.upside or self.angle != 0 or self.box != (0.0, 0.0, 1.0, 1.0)

    def of_image(self, image: Image.Image) -> Image.Image:
        """A `plain` view of an RGB image.

        Raises:
            ValueError: for another view.
        """
        if not self.plain:
            raise ValueError(f"expected the image or its mirror image, got {self}; fss.tasks.augment makes other views")
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip else image

    def mirrored(self, mask: np.ndarray) -> np.ndarray:
        """An (H, W) mask, mirrored if the view is; not what is `moved`."""
        return np.ascontiguousarray(mask[:, ::-1]) if self.flip else mask

    def affine(self) -> np.ndarray:
        """(2, 3) float64: from a point of the view to one of the image, both in [-1, 1], the middle 0, x first."""
        left, top, right, bottom = self.box
        turn = math.radians(self.angle)
        cosine, sine = math.cos(turn), math.sin(turn)
        mirror, upturn = -1.0 if self.flip else 1.0, -1.0 if self.upside else 1.0
        # From the view to the box, in units of the image's height; turned back; to shares of the image's sides.
        width, height = (right - left) * self.aspect, bottom - top
        return np.array(
            [
                [mirror * cosine * width / self.aspect, upturn * sine * height / self.aspect, left + right - 1],
                [-mirror * sine * width, upturn * cosine * height, top + bottom - 1],
            ]
        )

    def keeps(self, points: np.ndarray) -> float:
        """Share of (n, 2) points of the image, x and y in [-1, 1], that the view shows; 1 if there are none."""
        matrix = self.affine()
        inside = (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        return float((np.abs(inside) <= 1).all(axis=1).mean()) if len(points) else 1.0


def draw(
    seed: int, key: str, number: int, rules: Augment, size: tuple[int, int] = (1, 1), mask: np.ndarray | None = None
) -> View:
    """View `number` of image `key`: 0 the image itself, 1 mirrored, from 2 on changed as `rules` say.

    Args:
        size: (height, width) of the image, pixels; the aspect counts.
        mask: (H, W), 1 where the object is: crops then keep `rules.keep` of it, or nothing is cropped or turned if
            none of a few does. None crops blindly.
    """
    if number < 2:
        return View(flip=number == 1)
    generator = rng.numpy_rng(seed, "view", key, number)
    low, high = 1 - rules.colour, 1 + rules.colour
    changed = View(
        flip=bool(generator.random() < rules.flip),
        aspect=size[1] / size[0],
        brightness=float(generator.uniform(low, high)),
        contrast=float(generator.uniform(low, high)),
        saturation=float(generator.uniform(low, high)),
        blur=float(generator.uniform(*_BLUR)) if generator.random() < rules.blur else 0.0,
    )
    if rules.gray and generator.random() < rules.gray:  # what is not used draws nothing: older views stay as they were
        changed = dataclasses.replace(changed, saturation=0.0)
    if rules.vertical_flip and generator.random() < rules.vertical_flip:
        changed = dataclasses.replace(changed, upside=True)
    if rules.hue:
        changed = dataclasses.replace(changed, hue=float(generator.uniform(-rules.hue, rules.hue)))
    points = None if mask is None else _points(mask)
    for _ in range(1 if points is None else _TRIES):
        view = dataclasses.replace(
            changed,
            box=_crop(generator, rules.crop, rules.widest),
            angle=float(generator.uniform(-rules.rotation, rules.rotation)),
        )
        if points is None or view.keeps(points) >= rules.keep:
            return view
    return changed


def _crop(generator: np.random.Generator, least: float, most: float) -> tuple[float, float, float, float]:
    """A box of `least` to `most` of the area, at an aspect within 4:5 of the image's own; no side is longer than the
    image's if `most` is 1, and otherwise a longer one holds all of it.
    """
    if least >= 1 and most <= 1:
        return (0.0, 0.0, 1.0, 1.0)
    area, aspect = generator.uniform(least, most), np.exp(generator.uniform(-_STRETCH, _STRETCH))
    longest = 1.0 if most <= 1 else math.inf
    width, height = min(longest, float(np.sqrt(area * aspect))), min(longest, float(np.sqrt(area / aspect)))
    left, top = _offset(generator, width), _offset(generator, height)
    return (left, top, left + width, top + height)


def _offset(generator: np.random.Generator, length: float) -> float:
    return float(generator.uniform(min(0.0, 1 - length), max(0.0, 1 - length)))


def _points(mask: np.ndarray) -> np.ndarray:
    """(n, 2) places of about `_PIXELS` of the mask's ones, x and y in [-1, 1]."""
    rows, columns = np.nonzero(mask == 1)
    step = max(1, len(rows) // _PIXELS)
    height, width = mask.shape
    return np.stack([(columns[::step] + 0.5) * 2 / width - 1, (rows[::step] + 0.5) * 2 / height - 1], axis=1)
