"""The twenty object classes of the embedded corpus: what each is made of, in its own frame.

An object is a list of parts. A part is a polygon with a texture and a colour slot; the object's frame is the square
[-1, 1]^2, x to the right and y down. Every class draws its proportions from the generator it is given, so that two
objects of one class differ in shape as well as in colour and pose; most classes share textures and colours with others,
so that neither names the class by itself.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Points = np.ndarray
"""(N, 2) float polygon vertices, x then y."""

MAIN, SECOND, NEUTRAL, DARK = range(4)
"""Colour slots: the object's two own colours, a washed-out one, and a nearly black one."""


class Polygon(NamedTuple):
    """A polygon of one material; parts are painted in order, later ones on top."""

    points: Points
    slot: int
    texture: str = "plain"
    frequency: float = 1.0


def ellipse(x: float, y: float, rx: float, ry: float, *, start: float = 0.0, stop: float = 1.0) -> Points:
    """Vertices of the elliptic arc from `start` to `stop` turns, 0 to the right and 1/4 downwards."""
    angle = 2 * np.pi * np.linspace(start, stop, max(8, round(32 * (stop - start))), endpoint=stop - start < 1)
    return np.stack((x + rx * np.cos(angle), y + ry * np.sin(angle)), 1)


def ring(x: float, y: float, outer: float, inner: float, *, start: float = 0.0, stop: float = 0.999) -> Points:
    """Vertices of a circular band from `start` to `stop` turns."""
    outside, inside = (ellipse(x, y, radius, radius, start=start, stop=stop) for radius in (outer, inner))
    return np.concatenate((outside, inside[::-1]))


def corners(*xy: float) -> Points:
    """Vertices from x0, y0, x1, y1, ..."""
    return np.array(xy, dtype=float).reshape(-1, 2)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Vertices of an upright rectangle."""
    return corners(left, top, right, top, right, bottom, left, bottom)


def bar(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    """Vertices of a straight bar of the given width."""
    along = np.array((x1 - x0, y1 - y0))
    across = np.array((-along[1], along[0])) * (width / 2 / np.hypot(*along))
    return np.array((x0, y0)) + np.stack((across, along + across, along - across, -across))


def star(rays: int, outer: float, inner: float) -> Points:
    """Vertices of a star around the origin, one ray upwards."""
    angle = np.pi * np.arange(2 * rays) / rays - np.pi / 2
    radius = np.where(np.arange(2 * rays) % 2 == 0, outer, inner)
    return np.stack((radius * np.cos(angle), radius * np.sin(angle)), 1)


def _mushroom(g: np.random.Generator) -> list[Polygon]:
    cap, stem = g.uniform(0.75, 1.0), g.uniform(0.16, 0.34)
    foot = corners(-stem, 0, stem, 0, stem * 1.3, 0.95, -stem * 1.3, 0.95)
    return [
        Polygon(foot, NEUTRAL, "wood", 5),
        Polygon(ellipse(0, 0.1, cap, g.uniform(0.7, 1.0), start=0.5), MAIN, "dots", 2.6),
    ]


def _fish(g: np.random.Generator) -> list[Polygon]:
    height, tail = g.uniform(0.34, 0.55), g.uniform(0.3, 0.5)
    return [
        Polygon(corners(0.45, 0, 1, -tail, 0.85, 0, 1, tail), SECOND, "bands", 5),
        Polygon(corners(-0.3, -height * 0.7, 0.1, -height - 0.3, 0.35, -height * 0.5), SECOND, "bands", 5),
        Polygon(ellipse(-0.2, 0, 0.78, height), MAIN, "scales", 4),
        Polygon(ellipse(-0.68, -0.1, 0.09, 0.09), DARK),
    ]


def _house(g: np.random.Generator) -> list[Polygon]:
    eave, wide, door = g.uniform(-0.35, 0.0), g.uniform(0.6, 0.8), g.uniform(-0.45, 0.15)
    return [
        Polygon(box(0.25, -0.85, 0.45, 0), NEUTRAL, "bricks", 3),
        Polygon(box(-wide, eave, wide, 0.95), MAIN, "bricks", 3),
        Polygon(corners(-wide - 0.18, eave, 0, -0.95, wide + 0.18, eave), SECOND, "stripes", 4),
        Polygon(box(door, 0.4, door + 0.3, 0.95), DARK),
        Polygon(box(0.25, eave + 0.25, 0.5, eave + 0.5), NEUTRAL, "checks", 4),
    ]


def _key(g: np.random.Generator) -> list[Polygon]:
    bow, teeth = g.uniform(0.34, 0.46), int(g.integers(2, 4))
    parts = [
        Polygon(ring(-0.55, 0, bow, bow * 0.5), MAIN, "cloud", 2),
        Polygon(box(-0.2, -0.1, 0.98, 0.1), MAIN, "stripes", 4),
    ]
    lengths = g.uniform(0.25, 0.5, teeth)
    return parts + [
        Polygon(box(0.86 - 0.26 * k, 0.05, 0.98 - 0.26 * k, lengths[k]), MAIN, "stripes", 4) for k in range(teeth)
    ]


def _tree(g: np.random.Generator) -> list[Polygon]:
    parts = [Polygon(bar(0, 0, 0, 0.97, g.uniform(0.18, 0.34)), SECOND, "wood", 6)]
    for x, y in ((-0.38, -0.05), (0.38, -0.1), (0, -0.5)):
        rx, ry = g.uniform(0.4, 0.55, 2)
        parts.append(Polygon(ellipse(x, y, rx, ry), MAIN, "speckle", 3))
    return parts


def _cup(g: np.random.Generator) -> list[Polygon]:
    top, bottom, lip = g.uniform(0.5, 0.65), g.uniform(0.35, 0.5), g.uniform(0.08, 0.2)
    return [
        Polygon(ring(0.52, 0.05, 0.42, 0.24), SECOND),
        Polygon(
            corners(-top, -0.7, top, -0.7, bottom, 0.85, -bottom, 0.85), MAIN, str(g.choice(["zigzag", "bands"])), 4
        ),
        Polygon(ellipse(0, -0.7, top, lip), DARK, "cloud", 2),
    ]


def _starfish(g: np.random.Generator) -> list[Polygon]:
    inner = g.uniform(0.32, 0.48)
    return [Polygon(star(5, 1.0, inner), MAIN, "dots", 4.5), Polygon(star(5, 0.6, inner * 0.4), SECOND, "speckle", 4)]


def _umbrella(g: np.random.Generator) -> list[Polygon]:
    depth = g.uniform(0.6, 0.85)
    hook = ring(0.16, 0.78, 0.2, 0.1, stop=0.5)
    canopy = ellipse(0, 0, 0.97, depth, start=0.5)
    return [Polygon(bar(0, -0.1, 0, 0.8, 0.1), DARK), Polygon(hook, DARK), Polygon(canopy, MAIN, "radial")]


def _butterfly(g: np.random.Generator) -> list[Polygon]:
    rx, ry, low = g.uniform(0.4, 0.5), g.uniform(0.4, 0.55), g.uniform(0.28, 0.4)
    wings = [Polygon(ellipse(side * 0.48, -0.4, rx, ry), MAIN, "rings", 5) for side in (-1, 1)]
    wings += [Polygon(ellipse(side * 0.4, 0.45, low, low + 0.1), SECOND, "dots", 4) for side in (-1, 1)]
    antennae = [Polygon(bar(0, -0.6, side * 0.25, -0.98, 0.06), DARK) for side in (-1, 1)]
    return wings + antennae + [Polygon(ellipse(0, 0, 0.1, 0.7), DARK, "bands", 6)]


def _cactus(g: np.random.Generator) -> list[Polygon]:
    left, right, arm = g.uniform(-0.3, 0.1), g.uniform(-0.4, 0.1), g.uniform(0.2, 0.28)
    parts = [Polygon(bar(x, left if x < 0 else right, x, -0.55, arm), MAIN, "stripes", 6) for x in (-0.6, 0.6)]
    parts += [
        Polygon(bar(-0.7, left, 0, left, arm), MAIN, "stripes", 6),
        Polygon(bar(0, right, 0.7, right, arm), MAIN, "stripes", 6),
    ]
    parts.append(Polygon(ellipse(0, -0.1, 0.25, 0.88), MAIN, "stripes", 6))
    return [*parts, Polygon(corners(-0.48, 0.5, 0.48, 0.5, 0.34, 0.97, -0.34, 0.97), SECOND, "cloud", 2)]


def _rocket(g: np.random.Generator) -> list[Polygon]:
    wide, nose = g.uniform(0.24, 0.36), g.uniform(-0.5, -0.3)
    return [
        Polygon(corners(-wide * 0.6, 0.6, wide * 0.6, 0.6, 0, 0.98), NEUTRAL, "cloud", 4),
        Polygon(corners(-wide, 0.1, -wide - 0.4, 0.8, wide + 0.4, 0.8, wide, 0.1), SECOND, "stripes", 4),
        Polygon(box(-wide, nose, wide, 0.65), MAIN, "bands", 3),
        Polygon(corners(-wide, nose, 0, -0.98, wide, nose), SECOND),
        Polygon(ellipse(0, -0.1, wide * 0.55, wide * 0.55), DARK, "rings", 8),
    ]


def _flower(g: np.random.Generator) -> list[Polygon]:
    petals, long = int(g.integers(5, 9)), g.uniform(0.5, 0.62)
    parts = [Polygon(bar(0, 0, 0, 0.98, 0.1), SECOND), Polygon(ellipse(0.25, 0.7, 0.27, 0.12), SECOND, "stripes", 6)]
    for k in range(petals):
        angle = 2 * np.pi * k / petals
        parts.append(Polygon(bar(0, -0.35, long * np.cos(angle), -0.35 + long * np.sin(angle), 0.3), MAIN, "rings", 6))
    return [*parts, Polygon(ellipse(0, -0.35, 0.22, 0.22), NEUTRAL, "speckle", 5)]


def _car(g: np.random.Generator) -> list[Polygon]:
    roof, wheel = g.uniform(-0.6, -0.4), g.uniform(0.2, 0.28)
    front = g.uniform(0.45, 0.8)
    parts = [
        Polygon(corners(-0.65, 0.0, -0.4, roof, 0.3, roof, front, 0.0), NEUTRAL, "stripes", 2),
        Polygon(corners(-0.97, -0.05, 0.9, -0.05, 0.98, 0.4, -0.97, 0.4), MAIN, "cloud", 1.5),
    ]
    for x in (-0.52, 0.52):
        parts += [
            Polygon(ellipse(x, 0.4, wheel, wheel), DARK),
            Polygon(ellipse(x, 0.4, wheel * 0.5, wheel * 0.5), NEUTRAL),
        ]
    return parts


def _snail(g: np.random.Generator) -> list[Polygon]:
    shell = g.uniform(0.5, 0.64)
    foot = corners(-0.98, 0.75, -0.9, -0.1, -0.62, -0.1, -0.55, 0.45, 0.98, 0.7, 0.98, 0.82)
    antennae = [Polygon(bar(-0.8, 0, x, -0.5, 0.07), SECOND) for x in (-0.98, -0.66)]
    return [
        *antennae,
        Polygon(foot, SECOND, "speckle", 4),
        Polygon(ellipse(0.15, 0.05, shell, shell), MAIN, "spiral", 5),
    ]


def _lamp(g: np.random.Generator) -> list[Polygon]:
    top, bottom, rim = g.uniform(0.22, 0.4), g.uniform(0.55, 0.8), g.uniform(-0.1, 0.1)
    return [
        Polygon(bar(0, rim - 0.1, 0, 0.9, 0.12), DARK),
        Polygon(ellipse(0, 0.95, g.uniform(0.35, 0.5), 0.28, start=0.5), SECOND, "bands", 5),
        Polygon(corners(-top, -0.95, top, -0.95, bottom, rim, -bottom, rim), MAIN, "lattice", 3.5),
    ]


def _guitar(g: np.random.Generator) -> list[Polygon]:
    body, waist = g.uniform(0.42, 0.52), g.uniform(0.3, 0.38)
    return [
        Polygon(box(-0.09, -0.9, 0.09, 0.3), DARK, "bands", 9),
        Polygon(box(-0.16, -0.98, 0.16, -0.72), SECOND),
        Polygon(ellipse(0, 0.12, waist, 0.34), MAIN, "wood", 7),
        Polygon(ellipse(0, 0.56, body, 0.42), MAIN, "wood", 7),
        Polygon(ellipse(0, 0.3, 0.14, 0.14), DARK),
    ]


def _boat(g: np.random.Generator) -> list[Polygon]:
    deck, bow = g.uniform(0.3, 0.45), g.uniform(0.45, 0.65)
    return [
        Polygon(bar(0, -0.97, 0, deck, 0.08), DARK),
        Polygon(corners(0.06, -0.9, 0.06, deck - 0.1, g.uniform(0.5, 0.85), deck - 0.1), SECOND, "bands", 3),
        Polygon(corners(-0.06, -0.7, -0.06, deck - 0.1, -g.uniform(0.4, 0.7), deck - 0.1), NEUTRAL, "plain", 3),
        Polygon(corners(-0.97, deck, 0.97, deck, bow, 0.9, -bow, 0.9), MAIN, "wood", 5),
    ]


def _turtle(g: np.random.Generator) -> list[Polygon]:
    reach, shell = g.uniform(0.6, 0.75), g.uniform(0.5, 0.6)
    parts = [Polygon(bar(0, 0, x * reach, y * reach, 0.26), SECOND, "speckle", 5) for x in (-0.9, 0.9) for y in (-1, 1)]
    parts += [Polygon(ellipse(-0.8, 0, 0.2, 0.17), SECOND, "speckle", 5), Polygon(bar(0.4, 0, 0.97, 0, 0.12), SECOND)]
    return [*parts, Polygon(ellipse(0, 0, 0.68, shell), MAIN, "checks", 3.5)]


def _icecream(g: np.random.Generator) -> list[Polygon]:
    wide, scoop = g.uniform(0.4, 0.55), g.uniform(0.42, 0.52)
    parts = [Polygon(corners(-wide, -0.05, wide, -0.05, 0, 0.98), NEUTRAL, "lattice", 5)]
    if g.random() < 0.5:
        parts.append(Polygon(ellipse(0, -0.6, scoop * 0.8, scoop * 0.75), SECOND, "cloud", 4))
    return [*parts, Polygon(ellipse(0, -0.15, scoop, scoop * 0.85), MAIN, "speckle", 2.5)]


def _shirt(g: np.random.Generator) -> list[Polygon]:
    sleeve, hem, texture = g.uniform(0.0, 0.45), g.uniform(0.7, 0.95), str(g.choice(["checks", "stripes", "zigzag"]))
    left = corners(-0.3, -0.75, -0.95, sleeve - 0.2, -0.75, sleeve + 0.15, -0.3, -0.15)
    body = corners(-0.45, -0.75, 0.45, -0.75, 0.42, hem, -0.42, hem)
    collar = corners(-0.2, -0.78, 0.2, -0.78, 0, -0.45)
    return [
        Polygon(left, SECOND),
        Polygon(left * (-1, 1), SECOND),
        Polygon(body, MAIN, texture, 3),
        Polygon(collar, DARK),
    ]


SHAPES: dict[str, Callable[[np.random.Generator], list[Polygon]]] = {
    "mushroom": _mushroom,
    "fish": _fish,
    "house": _house,
    "key": _key,
    "tree": _tree,
    "cup": _cup,
    "starfish": _starfish,
    "umbrella": _umbrella,
    "butterfly": _butterfly,
    "cactus": _cactus,
    "rocket": _rocket,
    "flower": _flower,
    "car": _car,
    "snail": _snail,
    "lamp": _lamp,
    "guitar": _guitar,
    "boat": _boat,
    "turtle": _turtle,
    "icecream": _icecream,
    "shirt": _shirt,
}
"""Parts of an object of each class, drawn from a generator."""
