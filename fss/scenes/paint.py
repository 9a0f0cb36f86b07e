"""Painting polygons: materials are functions of the object's own frame, coverage comes from a 2x supersampled mask."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Texture = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Pose(NamedTuple):
    """An affine map from an object's frame to pixels, with a gentle bend before it."""

    matrix: np.ndarray
    """(2, 2): object axes in pixels, one a column."""
    offset: np.ndarray
    """(2,): pixel position x, y of the object's origin."""
    bend: np.ndarray
    """(2, 2): amplitude and phase of the sine that shifts each axis along the other."""

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Vertices (N, 2) of the object's frame in pixels."""
        bent = points + self.bend[:, 0] * np.sin(2 * points[:, ::-1] + self.bend[:, 1])
        return bent @ self.matrix.T + self.offset


class Material(NamedTuple):
    """Two colours mixed by a texture: `first` where it is 0, `second` where it is 1."""

    first: np.ndarray
    """(3,) RGB in [0, 1]."""
    second: np.ndarray
    """(3,) RGB in [0, 1]."""
    texture: str
    frequency: float
    """Periods in an object's half width."""
    shade: np.float32
    """Share of the light lost from an object's middle to its lower edge, and won to its upper."""


def noise_tile(generator: np.random.Generator, side: int = 128) -> np.ndarray:
    """A square of value noise in [0, 1] that wraps around: two octaves, grain of about 8 and 3 pixels."""
    octaves = [generator.random((side // grain, side // grain)).astype(np.float32) for grain in (8, 4)]
    smooth = [_enlarge(octave, side) for octave in octaves]
    return np.clip(1.6 * (0.65 * smooth[0] + 0.35 * smooth[1]) - 0.3, 0, 1)


def _enlarge(grid: np.ndarray, side: int) -> np.ndarray:
    wrapped = np.pad(grid, 2, mode="wrap")
    step = side // len(grid)
    large = np.asarray(Image.fromarray(wrapped).resize((step * len(wrapped),) * 2, Image.Resampling.BICUBIC))
    return large[2 * step : 2 * step + side, 2 * step : 2 * step + side]


def _edge(wave: np.ndarray, sharpness: float = 4.0) -> np.ndarray:
    """A wave around 0 made into bands with soft edges, in [0, 1]."""
    return np.clip(0.5 + sharpness * wave, 0, 1)


def _sample(noise: np.ndarray, u: np.ndarray, v: np.ndarray, grain: float) -> np.ndarray:
    mask = len(noise) - 1
    return noise[(v * grain).astype(np.int32) & mask, (u * grain).astype(np.int32) & mask]


def _dots(u: np.ndarray, v: np.ndarray, noise: np.ndarray) -> np.ndarray:
    row = np.floor(v)
    return _edge(0.3 - np.hypot((u + 0.5 * (row % 2)) % 1 - 0.5, v - row - 0.5))


def _scales(u: np.ndarray, v: np.ndarray, noise: np.ndarray) -> np.ndarray:
    row = np.floor(v)
    return np.clip(1.3 * np.hypot((u + 0.5 * (row % 2)) % 1 - 0.5, v - row) - 0.1, 0, 1)


def _bricks(u: np.ndarray, v: np.ndarray, noise: np.ndarray) -> np.ndarray:
    row = np.floor(2 * v)
    return np.maximum((2 * v - row < 0.22), ((u + 0.5 * (row % 2)) % 1 < 0.13)).astype(np.float32)


TEXTURES: dict[str, Texture] = {
    "plain": lambda u, v, noise: np.zeros_like(u),
    "stripes": lambda u, v, noise: _edge(np.sin(6.3 * u)),
    "bands": lambda u, v, noise: _edge(np.sin(6.3 * v)),
    "checks": lambda u, v, noise: _edge(np.sin(6.3 * u) * np.sin(6.3 * v)),
    "lattice": lambda u, v, noise: _edge(np.maximum(np.cos(6.3 * (u + v)), np.cos(6.3 * (u - v))) - 0.75),
    "zigzag": lambda u, v, noise: _edge(np.sin(6.3 * (v + np.abs(u % 1 - 0.5)))),
    "rings": lambda u, v, noise: _edge(np.sin(6.3 * np.hypot(u, v))),
    "spiral": lambda u, v, noise: _edge(np.sin(6.3 * np.hypot(u, v) + np.arctan2(v, u))),
    "dots": _dots,
    "scales": _scales,
    "bricks": _bricks,
    "cloud": lambda u, v, noise: _sample(noise, u, v, 8),
    "speckle": lambda u, v, noise: _edge(_sample(noise, u, v, 16) - 0.55),
    "wood": lambda u, v, noise: _edge(np.sin(6.3 * u + 5 * _sample(noise, u, 0.25 * v, 8)), 1.0),
    "radial": lambda u, v, noise: _edge(np.sin(7 * np.arctan2(v, u))),
}
"""Mixing weight in [0, 1] at object coordinates (u, v), already scaled by the frequency, given a tile of noise."""


def cover(polygon: np.ndarray, size: int) -> tuple[slice, slice, np.ndarray] | None:
    """Rows, columns and the share of each of their pixels in [0, 1] that a polygon (N, 2) covers; None if outside."""
    low = np.maximum(np.floor(polygon.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(polygon.max(0)).astype(int) + 1, size)
    width, height = (high - low).tolist()
    if width <= 0 or height <= 0:
        return None
    mask = Image.new("L", (2 * width, 2 * height))
    ImageDraw.Draw(mask).polygon((2 * (polygon - low)).ravel().tolist(), fill=255)
    share = np.asarray(mask.reduce(2), dtype=np.float32) / 255
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])), share


def paint_(
    canvas: np.ndarray, alpha: np.ndarray, polygon: np.ndarray, pose: Pose, material: Material, *, noise: np.ndarray
) -> None:
    """Paint a polygon (N, 2) of pixels on `canvas`, and raise `alpha` to the share of each pixel that it covers.

    canvas (3, S, S) float32 RGB in [0, 1]; alpha (S, S) float32 in [0, 1]; noise from `noise_tile`.
    """
    covered = cover(polygon, len(alpha))
    if covered is None:
        return
    rows, columns, share = covered
    x = np.arange(columns.start, columns.stop, dtype=np.float32) - np.float32(pose.offset[0])
    y = np.arange(rows.start, rows.stop, dtype=np.float32) - np.float32(pose.offset[1])
    inverse = np.linalg.inv(pose.matrix).astype(np.float32)
    u = inverse[0, 0] * x + (inverse[0, 1] * y)[:, None]
    v = inverse[1, 0] * x + (inverse[1, 1] * y)[:, None]
    scale = np.float32(material.frequency)
    mix = TEXTURES[material.texture](scale * u, scale * v, noise)
    light = 1 - material.shade * np.clip(v, -1, 1)
    for plane, first, second in zip(canvas, material.first, material.second, strict=True):
        patch = plane[rows, columns]
        patch += share * ((first + (second - first) * mix) * light - patch)
    alpha[rows, columns] = np.maximum(alpha[rows, columns], share)
