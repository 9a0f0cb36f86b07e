"""The model's side: supports are read, marks become masks, and things are found in images, many at a time.

Images and masks come and go as files. What cannot be read comes back as `Refused`, so that one bad image harms none
beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from cluster.serving import answers
from cluster.web.recent import Recent
from fss.imaging import images, inputs
from fss.prefetch import batches
from fss.segmenter import Segmenter, marks
from fss.segmenter.thing import Thing

#: Things that are kept ready; each takes megabytes of features for every support.
_READY = 16


class Support(NamedTuple):
    """An image that shows the thing, and its mask as a PNG of the upright image's size."""

    image: bytes
    mask: bytes


class Marks(NamedTuple):
    """What shows the thing in an image: one of a drawn mask, a box, and points; see `fss.segmenter.marks`."""

    mask: bytes | None = None
    box: Sequence[float] | None = None
    points: Sequence[Sequence[float]] | None = None


class How(NamedTuple):
    """From which probability a pixel belongs to the thing, from which chance an image holds it, and how it is cut."""

    threshold: float
    presence: float
    edges: bool = True
    """Whether borders of masks follow those of the image."""
    tile: int | None = None
    """Side in pixels of the tiles of larger images; None = each is seen as a whole."""


class Asked(NamedTuple):
    """An image, and the thing that is looked for in it."""

    name: str
    image: bytes
    thing: str
    """What it is known by; equal names mean equal supports."""
    how: How
    supports: tuple[Support, ...] | None = None
    """What shows the thing; None for one that the model should know."""


class Found(NamedTuple):
    """The answer for one image: what is told of it, and its mask as a palette PNG of its size, with numbers 0 and 1."""

    row: answers.Row
    mask: bytes


class Refused(NamedTuple):
    """Why something cannot be used, in a sentence."""

    why: str


#: None: the thing is not known here, ask again with its supports.
Answered = Found | Refused | None


class Finder:
    """A segmenter with the things that it was asked for last. One call at a time."""

    def __init__(self, segmenter: Segmenter):
        self.segmenter = segmenter
        self._ready: Recent[str, Thing] = Recent(_READY)

    @property
    def about(self) -> dict[str, Any]:
        """What is told of it: its head, backbone, facts and the hashes of its weights."""
        told = self.segmenter.about
        return {key: told[key] for key in ("model", "backbone", "facts", "sha256")} | {
            "calibrated": told.get("presence") is not None,
            "size": self.segmenter.extractor.size,
        }

    def drawn(self, image: bytes, shown: Marks) -> Support | Refused:
        """A support of an image and its marks; of a box or points the model makes the mask."""
        try:
            return self._drawn(image, shown)
        except ValueError as error:
            return Refused(str(error))

    def _drawn(self, image: bytes, shown: Marks) -> Support:
        if shown.mask is not None:
            mask = inputs.as_support(image, shown.mask)[1]
        elif shown.box is not None:
            mask = marks.of_box(self.segmenter, inputs.as_image(image, "support"), shown.box)
        else:
            mask = marks.of_points(self.segmenter, inputs.as_image(image, "support"), shown.points or ())
        if not (mask == 1).any():
            raise ValueError(
                "support: expected a mask that shows the thing, got only background; paint it with 1 or 255"
            )
        return Support(image, images.encode_png(mask))

    def find(self, asked: Sequence[Asked]) -> list[Answered]:
        """The answers, in order; images that are asked for one thing are computed together."""
        together: dict[tuple[str, int | None], list[int]] = defaultdict(list)
        for place, one in enumerate(asked):
            together[one.thing, one.how.tile].append(place)
        found: dict[int, Answered] = {}
        for places in together.values():
            for part in batches(places, self.segmenter.extractor.call):
                found |= self._found({place: asked[place] for place in part})
        return [found[place] for place in range(len(asked))]

    def _found(self, asked: Mapping[int, Asked]) -> dict[int, Answered]:
        """Those of images that are asked for one thing, by their places."""
        try:
            thing = self._thing(list(asked.values()))
        except ValueError as error:
            return dict.fromkeys(asked, Refused(str(error)))
        if thing is None:
            return dict.fromkeys(asked, None)
        read = {place: _read(one) for place, one in asked.items()}
        found: dict[int, Answered] = {place: one for place, one in read.items() if isinstance(one, Refused)}
        good = {place: one for place, one in read.items() if isinstance(one, Image.Image)}
        tile = next(iter(asked.values())).how.tile
        for place, answer in zip(good, thing.stream(good.values(), tile), strict=True):
            one = asked[place]
            mask = answer.mask(one.how.threshold, one.how.edges)
            found[place] = Found(answers.row(Path(one.name), mask, answer, one.how.presence), answers.seen(mask))
        return found

    def _thing(self, asked: Sequence[Asked]) -> Thing | None:
        name = asked[0].thing
        supports = next((one.supports for one in asked if one.supports is not None), None)
        thing = self._ready.get(name)
        if thing is None and supports is not None:
            thing = self.segmenter.prepare([one.image for one in supports], [one.mask for one in supports])
            self._ready.put(name, thing)
        return thing


def _read(asked: Asked) -> Image.Image | Refused:
    try:
        return inputs.as_image(asked.image, asked.name)
    except ValueError as error:
        return Refused(str(error))
