"""What a prediction writes: for each image a mask, an overlay and perhaps a soft map, and for all of them two tables.

NAME.png            a palette image that viewers show in colour, its numbers 0 and 1
NAME.overlay.jpg    the image with the mask laid over it
NAME.soft.png       16 bits, probability times 65535, if asked for
answers.csv         a row an image: area, confidence, chance that it holds the thing, whether it does
coco.json           COCO's annotations, masks run-length encoded; of the images that hold the thing
sheet.jpg           supports, and the answers of the highest, middle and lowest confidence
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cluster.config.predict import PredictConfig
from cluster.engine import publish
from fss.drawing import pictures
from fss.imaging import images
from fss.segmenter.thing import Answer
from fss.texts import shown

TABLE, COCO, SHEET = "answers.csv", "coco.json", "sheet.jpg"
#: Pictures in a row of the contact sheet, and their side in pixels.
_SHOWN, _CELL = 4, 300
_WHITE = 65535


@dataclass(frozen=True)
class Row:
    """What is told of one image."""

    file: Path
    width: int
    height: int
    area: float
    """Share of the image that the mask covers."""
    confidence: float
    """Mean probability of the thing in the mask, 0 where it is empty."""
    chance: float | None
    """That the image holds the thing at all; None = not known."""
    present: bool
    runs: dict[str, Any]
    """The mask, run-length encoded as COCO does."""

    @property
    def sureness(self) -> float:
        """The chance that the image holds the thing, or the confidence where that is not known."""
        return self.confidence if self.chance is None else self.chance


def write(out: Path, path: Path, image: Image.Image, answer: Answer, config: PredictConfig) -> Row:
    """The files of one image, and what is told of it."""
    mask = answer.mask(config.threshold, config.edges)
    publish.write_bytes(out / f"{path.stem}.png", seen(mask))
    laid = Image.fromarray(pictures.overlay(image, mask))
    publish.write_bytes(out / f"{path.stem}.overlay.jpg", images.encode_jpeg(laid))
    if config.soft:
        soft = np.rint(answer.probabilities * _WHITE).astype(np.uint16)
        publish.write_bytes(out / f"{path.stem}.soft.png", images.encode_png(soft))
    return row(path, mask, answer, config.presence)


def seen(mask: np.ndarray) -> bytes:
    """An (H, W) uint8 mask of 0 and 1 as a PNG that viewers show in colour; its numbers are kept."""
    return images.encode_palette(mask, [(0, 0, 0), pictures.BLUE])


def row(path: Path, mask: np.ndarray, answer: Answer, presence: float) -> Row:
    """What is told of one image: `mask` is that of `answer`, which holds the thing from the chance `presence` on."""
    sure = float(answer.probabilities[mask == 1].mean()) if mask.any() else 0.0
    present = bool(mask.any()) if answer.presence is None else answer.presence >= presence
    height, width = mask.shape
    return Row(path, width, height, float(mask.mean()), sure, answer.presence, present, runs(mask))


def conclude(out: Path, rows: Sequence[Row], supports: Sequence[tuple[Image.Image, np.ndarray]], name: str) -> None:
    """Write what is told of all images; `supports` are images with their masks."""
    publish.write_bytes(out / TABLE, _table(rows).encode())
    publish.write_bytes(out / COCO, (json.dumps(coco(rows, name)) + "\n").encode())
    publish.write_bytes(out / SHEET, images.encode_jpeg(Image.fromarray(_sheet(out, rows, supports, name))))


def runs(mask: np.ndarray) -> dict[str, Any]:
    """An (H, W) uint8 mask of 0 and 1, run-length encoded as COCO does."""
    from pycocotools import mask as rle

    encoded = rle.encode(np.asfortranarray(mask))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def _table(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["file", "width", "height", "area", "confidence", "chance", "present"])
    for row in rows:
        chance = "" if row.chance is None else f"{row.chance:.4f}"
        numbers = f"{row.area:.6f}", f"{row.confidence:.4f}", chance, int(row.present)
        table.writerow([shown(str(row.file)), row.width, row.height, *numbers])
    return text.getvalue()


def coco(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """COCO's format; an image without the thing has no annotation."""
    from pycocotools import mask as rle

    annotations = [
        {
            "id": number,
            "image_id": number,
            "category_id": 1,
            "segmentation": row.runs,
            "area": int(rle.area(row.runs)),
            "bbox": [float(side) for side in rle.toBbox(row.runs)],
            "iscrowd": 0,
            "score": round(row.sureness, 4),
        }
        for number, row in enumerate(rows, 1)
        if row.present and row.area
    ]
    listed = [
        {"id": number, "file_name": shown(row.file.name), "width": row.width, "height": row.height}
        for number, row in enumerate(rows, 1)
    ]
    return {"images": listed, "categories": [{"id": 1, "name": name}], "annotations": annotations}


def _sheet(out: Path, rows: Sequence[Row], supports: Sequence[tuple[Image.Image, np.ndarray]], name: str) -> np.ndarray:
    """The supports in the first row, then answers: those of images that hold the thing first, the surest first."""
    order = sorted(rows, key=lambda row: (row.present, row.sureness, row.confidence), reverse=True)
    number = max(1, min(_SHOWN, len(order) // 3))
    middle = (len(order) - number) // 2
    chosen = {"best": order[:number], "median": order[middle : middle + number], "worst": order[-number:]}
    first = [pictures.overlay(image, mask, pictures.ORANGE) for image, mask in supports[:_SHOWN]]
    lines: list[list[pictures.Picture]] = [list(first)]
    captions = [["support"] * len(first)]
    for which, some in (chosen if len(order) > _SHOWN else {"answer": order}).items():
        lines.append([Image.open(out / f"{row.file.stem}.overlay.jpg") for row in some])
        # A caption that is too long is cut at its end.
        captions.append([f"{which}, {100 * row.sureness:.0f} %: {shown(row.file.stem)}" for row in some])
    return pictures.contact_sheet(lines, captions, title=_title(rows, name), cell=_CELL)


def _title(rows: Sequence[Row], name: str) -> str:
    what = "confidence" if rows[0].chance is None else "the chance that they hold it"
    return f"{name}: in {sum(row.present for row in rows)} of {len(rows)} images; per cent: {what}"
