"""What supports show, made ready once, and found in any number of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from fss.backbones import Features
from fss.backbones.extractor import Extractor
from fss.grid import cells, enlarge
from fss.heads.parts.head import Head
from fss.imaging.inputs import Picture, as_image, as_support, several
from fss.prefetch import batches
from fss.segmenter import presence, tiles
from fss.segmenter.edges import SIDE, sharpened, side_of
from fss.segmenter.presence import Presence
from fss.training.bank import stack, stack_shots


@dataclass(frozen=True)
class Answer:
    """Where the thing is in one image."""

    probabilities: np.ndarray
    """(H, W) float32 in [0, 1]: that of the thing at every pixel of the upright image."""
    presence: float | None = None
    """The chance that the thing is in the image at all, in [0, 1]; None if the model was not calibrated for it."""
    photo: Image.Image | None = None
    """The upright image, which borders of masks follow; None = they are the probabilities' own."""
    side: int = SIDE
    """Pixels of its longer side at which borders are looked for."""

    def mask(self, threshold: float = 0.5, edges: bool = True) -> np.ndarray:
        """(H, W) uint8 in {0, 1}: 1 where the probability is above `threshold`.

        With `edges` borders follow those of the photo, see `fss.segmenter.edges`.

        Raises:
            ValueError: for a threshold outside of (0, 1).
        """
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: expected a probability in (0, 1), got {threshold}")
        if edges and self.photo is not None:
            return sharpened(self.photo, self.probabilities, threshold, self.side)
        return (self.probabilities > threshold).astype(np.uint8)


@dataclass(frozen=True)
class Thing:
    """What K supports show, as a head sees it; `Segmenter.prepare` makes it. No query computes anything of them again.

    `supports` are tensors (1, ...) that `Head.show` returned, `masks` their shares (1, K, 2, h, w), `shown` what
    `fss.segmenter.presence.foreground` makes of both.
    """

    head: Head
    extractor: Extractor
    supports: Features
    masks: torch.Tensor
    shown: torch.Tensor
    calibration: Presence | None

    @classmethod
    @torch.inference_mode()
    def of(
        cls,
        head: Head,
        extractor: Extractor,
        pairs: Sequence[tuple[Picture, Picture]],
        calibration: Presence | None = None,
    ) -> Thing:
        """The thing that (image, mask) pairs show.

        Raises:
            ValueError: if sizes do not fit, something is no image or mask, or no mask shows any foreground.
        """
        shown = [as_support(image, mask, f"support {place}") for place, (image, mask) in enumerate(pairs)]
        if not any((mask == 1).any() for _, mask in shown):
            raise ValueError(
                "expected a support mask that shows the thing, got only background and void; paint it with 1"
            )
        device, corners = extractor.device, extractor.backbone.corners
        features = list(extractor.stream([image for image, _ in shown], head.sees_colour))
        side = features[0]["high"].shape[-1]
        masks = torch.stack([cells(mask, side, corners) for _, mask in shown])[None].to(device)
        shots = stack_shots([features], device)
        embedded = head.embed({level: values.flatten(0, 1) for level, values in shots.items()})
        supports = head.show({name: values[None] for name, values in embedded.items()}, masks)
        return cls(head, extractor, supports, masks, presence.foreground(shots, masks), calibration)

    def stream(self, images: Picture | Iterable[Picture], tile: int | None = None) -> Iterator[Answer]:
        """The answer of one image after the other, computed `Extractor.call` at a time; none is kept.

        Images are paths, bytes, Pillow images of any mode, arrays or tensors, of any sizes; see `fss.imaging.inputs`.
        The backbone sees each squeezed to its own input. With `tile`, those with a longer side are cut into tiles of so
        many pixels a side, see `fss.segmenter.tiles`; the thing is there if it is in any of them.

        Raises:
            ValueError: for what is no image, or a `tile` that is no side of tiles; that at once.
        """
        if tile is not None:
            tiles.check(tile)
        asked = (as_image(image, f"query {place}") for place, image in enumerate(several(images)))
        return self._whole(asked) if tile is None else (self._tiled(image, tile) for image in asked)

    def _tiled(self, image: Image.Image, side: int) -> Answer:
        places = tiles.boxes(image.size, side)
        parts = list(self._whole(map(image.crop, places)))
        chances = [part.presence for part in parts if part.presence is not None]
        blended = tiles.blended(image.size, places, (part.probabilities for part in parts))
        return Answer(blended, max(chances, default=None), image, side_of(image.size, side))

    def _whole(self, asked: Iterable[Image.Image]) -> Iterator[Answer]:
        corners = self.extractor.backbone.corners
        for batch in batches(asked, self.extractor.call):
            for image, logits, chance in zip(batch, *self._answered(batch), strict=True):
                soft = enlarge(logits[None], (image.height, image.width), corners).softmax(dim=1)[0, 1]
                yield Answer(soft.cpu().numpy(), chance, image)

    def probabilities(self, image: Picture) -> np.ndarray:
        """(H, W) float32 in [0, 1]: see `Answer.probabilities`; raises as `stream`."""
        return self.answer(image).probabilities

    def answer(self, image: Picture) -> Answer:
        """That of one image; raises as `stream`."""
        (answer,) = self.stream([as_image(image, "query")])
        return answer

    def segment(self, image: Picture, threshold: float = 0.5, edges: bool = True) -> np.ndarray:
        """(H, W) uint8 mask of one image; see `Answer.mask`, raises as it and `stream`."""
        return self.answer(image).mask(threshold, edges)

    @torch.inference_mode()
    def _answered(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, Sequence[float | None]]:
        """(B, 2, h, w) float32 logits of the cells of B images, and the chances that they hold the thing."""
        number, corners = len(images), self.extractor.backbone.corners
        levels = stack(list(self.extractor.stream(images, self.head.sees_colour)), self.extractor.device)
        supports = {name: values.expand(number, *values.shape[1:]) for name, values in self.supports.items()}
        query = self.head.focus(self.head.embed(levels))
        logits = self.head.match(query, supports, self.masks.expand(number, *self.masks.shape[1:]))
        if self.calibration is None:
            return logits, [None] * number
        likeness = presence.likeness(logits, levels, self.shown.expand(number, -1), corners)
        return logits, self.calibration.chance(likeness).tolist()
