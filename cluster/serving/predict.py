"""Segments a user's own images with a trained model: every problem of what is given is named before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from cluster.config.predict import PredictConfig, listed
from cluster.engine import publish
from cluster.serving import answers, video
from cluster.serving.given import MARK, left_out, look
from fss.imaging import inputs
from fss.prefetch import batches


def predict(config: PredictConfig) -> Iterator[str]:
    """Segment all queries, and say a line of each; images that cannot be read are named and skipped.

    Raises:
        RefusedError: as `given.look`.
        ValueError: in the end, if no query could be read.
    """
    given = look(config)
    about = dataclasses.asdict(config) | {"sha256": given.segmenter.about["sha256"]}
    publish.write_json(given.out / MARK, about)
    yield from left_out(listed(config.query), given.queries)
    thing, rows, number = given.segmenter.prepare(given.supports, given.masks), list[answers.Row](), 0
    for some in batches(_opened(given.queries, config), given.segmenter.extractor.call):
        yield from (one for one in some if isinstance(one, str))
        read = [one for one in some if not isinstance(one, str)]
        for (path, image), answer in zip(read, thing.stream([image for _, image in read], config.tile), strict=True):
            row = answers.write(given.out, path, image, answer, config)
            rows.append(row)
            yield f"{path.name}: {100 * row.area:.1f} % of the image" + ("" if row.present else ", not there")
        number += len(some)
    if not rows:
        raise ValueError(f"none of the {number} images at query={config.query} could be read, see above")
    answers.conclude(given.out, rows, list(zip(given.supports, given.masks, strict=True)), config.name)
    yield f"predict: {len(rows)} of {number} images; {given.out}"


def _opened(queries: Sequence[Path], config: PredictConfig) -> Iterator[tuple[Path, Image.Image] | str]:
    """Every image, and frame of a video, with its path; for one that cannot be read a line."""
    for path in queries:
        try:
            if video.is_video(path):
                yield from video.frames(path, config.every)
            else:
                yield path, inputs.as_image(path, reading=config.reading)
        except ValueError as error:
            yield f"skipped {error}"
