"""What CVAT asks of a detector, as its serverless functions answer: an image comes, shapes go."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from cluster.web.api import Server
from cluster.web.service import Upload, from_base64
from fss.imaging import inputs

router = APIRouter(tags=["CVAT"])


class Call(BaseModel):
    """What CVAT sends."""

    image: str
    """The image's file in base64."""
    threshold: float | None = Field(None, gt=0, lt=1)


@router.post("/cvat")
async def detect(
    server: Server,
    call: Call,
    thing: Annotated[str | None, Query(description="what POST /supports returned; none = the one used last")] = None,
    label: Annotated[str | None, Query(description="what CVAT calls the thing")] = None,
) -> list[dict[str, Any]]:
    """The thing as a mask of CVAT; nothing where the image does not hold it."""
    image = from_base64(call.image, "image")
    how = server.how if call.threshold is None else server.how._replace(threshold=call.threshold)
    (found,) = await server.find(thing or server.last(), [Upload("image", image)], how)
    mask = inputs.as_mask(found.mask)
    if not found.row.present or not mask.any():
        return []
    return [
        {
            "confidence": f"{found.row.sureness:.4f}",
            "label": label or server.config.name,
            "type": "mask",
            "mask": shape(mask),
        }
    ]


def shape(mask: np.ndarray) -> list[int]:
    """A mask as CVAT takes it: 0 and 1 row by row within its box, then the box's left, top, right and bottom pixels.

    Args:
        mask: (H, W) uint8 of 0 and 1, not empty; the box's last two are inside.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top, right, bottom = (int(side) for side in (columns[0], rows[0], columns[-1], rows[-1]))
    return [*mask[top : bottom + 1, left : right + 1].ravel().tolist(), left, top, right, bottom]
