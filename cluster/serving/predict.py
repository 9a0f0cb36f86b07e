"""Segments a user's own images with a trained model: every problem of what is given is named before any work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from cluster.config.predict import PredictConfig, listed
from cluster.engine import publish
from fss.drawing import pictures
from fss.imaging import images
from fss.segmenter import Segmenter, find

A = TypeVar("A")
T = TypeVar("T")


def predict(config: PredictConfig) -> Iterator[str]:
    """Segment all queries, and say a line of each; images that cannot be read are named and skipped.

    Raises:
        ValueError: for supports, masks, queries, a model or an output that cannot be used, all of them at once.
    """
    out = Path(config.out)
    problems = _Problems()
    supports = problems.keep(_image, map(Path, listed(config.support)))
    masks = problems.keep(_mask, map(Path, listed(config.support_mask)))
    queries = [path for found in problems.keep(_queries, [Path(config.query)]) for path in found]
    models = problems.keep(find, [config.model])
    problems.keep(lambda paths: _check_names(paths, out, config.overwrite), [queries])
    problems.tell()
    segmenter = Segmenter.load(models[0], config.device)
    done = 0
    for path in queries:
        try:
            query = images.decode(path.read_bytes())
        except (images.BadImageError, OSError) as error:
            yield f"skipped {path}: {error}"
            continue
        mask = segmenter.segment(query, supports, masks, config.threshold)
        publish.write_bytes(out / f"{path.stem}.png", images.encode_png(mask))
        shown = Image.fromarray(pictures.overlay(query, mask))
        publish.write_bytes(out / f"{path.stem}.overlay.jpg", images.encode_jpeg(shown))
        done += 1
        yield f"{path.name}: {100 * mask.mean():.1f} % of the image"
    yield f"predict: {done} of {len(queries)} images; {out}"


class _Problems(list[str]):
    """What is wrong with the files that were given."""

    def keep(self, read: Callable[[A], T], items: Iterable[A]) -> list[T]:
        """What `read` makes of each item; an item at which it raises a ValueError is kept as a problem."""
        found = []
        for item in items:
            try:
                found.append(read(item))
            except ValueError as error:
                self.append(str(error))
        return found

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


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"expected an image at {path}, there is no such file")
    return path.read_bytes()


def _image(path: Path) -> Image.Image:
    try:
        return images.decode(_read(path))
    except images.BadImageError as error:
        raise ValueError(f"{path}: {error}") from error


def _mask(path: Path) -> np.ndarray:
    return _binary(_read(path), path)


def _binary(data: bytes, name: Path) -> np.ndarray:
    """A user's mask as 0 and 1. Two values, whatever they are, mean background and thing; 255 beside 1 is void."""
    try:
        labels = images.decode_labels(data)
    except images.BadImageError as error:
        raise ValueError(f"{name}: {error}") from error
    values = set(np.unique(labels).tolist())
    if values <= {0, 1, 255} and 1 in values:
        return labels.astype(np.uint8)
    if len(values - {0}) == 1:
        return (labels != 0).astype(np.uint8)
    if values == {0}:
        raise ValueError(f"{name}: expected a mask that shows the thing, got only background; paint it with 1 or 255")
    raise ValueError(
        f"{name}: expected a mask of 0 and one other value, got {sorted(values)[:6]}; keep one class, as 1"
    )


def _queries(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(p for p in path.glob("*") if p.suffix.lower() in images.EXTENSIONS) if path.is_dir() else []
    if not found:
        raise ValueError(f"expected an image or a folder of images at query={path}, found none")
    return found
