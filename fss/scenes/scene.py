"""The embedded corpus: labelled scenes of twenty kinds of objects, rendered from (seed, index).

It lets the whole flow run, and be tested, without a download: ordinary JPEG files and index masks in the layout of
PASCAL VOC. A scene holds one to four objects among clutter on a textured background, under uneven light. An object's
colours vary around those of its class, its textures are shared with other classes and with the clutter, and its pose is
free, so that finding a held-out class from one masked image is a real problem.

Twenty classes in CLASSES make four folds of five: fold f holds the classes 5f + 1 to 5f + 5.
"""

import colorsys
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fss.scenes.paint import TEXTURES, Material, Pose, noise_tile, paint_
from fss.scenes.shapes import DARK, NEUTRAL, SHAPES, bar, box, ellipse, star

CLASSES: tuple[str, ...] = tuple(SHAPES)
"""Names of the classes; the id of CLASSES[c] in a mask is c + 1, 0 is background and 255 is void."""

VOID = 255
_JPEG_QUALITY = 92
_SMALLEST = 0.006  # share of the image under which what is left of a hidden object is void, as VOC's "difficult"


class Placement(NamedTuple):
    """Where an object goes: its centre and half its side, in pixels."""

    x: float
    y: float
    radius: float


def render(seed: int, index: int, size: int = 160) -> tuple[Image.Image, np.ndarray]:
    """Scene number `index`: an RGB image of `size` x `size` pixels and its mask.

    The mask is (size, size) uint8: 0 background, c + 1 for CLASSES[c], 255 on the outline of objects (pixels that an
    object covers in part) and on slivers of hidden objects. A pure function of its arguments.
    """
    if size < 32:
        raise ValueError(f"size must be at least 32 pixels for objects to be seen, got {size}")
    g = np.random.default_rng(np.random.SeedSequence([seed, index]))
    noise = noise_tile(g)
    canvas = _background(g, noise, size)
    for _ in range(int(g.integers(2, 7))):
        _clutter_(canvas, g, noise, *g.uniform(0, size, 2))
    layers = []
    for place in _places(g, size):
        label = int(g.integers(len(CLASSES)))
        layers.append((label + 1, _object_(canvas, g, noise, label, place)))
        if g.random() < 0.25:  # something in front of it
            layers.append((0, _clutter_(canvas, g, noise, *g.normal(place[:2], 0.6 * place.radius))))
    return Image.fromarray(_photograph(canvas, g, noise)), _mask(layers, size)


def files(index: int) -> tuple[str, str]:
    """Where a corpus has the image of a scene, and its mask."""
    return f"JPEGImages/{index:06d}.jpg", f"SegmentationClass/{index:06d}.png"


def write(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    size: int = 160,
    start: int = 0,
    stop: int | None = None,
    val: float = 0.2,
) -> None:
    """Write scenes `start` to `stop` (all by default) of a corpus of `count` as a VOC-like folder.

    `JPEGImages/000123.jpg`, `SegmentationClass/000123.png` (index masks), `ImageSets/train.txt` and `val.txt` (one
    stem a line, the last `val` share of the corpus is val) and `classes.json` (names, id 1 first). The files of a scene
    depend on its seed, index and size alone, so processes may write disjoint ranges of one corpus.
    """
    stop = count if stop is None else stop
    if not 0 <= start <= stop <= count:
        raise ValueError(f"start and stop must satisfy 0 <= start <= stop <= count = {count}, got {start} and {stop}")
    sets = folder / "ImageSets"
    for made in (folder / "JPEGImages", folder / "SegmentationClass", sets):
        made.mkdir(parents=True, exist_ok=True)
    for index in range(start, stop):
        image, mask = render(seed, index, size)
        photo, drawn = files(index)
        image.save(folder / photo, quality=_JPEG_QUALITY)
        Image.fromarray(mask).save(folder / drawn)
    first_val = count - round(val * count)
    for name, stems in (("train", range(first_val)), ("val", range(first_val, count))):
        (sets / f"{name}.txt").write_text("".join(f"{stem:06d}\n" for stem in stems))
    (folder / "classes.json").write_text(json.dumps(CLASSES) + "\n")


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)), dtype=np.float32)


def _any_material(g: np.random.Generator, vivid: float) -> Material:
    """A material of any texture: up to full saturation and contrast for `vivid` 1, grey and even for 0."""
    hues, saturations, values = g.random(2), vivid * g.beta(1.5, 1.5, 2), g.uniform(0.2, 0.95, 2)
    first, second = (_colour(*tone) for tone in zip(hues, saturations, values, strict=True))
    second = first + np.float32(vivid * g.uniform(0.3, 1)) * (second - first)
    texture = list(TEXTURES)[int(g.integers(len(TEXTURES)))]
    return Material(first, second, texture, g.uniform(2, 6), np.float32(g.uniform(0, 0.3)))


def _palette(g: np.random.Generator, label: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two tones for each colour slot: hues around the class's own, in every fourth object any hue at all."""
    stray = g.random() < 0.1
    tones = []
    for slot in range(4):
        usual = 0.382 * label + 0.31 * slot
        hue = g.random() if stray else usual + g.normal(0, 0.04)
        saturation = g.uniform(0.0, 0.25) if slot == NEUTRAL else g.uniform(0.35, 1)
        value = g.uniform(0.05, 0.25) if slot == DARK else g.uniform(0.45, 1)
        contrast = g.uniform(0.3, 0.6) * (1 if value < 0.4 else -1)
        tones.append(
            (_colour(hue, saturation, value), _colour(hue + g.normal(0, 0.05), saturation * 0.8, value + contrast))
        )
    return tones


def _pose(g: np.random.Generator, place: Placement) -> Pose:
    """Upright give or take, every fourth anywhere; stretched, sheared, mirrored and bent a little."""
    turn = g.uniform(-np.pi, np.pi) if g.random() < 0.15 else g.normal(0, 0.3)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    stretch = np.array([[g.uniform(0.75, 1.1), g.normal(0, 0.12)], [0, g.uniform(0.8, 1.1)]])
    mirror = np.diag([g.choice([-1.0, 1.0]), 1])
    bend = np.stack((g.normal(0, 0.06, 2), g.uniform(0, 2 * np.pi, 2)), 1)
    return Pose(place.radius * rotation @ stretch @ mirror, np.array(place[:2]), bend)


def _object_(canvas: np.ndarray, g: np.random.Generator, noise: np.ndarray, label: int, place: Placement) -> np.ndarray:
    """Paint one object of CLASSES[label]; the share of each pixel that it covers, (S, S) in [0, 1]."""
    alpha = np.zeros(canvas.shape[1:], np.float32)
    pose, palette, shade, pace = (
        _pose(g, place),
        _palette(g, label),
        np.float32(g.uniform(0, 0.3)),
        g.uniform(0.8, 1.25),
    )
    for part in SHAPES[CLASSES[label]](g):
        material = Material(*palette[part.slot], part.texture, part.frequency * pace, shade)
        paint_(canvas, alpha, pose.pixels(part.points), pose, material, noise=noise)
    return alpha


def _clutter_(canvas: np.ndarray, g: np.random.Generator, noise: np.ndarray, x: float, y: float) -> np.ndarray:
    """Paint one thing of no class, a simple shape of any material; the share of each pixel that it covers."""
    size = canvas.shape[1]
    alpha = np.zeros((size, size), np.float32)
    shapes = (
        ellipse(0, 0, 1, g.uniform(0.3, 1)),
        bar(-1, 0, 1, 0, g.uniform(0.1, 0.4)),
        box(-0.8, -0.8, 0.8, g.uniform(0, 0.8)),
        star(int(g.integers(3, 7)), 1, g.uniform(0.4, 0.9)),
        ellipse(0, 0, 1, 1, stop=g.uniform(0.3, 0.7)),
    )
    pose = _pose(g, Placement(x, y, size * g.uniform(0.05, 0.15)))
    points = shapes[int(g.integers(len(shapes)))]
    paint_(canvas, alpha, pose.pixels(points), pose, _any_material(g, 1.0), noise=noise)
    return alpha


def _background(g: np.random.Generator, noise: np.ndarray, size: int) -> np.ndarray:
    """Two to four regions of calm materials with wavy borders, (3, size, size) float32."""
    canvas, alpha = np.zeros((3, size, size), np.float32), np.zeros((size, size), np.float32)
    points = box(-99, -99, 99, 99)
    for _ in range(int(g.integers(2, 5))):
        x, y = g.uniform(0, size, 2).tolist()
        pose = _pose(g, Placement(x, y, size * g.uniform(0.15, 0.4)))
        paint_(canvas, alpha, pose.pixels(points), pose, _any_material(g, 0.4), noise=noise)
        wave = 0.3 * np.sin(np.linspace(0, g.uniform(9, 50), 64))
        points = np.concatenate((np.stack((np.linspace(-9, 9, 64), wave), 1), [(9, 9), (-9, 9)]))
    return canvas


def _places(g: np.random.Generator, size: int) -> list[Placement]:
    """One to four places for objects; each is the emptiest of six at random, so that few objects hide others."""
    places: list[Placement] = []
    count = 1 + int(g.choice(4, p=[0.25, 0.4, 0.25, 0.1]))
    for _ in range(count):
        radius = size * g.uniform(0.24, 0.4 if count > 1 else 0.48)
        tries = g.uniform(0.2 * size, 0.8 * size, (6, 2))
        gaps = [min((np.hypot(x - p.x, y - p.y) - p.radius for p in places), default=0) for x, y in tries]
        x, y = tries[int(np.argmax(gaps))].tolist()
        places.append(Placement(x, y, radius))
    return places


def _mask(layers: list[tuple[int, np.ndarray]], size: int) -> np.ndarray:
    """Labels of painted layers (id, share of each pixel covered), the first at the back."""
    mask, owner = np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint8)
    for order, (label, alpha) in enumerate(layers, 1):
        touched = alpha > 0.1
        mask[touched & ((mask > 0) | (label > 0))] = VOID
        mask[alpha > 0.9] = label
        owner[touched] = order
    for order, (label, _) in enumerate(layers, 1):
        mine = owner == order
        if label and np.count_nonzero(mine) < _SMALLEST * size**2:
            mask[mine] = VOID
    return mask


def _photograph(canvas: np.ndarray, g: np.random.Generator, noise: np.ndarray) -> np.ndarray:
    """Uneven light, a colour cast, a tone curve and sensor noise: (S, S, 3) uint8 of (3, S, S) float."""
    size = canvas.shape[1]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    tilt = g.normal(0, 0.15, 2).astype(np.float32)
    grain = np.arange(size) * 24 // size + 8
    shadow = np.float32(g.uniform(0, 0.35)) * noise[np.ix_(grain, grain)]
    light = np.clip(1.05 + tilt[0] * ramp + (tilt[1] * ramp)[:, None] - shadow, 0.3, 1.4)
    cast = g.uniform(0.88, 1.1, (3, 1, 1)).astype(np.float32)
    image = np.clip(canvas * light * cast, 0, 1) ** np.float32(g.uniform(0.8, 1.3))
    image += np.float32(g.uniform(0.005, 0.03)) * g.standard_normal(image.shape, dtype=np.float32)
    return (255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8).transpose(1, 2, 0)
