"""Segment your own images with a trained model, given one or a few images with a mask of the thing.

    python -m jobs.predict model=FOLDER support=img.jpg support_mask=mask.png query=FOLDER out=DIR
    python -m jobs.predict model=FOLDER support=[a.jpg,b.jpg] support_mask=[a.png,b.png] query=image.jpg out=DIR

For every query image it writes NAME.png (0 and 1, in the image's size) and NAME.overlay.jpg to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cluster.config import PredictConfig
from cluster.engine import publish
from fss.drawing import pictures
from fss.imaging import images, inputs
from fss.segmenter import Segmenter, find
from jobs._config import load_predict, run


def predict(config: PredictConfig) -> None:
    """Segment all queries; images that cannot be read are named and skipped.

    Raises:
        ValueError: for a support, mask, query or output that cannot be used.
    """
    out = Path(config.out)
    supports, masks = _supports(config)
    queries = list(_queries(Path(config.query)))
    if not config.overwrite and any((out / f"{path.stem}.png").exists() for path in queries):
        raise ValueError(f"{out} already holds masks of these images; choose another out= or set overwrite=true")
    doubled = [stem for stem, number in Counter(path.stem for path in queries).items() if number > 1]
    if doubled:
        raise ValueError(
            f"two query images are called {doubled[0]}, their masks would overwrite each other; rename one"
        )
    if not 0 < config.threshold < 1:
        raise ValueError(f"expected a threshold between 0 and 1, got {config.threshold}")
    segmenter = Segmenter.load(find(config.model), config.device)
    done = 0
    for path in queries:
        try:
            query = inputs.as_image(path)
        except ValueError as error:
            print(f"skipped {error}")
            continue
        mask = segmenter.segment(query, supports, masks, config.threshold)
        publish.write_bytes(out / f"{path.stem}.png", images.encode_png(mask))
        shown = Image.fromarray(pictures.overlay(query, mask))
        publish.write_bytes(out / f"{path.stem}.overlay.jpg", images.encode_jpeg(shown))
        done += 1
        print(f"{path.name}: {100 * mask.mean():.1f} % of the image")
    print(f"predict: {done} of {len(queries)} images; {out}")


def _supports(config: PredictConfig) -> tuple[list[Image.Image], list[np.ndarray]]:
    names, masks = _paths(config.support), _paths(config.support_mask)
    if len(names) != len(masks):
        raise ValueError(f"expected one mask for each support, got {len(names)} supports and {len(masks)} masks")
    pairs = [inputs.as_support(name, mask, str(name)) for name, mask in zip(names, masks, strict=True)]
    for name, (_, mask) in zip(masks, pairs, strict=True):
        if not (mask == 1).any():
            raise ValueError(
                f"{name}: expected a mask that shows the thing, got only background; paint it with 1 or 255"
            )
    return [image for image, _ in pairs], [mask for _, mask in pairs]


def _paths(value: object) -> list[Path]:
    return [Path(str(one)) for one in (value if isinstance(value, list | tuple) else [value])]


def _queries(path: Path) -> Iterator[Path]:
    """The images at `path`; what else lies in that folder is named."""
    if path.is_file():
        yield path
        return
    found = sorted(path.iterdir()) if path.is_dir() else []
    taken = [p for p in found if p.suffix.lower() in images.EXTENSIONS | images.UNDECODED and p.is_file()]
    if not taken:
        raise ValueError(f"expected an image or a folder of images at query={path}, found none")
    others = [f"{p.name}/" if p.is_dir() else p.name for p in found if p not in set(taken)]
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        print(f"left out, no images by their names: {', '.join(others[:5])}{more}")
    yield from taken


if __name__ == "__main__":
    run(load_predict, predict)
