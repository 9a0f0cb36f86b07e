"""Label Studio's ML backend: annotations come by its webhook and become supports, predictions go.

A project's brush labels are things. Each annotated task is a support of the labels that it has; what was annotated last
counts. All of it is kept in memory and forgotten as other things are.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from email.message import Message
from typing import IO, Annotated, Any, NamedTuple
from urllib.parse import unquote_to_bytes, urljoin, urlsplit
from xml.etree import ElementTree

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel

from cluster.web import brush
from cluster.web.finder import Found, Marks, Refused, Support
from cluster.web.recent import Recent
from cluster.web.service import MOST_SUPPORTS, Service, Upload, from_base64
from fss.imaging import images, inputs

router = APIRouter(tags=["Label Studio"])
_LEARNS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED")
_SECONDS = 30


class Labelling(NamedTuple):
    """What a project's configuration says of brushes: the names of its tags, and the task's field with the image."""

    brush: str
    image: str
    field: str


class Owner(NamedTuple):
    """Whose support it is."""

    project: str
    label: str
    task: str


class Predict(BaseModel):
    """What Label Studio asks for predictions with."""

    tasks: list[dict[str, Any]]
    label_config: str
    project: str | int | None = None


class Event(BaseModel):
    """What Label Studio tells."""

    action: str
    annotation: dict[str, Any] = {}
    task: dict[str, Any] = {}
    project: dict[str, Any] = {}


class LabelStudio:
    """The supports that annotations gave."""

    def __init__(self, service: Service):
        self.service = service
        config = service.config
        self._shown: Recent[Owner, Support] = Recent(
            config.max_things * MOST_SUPPORTS, config.max_things_mib * 2**20, lambda one: sum(map(len, one))
        )

    def things(self, project: str) -> dict[str, str]:
        """The labels of a project with the thing of each, by the supports that were shown last."""
        supports: dict[str, list[Support]] = defaultdict(list)
        for shown, support in self._shown.items():
            if shown.project == project:
                supports[shown.label].append(support)
        return {label: self.service.keep(tuple(some[-MOST_SUPPORTS:]))[0] for label, some in supports.items()}

    async def learn(self, event: Event) -> int:
        """Take an annotation's brush masks as supports of its task, and say how many labels they had.

        Raises:
            HTTPException: 400 for what is no such annotation, or an image that cannot be fetched.
        """
        masks = _masks(event.annotation.get("result", []))
        if masks:
            labelling = _labelling(str(event.project.get("label_config", "")))
            image = await self.fetch(event.task, labelling.field)
            for label, mask in masks.items():
                drawn = await self.service.finders.drawn(image, Marks(mask=images.encode_png(mask)))
                if isinstance(drawn, Refused):
                    raise HTTPException(400, drawn.why)
                self._shown.put(Owner(_project(event.project.get("id")), label, str(event.task.get("id"))), drawn)
        return len(masks)

    async def fetch(self, task: Mapping[str, Any], field: str) -> bytes:
        """The image of a task, from Label Studio or out of the task itself.

        Raises:
            HTTPException: 400 for one that is elsewhere, or cannot be had.
        """
        address = str((task.get("data") or {}).get(field, ""))
        if address.startswith("data:"):
            return _inside(address)
        config = self.service.config
        home = config.label_studio
        if home is None:
            raise HTTPException(
                400, f"expected the URL of Label Studio to fetch {address[:80]} from; set label_studio=URL"
            )
        url = urljoin(f"{home}/", address)
        if urlsplit(url)[:2] != urlsplit(home)[:2]:
            raise HTTPException(400, f"expected an image of {home}, got {url[:80]}; import images into Label Studio")
        return await asyncio.to_thread(_download, url, config.label_studio_secret, int(config.max_upload_mib * 2**20))


def _of(request: Request) -> LabelStudio:
    return request.app.state.label_studio


Backend = Annotated[LabelStudio, Depends(_of)]


@router.post("/setup")
async def setup(backend: Backend, _: dict[str, Any]) -> dict[str, str]:
    """Say which model this is."""
    return {"model_version": await _version(backend)}


@router.post("/webhook", status_code=201)
async def webhook(backend: Backend, event: Event) -> dict[str, Any]:
    """Learn from annotations; other events change nothing."""
    return {"status": "ok", "result": await backend.learn(event) if event.action in _LEARNS else 0}


@router.post("/predict")
async def predict(backend: Backend, body: Predict) -> dict[str, Any]:
    """A brush mask for each label of the project that was annotated before and that a task's image holds."""
    labelling, version = _labelling(body.label_config), await _version(backend)
    things = backend.things(_project(body.project))
    results = []
    for task in body.tasks:
        file = Upload(f"task {task.get('id')}", await backend.fetch(task, labelling.field) if things else b"")
        found = {
            label: (await backend.service.find(thing, [file], backend.service.how))[0]
            for label, thing in things.items()
        }
        regions = [region(labelling, label, one) for label, one in found.items() if one.row.present and one.row.area]
        score = max((one["score"] for one in regions), default=0.0)
        results.append({"result": regions, "score": score, "model_version": version})
    return {"results": results, "model_version": version}


def region(labelling: Labelling, label: str, found: Found) -> dict[str, Any]:
    """An answer as a region of Label Studio."""
    return {
        "id": f"{label}-{found.row.file.name}",
        "type": "brushlabels",
        "from_name": labelling.brush,
        "to_name": labelling.image,
        "original_width": found.row.width,
        "original_height": found.row.height,
        "image_rotation": 0,
        "score": round(found.row.sureness, 4),
        "value": {"format": "rle", "rle": brush.encode(inputs.as_mask(found.mask)), "brushlabels": [label]},
    }


def _labelling(config: str) -> Labelling:
    try:
        tags = list(ElementTree.fromstring(config).iter())
        brushes = next(one for one in tags if one.tag == "BrushLabels")
        image = next(one for one in tags if one.tag == "Image" and one.get("name") == brushes.get("toName"))
    except (ElementTree.ParseError, StopIteration) as error:
        raise HTTPException(400, "label_config: expected an Image with BrushLabels, got none; add both tags") from error
    return Labelling(brushes.get("name", ""), image.get("name", ""), image.get("value", "").removeprefix("$"))


def _masks(regions: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The (H, W) masks of an annotation by their labels; several regions of one label are one mask."""
    masks: dict[str, np.ndarray] = {}
    for one in regions:
        value = one.get("value", {})
        for label in value.get("brushlabels", []) if value.get("format") == "rle" else []:
            try:
                mask = brush.decode(value["rle"], (int(one["original_width"]), int(one["original_height"])))
                masks[label] = masks[label] | mask if label in masks else mask
            except (KeyError, ValueError, TypeError) as error:
                raise HTTPException(400, f"annotation: expected regions of a brush, got {error}") from error
    return masks


def _inside(address: str) -> bytes:
    """The bytes of a data URL."""
    head, _, data = address.partition(",")
    return from_base64(data, "image") if head.endswith(";base64") else unquote_to_bytes(data)


class _Forwarding(urllib.request.HTTPRedirectHandler):
    """Goes where Label Studio points, to its store of images, but does not tell its key there."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """The request for the new place."""
        again = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if again is not None:
            again.remove_header("Authorization")
        return again


def _download(url: str, key: str | None, most: int) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Token {key}"} if key else {})
    try:
        with urllib.request.build_opener(_Forwarding).open(request, timeout=_SECONDS) as answer:
            data = bytes(answer.read(most + 1))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise HTTPException(
            400, f"expected an image at {url[:80]}, got: {error}; is LABEL_STUDIO_API_KEY set?"
        ) from error
    if len(data) > most:
        raise HTTPException(400, f"expected an image of at most {most} bytes at {url[:80]}, got more")
    return data


async def _version(backend: LabelStudio) -> str:
    about = await backend.service.finders.about()
    return f"{about['model']['name']}-{about['sha256']['model.safetensors'][:8]}"


def _project(name: Any) -> str:
    """A project's number: Label Studio asks with `NUMBER.TIME`, and tells with the number."""
    return str(name).partition(".")[0]
