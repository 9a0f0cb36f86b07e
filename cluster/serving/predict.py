"""Segments a user's own images with a trained model: every problem of what is given is named before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from cluster.config.predict import PredictConfig, listed
from cluster.engine import publish
from cluster.serving import answers
from cluster.serving.given import MARK, left_out, look
from fss.imaging import inputs
from fss.imaging.colour import Reading
from fss.prefetch import batches


def predict(config: PredictConfig) -> Iterator[str]:
    """Segment all queries, and say a line of each; images that cannot be read are named and skipped.

    Raises:
        ValueError: as `given.look`, or in the end, if no query could be read.
    """
    given = look(config)
    about = dataclasses.asdict(config) | {"sha256": given.segmenter.about["sha256"]}
    publish.write_json(given.out / MARK, about)
    yield from left_out(listed(config.query), given.queries)
    thing, rows = given.segmenter.prepare(given.supports, given.masks), list[answers.Row]()
    for paths in batches(given.queries, given.segmenter.extractor.call):
        read, skipped = _read(paths, config.reading)
        yield from skipped
        for (path, image), answer in zip(read, thing.stream([image for _, image in read], config.tile), strict=True):
            row = answers.write(given.out, path, image, answer, config)
            rows.append(row)
            yield f"{path.name}: {100 * row.area:.1f} % of the image" + ("" if row.present else ", not there")
    if not rows:
        raise ValueError(f"none of the {len(given.queries)} images at query={config.query} could be read, see above")
    answers.conclude(given.out, rows, list(zip(given.supports, given.masks, strict=True)), config.name)
    yield f"predict: {len(rows)} of {len(given.queries)} images; {given.out}"


def _read(paths: Sequence[Path], reading: Reading) -> tuple[list[tuple[Path, Image.Image]], list[str]]:
    """The images that can be read, and a line for each of the others."""
    read, skipped = [], []
    for path in paths:
        try:
            read.append((path, inputs.as_image(path, reading=reading)))
        except ValueError as error:
            skipped.append(f"skipped {error}")
    return read, skipped
