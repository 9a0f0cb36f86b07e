"""A learned head added to a read-out that needs no training: it starts there, and learns what to add.

This is ours, of no paper: meta-training on few or noisy tasks may end below its backbone's floor, and a head that
starts at the floor has only the difference to learn.

Letters: B episodes, K shots, h x w grid.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from fss.backbones import Features
from fss.grid import enlarge
from fss.heads.parts.head import Auxiliary, Head
from fss.heads.prototype import PrototypeReadout, SmoothedReadout

#: What `model.options.residual` may be, besides none.
READOUTS: dict[str, type[PrototypeReadout] | type[SmoothedReadout]] = {
    "prototype": PrototypeReadout,
    "smoothed": SmoothedReadout,
}
#: Differences of cosines are a few hundredths; the loss wants logits of about one.
_GAIN = 15.0


class Residual(Head):
    """Logits of `head` plus a learned gain times those of `readout`; at the start the head's are zero.

    What each of the two makes of an image is kept apart by the prefixes `head.` and `readout.`; a head that embeds the
    smoothed read-out's tensors itself lends them.

    Args:
        head: is silenced, see `Head.silence`; ValueError if it cannot be.
        readout: without parameters, its logits cosines (`scale=1`).
    """

    def __init__(self, head: Head, readout: Head):
        super().__init__()
        head.silence()
        self.head, self.readout, self.corners = head, readout, head.corners
        self.gain = nn.Parameter(torch.tensor([_GAIN]))
        self.studies = head.studies
        self.lent = head.embeds_smoothed and isinstance(readout, SmoothedReadout)
        self.transformers = tuple(f"head.{name}" for name in head.transformers)  # type: ignore[misc]

    def embed(self, features: Features) -> Features:
        """What both make of an image, by prefix."""
        found = _prefixed("head.", self.head.embed(features))
        return found if self.lent else found | _prefixed("readout.", self.readout.embed(features))

    def focus(self, query: Features) -> Features:
        """What both compute besides of a query, by prefix."""
        found = _prefixed("head.", self.head.focus(_part("head.", query)))
        return found if self.lent else found | _prefixed("readout.", self.readout.focus(_part("readout.", query)))

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) float32 logits; see `Head.match`."""
        logits = self.head.match(_part("head.", query), _part("head.", support), masks)
        source = "head." if self.lent else "readout."
        return self._added(logits, self.readout.match(_part(source, query), _part(source, support), masks))

    def learn(
        self, query: Features, support: Features, masks: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Auxiliary, ...]]:
        """The sum as of `forward`, and the further predictions of the head alone."""
        if type(self.head).learn is Head.learn:
            return self(query, support, masks), ()
        logits, auxiliary = self.head.learn(query, support, masks)
        return self._added(logits, self.readout(query, support, masks)), auxiliary

    def diagnose(self, query: Features, support: Features, masks: torch.Tensor) -> dict[str, float]:
        """Those of the head."""
        return self.head.diagnose(query, support, masks)

    def study(self, images: Iterable[tuple[Features, torch.Tensor]], seed: int) -> None:
        """The head's."""
        self.head.study(images, seed)

    def noted(self) -> torch.Tensor | None:
        """The head's."""
        return self.head.noted()

    def settle(self, noted: torch.Tensor) -> None:
        """The head's."""
        self.head.settle(noted)

    def _added(self, logits: torch.Tensor, cosines: torch.Tensor) -> torch.Tensor:
        """Half of the read-out's margin, on the head's grid, goes to the foreground, half comes off the background."""
        if cosines.shape[-2:] != logits.shape[-2:]:
            cosines = enlarge(cosines, (logits.shape[-2], logits.shape[-1]), self.corners)
        half = self.gain * (cosines[:, 1] - cosines[:, 0]) / 2
        return logits + torch.stack([-half, half], dim=1)


def wrapped(head: Head, residual: str, channels: dict[str, int]) -> Head:
    """`head` as it is for `residual` none, else added to that read-out of a backbone of `channels`.

    Raises:
        ValueError: for an unknown read-out, or for a head that learns nothing or cannot start silent.
    """
    if residual == "none":
        return head
    if residual not in READOUTS:
        expected = ", ".join(("none", *READOUTS))
        raise ValueError(f"expected model.options.residual of {expected}, got {residual!r}")
    if not any(True for _ in head.parameters()):
        raise ValueError(
            f"expected a head that learns for model.options.residual={residual}, got {type(head).__name__}, "
            "which needs no training: set model.options.residual=none"
        )
    return Residual(head, READOUTS[residual](channels, scale=1.0))


def _prefixed(prefix: str, tensors: Features) -> Features:
    return {prefix + name: values for name, values in tensors.items()}


def _part(prefix: str, tensors: Features) -> Features:
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
