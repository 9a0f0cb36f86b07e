"""Segments a user's own images with a trained model: every problem of what is given is named before any work."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from cluster.config.predict import PredictConfig, listed
from cluster.engine import publish
from cluster.engine.places import own_folder
from cluster.serving import registry
from fss.drawing import pictures
from fss.imaging import images, inputs
from fss.segmenter import Segmenter

A = TypeVar("A")
T = TypeVar("T")
#: What a folder of masks is made of; it is written first, and says whose folder it is.
_MARK = "predict.json"


@dataclass(frozen=True)
class _Given:
    """What a prediction needs, all of it looked at."""

    segmenter: Segmenter
    supports: Sequence[Image.Image]
    masks: Sequence[np.ndarray]
    queries: Sequence[Path]
    out: Path


def predict(config: PredictConfig) -> Iterator[str]:
    """Segment all queries, and say a line of each; images that cannot be read are named and skipped.

    Raises:
        ValueError: for supports, masks, queries, a model or an output that cannot be used, all of them at once; in the
            end, if no query could be read.
    """
    given, done = _look(config), 0
    about = dataclasses.asdict(config) | {"sha256": given.segmenter.about["sha256"]}
    publish.write_json(given.out / _MARK, about)
    yield from _left_out(Path(config.query), given.queries)
    for path in given.queries:
        try:
            query = inputs.as_image(path, reading=config.reading)
        except ValueError as error:
            yield f"skipped {error}"
            continue
        mask = given.segmenter.segment(query, given.supports, given.masks, config.threshold)
        publish.write_bytes(given.out / f"{path.stem}.png", images.encode_png(mask))
        shown = Image.fromarray(pictures.overlay(query, mask))
        publish.write_bytes(given.out / f"{path.stem}.overlay.jpg", images.encode_jpeg(shown))
        done += 1
        yield f"{path.name}: {100 * mask.mean():.1f} % of the image"
    if not done:
        raise ValueError(f"none of the {len(given.queries)} images at query={config.query} could be read, see above")
    yield f"predict: {done} of {len(given.queries)} images; {given.out}"


def _look(config: PredictConfig) -> _Given:
    problems = _Problems()
    photos = [Path(one) for one in listed(config.support)]
    supports = problems.keep(functools.partial(inputs.as_image, reading=config.reading), photos)
    masks = problems.keep(_mask, map(Path, listed(config.support_mask)))
    if not problems:
        masks = problems.keep(lambda one: inputs.fitted(*one), zip(masks, photos, map(str, photos), strict=True))
    queries = [path for paths in problems.keep(_queries, [Path(config.query)]) for path in paths]
    segmenters = problems.keep(_load, [config])
    folders = problems.keep(lambda path: own_folder(path, "out", _MARK), [config.out])
    problems.keep(lambda out: _check_names(queries, out, config.overwrite), folders)
    problems.tell()
    return _Given(segmenters[0], supports, masks, queries, folders[0])


def _load(config: PredictConfig) -> Segmenter:
    with tempfile.TemporaryDirectory() as scratch:
        return Segmenter.load(registry.folder(config.model, Path(scratch)), config.device)


class _Problems(list[str]):
    """What is wrong with the files that were given."""

    def keep(self, read: Callable[[A], T], items: Iterable[A]) -> list[T]:
        """What `read` makes of each item; an item at which it raises a ValueError is kept as a problem."""
        kept = []
        for item in items:
            try:
                kept.append(read(item))
            except ValueError as error:
                self.append(str(error))
        return kept

    def tell(self) -> None:
        """Raise all that was kept as one ValueError."""
        if self:
            raise ValueError("\n  ".join(self))


def _check_names(queries: Sequence[Path], out: Path, overwrite: bool) -> None:
    doubled = [stem for stem, number in Counter(path.stem for path in queries).items() if number > 1]
    if doubled:
        raise ValueError(
            f"two query images are called {doubled[0]}, their masks would overwrite each other; rename one"
        )
    if not overwrite and any((out / f"{path.stem}.png").exists() for path in queries):
        raise ValueError(f"{out} already holds masks of these images; choose another out= or set overwrite=true")


def _mask(path: Path) -> np.ndarray:
    mask = inputs.as_mask(path)
    if not (mask == 1).any():
        raise ValueError(f"{path}: expected a mask that shows the thing, got only background; paint it with 1 or 255")
    return mask


def _queries(path: Path) -> list[Path]:
    """The images at `path`, by their names."""
    if path.is_file():
        return [path]
    known = images.EXTENSIONS | images.UNDECODED
    queries = sorted(p for p in path.glob("*") if p.suffix.lower() in known and p.is_file()) if path.is_dir() else []
    if not queries:
        raise ValueError(f"expected an image or a folder of images at query={path}, found none")
    return queries


def _left_out(folder: Path, queries: Sequence[Path]) -> Iterator[str]:
    """A line for what else lies in a folder of queries."""
    others = sorted(set(folder.iterdir()) - set(queries)) if folder.is_dir() else []
    if others:
        names = ", ".join(f"{one.name}/" if one.is_dir() else one.name for one in others[:5])
        yield f"left out, no images by their names: {names}" + (f" and {len(others) - 5} more" if others[5:] else "")
