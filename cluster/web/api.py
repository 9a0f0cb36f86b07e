"""The API: things are shown by /supports and found by /segment."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, File, Form, HTTPException, UploadFile
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from cluster.serving import answers
from cluster.web.finder import Found, How, Marks
from cluster.web.service import Service, Upload, service
from fss.imaging import inputs
from fss.segmenter.thing import Answer

router = APIRouter(tags=["segmentation"])
Server = Annotated[Service, Depends(service)]


class Answering(BaseModel):
    """An answer whose fields the schema explains as they are explained here."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Shown(Answering):
    """What was understood of a support."""

    thing: str
    """What the thing is known by from now on."""
    supports: int
    """How many images show it."""
    mask: str
    """The mask of this support: a PNG of 0, 1 and 255 (void) in base64, of the upright image's size."""


class Told(Answering):
    """The answer for one image."""

    file: str
    """What the image was called."""
    width: int
    """Pixels of the upright image."""
    height: int
    """Likewise."""
    area: float
    """Share of the image that the mask covers."""
    confidence: float
    """Mean probability in the mask, 0 where it is empty."""
    chance: float | None
    """That the image holds the thing; null where the model was not calibrated for it."""
    present: bool
    mask: str
    """A palette PNG of 0 and 1 in base64, of the upright image's size."""


class Segmented(Answering):
    """The answers for all images of a request."""

    answers: list[Told]
    """One for each image, in their order."""
    coco: dict[str, Any]
    """COCO's annotations, of the images that hold the thing."""


@router.get("/health")
async def health(server: Server) -> dict[str, str]:
    """Whether the model answers."""
    about = await server.finders.about()
    return {"status": "UP", "model_class": about["model"]["name"]}


@router.get("/models")
async def models(server: Server) -> list[dict[str, Any]]:
    """The model that is served, and what a request may bring."""
    config = server.config
    limits = {"images": config.max_images, "mib": config.max_upload_mib}
    return [await server.finders.about() | {"limits": limits, "name": config.name, **server.how._asdict()}]


@router.post("/supports")
async def supports(
    server: Server,
    image: UploadFile,
    mask: Annotated[
        UploadFile | None, File(description="of the image's size: 1 or white is the thing", examples=["@FILE"])
    ] = None,
    box: Annotated[str | None, Form(description="JSON: [left,top,right,bottom] in pixels")] = None,
    points: Annotated[str | None, Form(description="JSON: [[x,y,1],[x,y,0]]; 1 = on the thing, 0 = beside it")] = None,
    thing: Annotated[str | None, Form(description="one that has supports already; this one is added")] = None,
) -> Shown:
    """Show the thing on an image, by one of a mask, a box and points."""
    given = [name for name, value in {"mask": mask, "box": box, "points": points}.items() if value is not None]
    if len(given) != 1:
        raise HTTPException(
            400, f"mask: expected one of mask, box, points, got {' and '.join(given) or 'none'}; send one"
        )
    marks = Marks(
        mask=await mask.read() if mask else None,
        box=None if box is None else _numbers("box", box, 1),
        points=None if points is None else _numbers("points", points, 2),
    )
    name, known = await server.show(await image.read(), marks, thing)
    return Shown(thing=name, supports=len(known), mask=_text(known[-1].mask))


@router.post("/segment")
async def segment(
    server: Server,
    thing: Annotated[str, Form(description="what POST /supports returned")],
    images: list[UploadFile],
    threshold: Annotated[
        float | None, Form(gt=0, lt=1, description="probability from which a pixel belongs to it")
    ] = None,
    presence: Annotated[float | None, Form(ge=0, le=1, description="chance from which it counts as there")] = None,
    edges: Annotated[bool | None, Form(description="whether borders of masks follow those of the image")] = None,
    tile: Annotated[int | None, Form(ge=64, description="side of tiles for larger images, pixels")] = None,
) -> Segmented:
    """Find the thing in images."""
    usual = server.how
    how = How(
        usual.threshold if threshold is None else threshold,
        usual.presence if presence is None else presence,
        usual.edges if edges is None else edges,
        tile,
    )
    files = [Upload(_name(one, place), await one.read()) for place, one in enumerate(images)]
    found = await server.find(thing, files, how)
    return Segmented(
        answers=[told(one) for one in found], coco=answers.coco([one.row for one in found], server.config.name)
    )


@router.post("/masks", response_class=Response, responses={200: {"content": {"application/zip": {}}}})
async def masks(server: Server, masks: list[UploadFile], name: Annotated[str, Form(max_length=80)] = "") -> Response:
    """Masks, corrected ones among them, as they are kept: a zip of NAME.png, with numbers 0 and 1, and coco.json.

    Each mask is called like its image.
    """
    files = [Upload(_name(one, place), await one.read()) for place, one in enumerate(masks)]
    server.count(files)
    try:
        zipped = await asyncio.to_thread(_zipped, files, name or server.config.name)
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    disposition = {"Content-Disposition": 'attachment; filename="masks.zip"'}
    return Response(zipped, media_type="application/zip", headers=disposition)


def told(found: Found) -> Told:
    """An answer as it is sent."""
    row = found.row
    return Told(
        file=row.file.name,
        width=row.width,
        height=row.height,
        area=row.area,
        confidence=row.confidence,
        chance=row.chance,
        present=row.present,
        mask=_text(found.mask),
    )


def _zipped(files: Sequence[Upload], thing: str) -> bytes:
    """The zip of masks; ValueError for what is none."""
    rows, data, taken = [], io.BytesIO(), set[str]()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            mask = (inputs.as_mask(file.data, file.name) == 1).astype(np.uint8)
            archive.writestr(f"{_free(Path(file.name).stem, taken)}.png", answers.seen(mask))
            rows.append(answers.row(Path(file.name), mask, Answer(mask.astype(np.float32)), presence=0))
        archive.writestr(answers.COCO, json.dumps(answers.coco(rows, thing)) + "\n")
    return data.getvalue()


def _free(stem: str, taken: set[str]) -> str:
    """`stem`, or what it becomes by the first number that makes it another than those taken; it is taken then."""
    tried = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    chosen = next(one for one in tried if one.casefold() not in taken)  # many disks take A and a for one
    taken.add(chosen.casefold())
    return chosen


def _numbers(name: str, text: str, depth: int) -> Any:
    """A JSON list of numbers, or of lists of three numbers.

    Raises:
        HTTPException: 400 for anything else.
    """
    try:
        value = np.array(json.loads(text), dtype=np.float64)
    except (ValueError, TypeError, RecursionError):
        value = np.empty(0)
    if value.ndim != depth or value.shape[-1] != (4, 3)[depth - 1] or not np.isfinite(value).all():
        wanted = "[left,top,right,bottom]" if depth == 1 else "[[x,y,side]]"
        raise HTTPException(400, f"{name}: expected {wanted}, numbers in JSON, got {text[:80]}")
    return value.tolist()


def _name(file: UploadFile, place: int) -> str:
    """The last part of a file's name, whatever else its sender says of where it lies."""
    return Path((file.filename or "").replace("\\", "/")).name or f"image {place}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
