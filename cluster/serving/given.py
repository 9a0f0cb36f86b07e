"""What a prediction is given, looked at before any work: supports and what shows the thing in them, and queries."""

from __future__ import annotations

import functools
import glob
import os
import tempfile
from collections import defaultdict
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
#: Bytes of a name before its dot: with the longest ending of an answer, .overlay.jpg, a file system takes it.
_LONGEST = 255 - len(".overlay.jpg")
#: Files that a message names.
_NAMED = 5


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
    problems += _name_problems(queries, folders, config.overwrite)
    if not problems and not masks:
        masks = _marked(config, segmenters[0], supports, problems)
    problems.tell()
    return Given(segmenters[0], supports, masks, queries, folders[0])


def left_out(places: Sequence[str], queries: Sequence[Path]) -> Iterator[str]:
    """A line for what else lies in each folder of queries, and one for folders of answers that patterns lead to."""
    for folder in (Path(place) for place in places if Path(place).is_dir()):
        others = sorted(set(folder.iterdir()) - set(queries))
        if others:
            names = ", ".join(f"{one.name}/" if one.is_dir() else one.name for one in others[:5])
            more = f" and {len(others) - 5} more" if others[5:] else ""
            yield f"left out, no images by their names: {names}{more}"
    patterns = (place for place in places if not Path(place).exists())
    found = (path for place in patterns for path in _matching(place) if images.is_image_name(path.name))
    if written := {path.parent for path in found if _is_answer(path)}:
        yield f"left out, answers of this command: {', '.join(sorted(map(str, written)))}"


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


def _name_problems(queries: Sequence[Path], outs: Sequence[Path], overwrite: bool) -> list[str]:
    """What is wrong with the names that answers will have, in each of `outs`."""
    alike = defaultdict[str, list[str]](list)
    for path in queries:
        alike[(video.named(path, 1) if video.is_video(path) else path).stem].append(str(path))
    doubled = [" and ".join(paths) for paths in alike.values() if len(paths) > 1]
    long = [path for stem, (path, *_) in alike.items() if len(os.fsencode(stem)) > _LONGEST]
    wrong = []
    if doubled:
        wrong.append(
            f"query: expected images of different names, as their masks have, got {_some(doubled)}; rename one"
        )
    if long:
        wrong.append(f"query: expected names of at most {_LONGEST} bytes before the dot, got {_some(long)}; rename it")
    elif not overwrite:
        filled = [out for out in outs if any((out / f"{stem}.png").exists() for stem in alike)]
        wrong += [
            f"{out} already holds masks of these images; choose another out= or set overwrite=true" for out in filled
        ]
    return wrong


def _some(texts: Sequence[str]) -> str:
    return "; ".join(texts[:_NAMED]) + (f"; and {len(texts) - _NAMED} more" if texts[_NAMED:] else "")


def _queries(place: str) -> list[Path]:
    """The images and videos that `place` means: itself, a folder's images, what fits a pattern or is in a list."""
    path = Path(place)
    if path.is_file():
        return _of_list(path) if path.suffix.lower() == ".txt" else [path]
    known = images.NAMED | (frozenset() if path.is_dir() else video.SUFFIXES)
    beside = path.glob("*") if path.is_dir() else (one for one in _matching(place) if not _is_answer(one))
    queries = sorted(one for one in beside if images.is_image_name(one.name, known) and one.is_file())
    if not queries:
        raise ValueError(f"expected an image, a video or a folder of images at query={place}, found none")
    return queries


def _matching(pattern: str) -> Iterator[Path]:
    return map(Path, glob.iglob(pattern, recursive=True))


def _is_answer(path: Path) -> bool:
    """Whether a file lies in a folder that this command wrote: a pattern finds masks of before among the images."""
    return (path.parent / MARK).is_file()


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
