"""What all routes share: those who find things, the things that were shown, and the limits of what is taken."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from fastapi import HTTPException, Request

from cluster.config.serve import ServeConfig
from cluster.web.finder import Answered, Asked, Found, How, Marks, Refused, Support
from cluster.web.recent import Recent

#: Supports of one thing: more take time and tell little.
MOST_SUPPORTS = 16
_MIB = 2**20


class Finders(Protocol):
    """Who finds things, wherever that is; see `cluster.web.finder.Finder`."""

    async def about(self) -> dict[str, Any]:
        """What is told of the model."""

    async def drawn(self, image: bytes, shown: Marks) -> Support | Refused:
        """A support of an image and its marks."""

    async def find(self, asked: Asked) -> Answered:
        """The answer for one image; None asks for the thing's supports."""


class Upload(NamedTuple):
    """An image as it was sent."""

    name: str
    data: bytes


class Service:
    """A model at work. A thing is known by a hash of its supports: who shows the same again gets the same name."""

    def __init__(self, finders: Finders, config: ServeConfig):
        self.finders, self.config = finders, config
        self._things: Recent[str, tuple[Support, ...]] = Recent(
            config.max_things,
            config.max_things_mib * _MIB,
            lambda one: sum(len(part) for support in one for part in support),
        )

    @property
    def how(self) -> How:
        """As the configuration says."""
        return How(self.config.threshold, self.config.presence, self.config.edges)

    async def show(self, image: bytes, shown: Marks, thing: str | None = None) -> tuple[str, tuple[Support, ...]]:
        """Remember what an image shows, beside the supports that `thing` has already: a name, and all its supports.

        Raises:
            HTTPException: 400 for what cannot be used, 404 for a thing that is not known, 413 for too many supports.
        """
        before = self.supports(thing) if thing else ()
        if len(before) >= MOST_SUPPORTS:
            raise HTTPException(
                413, f"thing: expected at most {MOST_SUPPORTS} supports, got another; begin a new thing"
            )
        drawn = await self.finders.drawn(image, shown)
        if isinstance(drawn, Refused):
            raise HTTPException(400, drawn.why)
        return self.keep((*before, drawn))

    def keep(self, supports: tuple[Support, ...]) -> tuple[str, tuple[Support, ...]]:
        """Remember supports: their name, and they."""
        parts = [hashlib.sha256(part).digest() for support in supports for part in support]
        thing = hashlib.sha256(b"".join(parts)).hexdigest()[:20]
        self._things.put(thing, supports)
        return thing, supports

    def last(self) -> str:
        """The thing that was used last.

        Raises:
            HTTPException: 404 if none is known.
        """
        thing = self._things.last()
        if thing is None:
            raise HTTPException(404, "thing: none is known yet; show one on the page or by POST /supports")
        return thing

    def supports(self, thing: str) -> tuple[Support, ...]:
        """What shows a thing.

        Raises:
            HTTPException: 404 if it is not known.
        """
        supports = self._things.get(thing)
        if supports is None:
            raise HTTPException(404, f"thing: there is none called {thing!r}, or it is forgotten; show it again")
        return supports

    def count(self, files: Sequence[Upload]) -> None:
        """Look at the number of files.

        Raises:
            HTTPException: 413 for too many.
        """
        if len(files) > self.config.max_images:
            raise HTTPException(413, f"images: expected at most {self.config.max_images}, got {len(files)}; send fewer")

    async def find(self, thing: str, files: Sequence[Upload], how: How) -> list[Found]:
        """The answers for images, in order; they are computed beside each other.

        Raises:
            HTTPException: 400 naming an image that cannot be read, 404 for a thing that is not known, 413 for too many.
        """
        self.count(files)
        supports = self.supports(thing)
        answers = await asyncio.gather(*(self._find(Asked(one.name, one.data, thing, how), supports) for one in files))
        refused = next((one for one in answers if isinstance(one, Refused)), None)
        if refused is not None:
            raise HTTPException(400, refused.why)
        return [one for one in answers if isinstance(one, Found)]

    async def _find(self, asked: Asked, supports: tuple[Support, ...]) -> Answered:
        answer = await self.finders.find(asked)
        return await self.finders.find(asked._replace(supports=supports)) if answer is None else answer


def from_base64(text: str, name: str) -> bytes:
    """The bytes of a file that came as text.

    Raises:
        HTTPException: 400 for what is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise HTTPException(400, f"{name}: expected a file in base64, got {error}") from error


def service(request: Request) -> Service:
    """The model that a request's application serves."""
    return request.app.state.service
