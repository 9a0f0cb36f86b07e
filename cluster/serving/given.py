"""What a prediction is given, looked at before any work: supports and what shows the thing in them, and queries."""

from __future__ import annotations

import functools
import glob
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from cluster.config.predict import PredictConfig, listed
from cluster.engine.places import own_folder
from cluster.engine.refused import RefusedError
from cluster.serving import registry, video
from fss.imaging import images, inputs
from fss.segmenter import Segmenter, marks
from fss.texts import read_text

A = TypeVar("A")
T = TypeVar("T")
#: What a folder of masks is made of; it is written first, and says whose folder it is.
MARK = "predict.json"


@dataclass(frozen=True)
class Given:
    """What a prediction needs, all of it looked at."""

    segmenter: Segmenter
    supports: Sequence[Image.Image]
    masks: Sequence[np.ndarray]
    queries: Sequence[Path]
    """Images and videos."""
    out: Path


def look(config: PredictConfig) -> Given:
    """Everything that `config` names.

    Raises:
        RefusedError: for supports, masks, queries, a model or an output that cannot be used, all of them at once.
    """
    problems = _Problems()
    photos = [Path(one) for one in listed(config.support)]
    supports = problems.keep(functools.partial(inputs.as_image, reading=config.reading), photos, "support")
    masks = _drawn(config, photos, problems)
    queries = [path for paths in problems.keep(_queries, listed(config.query)) for path in paths]
    segmenters = problems.keep(_load, [config], "model")
    problems.keep(video.check, filter(video.is_video, queries))
    problems += _every_problems(config.every, queries)
    folders = problems.keep(lambda path: own_folder(path, "out", MARK), [config.out])
    problems.keep(lambda out: _check_names(queries, out, config.overwrite), folders)
    if not problems and not masks:
        masks = _marked(config, segmenters[0], supports, problems)
    problems.tell()
    return Given(segmenters[0], supports, masks, queries, folders[0])


def left_out(places: Sequence[str], queries: Sequence[Path]) -> Iterator[str]:
    """A line for what else lies in each folder of queries."""
    for folder in (Path(place) for place in places if Path(place).is_dir()):
        others = sorted(set(folder.iterdir()) - set(queries))
        if others:
            names = ", ".join(f"{one.name}/" if one.is_dir() else one.name for one in others[:5])
            more = f" and {len(others) - 5} more" if others[5:] else ""
            yield f"left out, no images by their names: {names}{more}"


class _Problems(list[str]):
    """What is wrong with the files that were given."""

    def keep(self, read: Callable[[A], T], items: Iterable[A], key: str = "") -> list[T]:
        """What `read` makes of each item; an item at which it raises a ValueError is kept as a problem, of `key`."""
        kept = []
        for item in items:
            try:
                kept.append(read(item))
            except ValueError as error:
                self.append(f"{key}: {error}" if key else str(error))
        return kept

    def tell(self) -> None:
        """Raise all that was kept as one RefusedError."""
        if self:
            raise RefusedError("\n  ".join(self))


def _load(config: PredictConfig) -> Segmenter:
    with tempfile.TemporaryDirectory() as scratch:
        return Segmenter.load(registry.folder(config.model, Path(scratch)), config.device)


def _drawn(config: PredictConfig, photos: Sequence[Path], problems: _Problems) -> list[np.ndarray]:
    """The masks that were drawn, of their images' sizes; none where boxes or points were given."""
    if config.support_mask is None:
        return []
    masks = problems.keep(_mask, map(Path, listed(config.support_mask)), "support_mask")
    if problems:
        return masks
    return problems.keep(
        lambda one: inputs.fitted(*one), zip(masks, photos, map(str, photos), strict=True), "support_mask"
    )


def _marked(
    config: PredictConfig, segmenter: Segmenter, supports: Sequence[Image.Image], problems: _Problems
) -> list[np.ndarray]:
    """The masks that the model makes of boxes or points."""
    if config.support_box is not None:
        pairs = zip(supports, config.support_box, strict=True)
        return problems.keep(lambda pair: marks.of_box(segmenter, *pair), pairs, "support_box")
    assert config.support_points is not None
    points = zip(supports, config.support_points, strict=True)
    return problems.keep(lambda pair: marks.of_points(segmenter, *pair), points, "support_points")


def _mask(path: Path) -> np.ndarray:
    mask = inputs.as_mask(path)
    if not (mask == 1).any():
        raise ValueError(f"{path}: expected a mask that shows the thing, got only background; paint it with 1 or 255")
    return mask


def _every_problems(every: int, queries: Sequence[Path]) -> list[str]:
    if every == 1 or any(map(video.is_video, queries)):
        return []
    return [f"every: expected a video among the queries, got every={every} and images alone; leave it out"]


def _check_names(queries: Sequence[Path], out: Path, overwrite: bool) -> None:
    stems = [(video.named(path, 1) if video.is_video(path) else path).stem for path in queries]
    doubled = [stem for stem, number in Counter(stems).items() if number > 1]
    if doubled:
        raise ValueError(
            f"two query images are called {doubled[0]}, their masks would overwrite each other; rename one"
        )
    if not overwrite and any((out / f"{stem}.png").exists() for stem in stems):
        raise ValueError(f"{out} already holds masks of these images; choose another out= or set overwrite=true")


def _queries(place: str) -> list[Path]:
    """The images and videos that `place` means: itself, a folder's images, what fits a pattern or is in a list."""
    path = Path(place)
    if path.is_file():
        return _of_list(path) if path.suffix.lower() == ".txt" else [path]
    known = images.NAMED | (frozenset() if path.is_dir() else video.SUFFIXES)
    beside = path.glob("*") if path.is_dir() else map(Path, glob.glob(place, recursive=True))
    queries = sorted(one for one in beside if images.is_image_name(one.name, known) and one.is_file())
    if not queries:
        raise ValueError(f"expected an image, a video or a folder of images at query={place}, found none")
    return queries


def _of_list(path: Path) -> list[Path]:
    """The paths in a text file, one a line, relative to its folder."""
    names = [line.strip() for line in read_text(path).splitlines()]
    paths = [path.parent / name for name in names if name]
    lost = [str(one) for one in paths if not one.is_file()]
    if lost or not paths:
        raise ValueError(
            f"expected one image a line in query={path}, relative to its folder, "
            + (f"there is no {lost[0]}" + (f", nor {len(lost) - 1} others" if lost[1:] else "") if lost else "got none")
        )
    return paths
