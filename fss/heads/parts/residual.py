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
from fss.heads.parts import threshold
from fss.heads.parts.capabilities import Fits, Settles, Silences, Studies, Ways, margins
from fss.heads.parts.head import Auxiliary, Head

#: Differences of cosines are a few hundredths; the loss wants logits of about one.
_GAIN = 15.0
#: No margins are all zero but those of nothing.
_LEAST = 1e-6


class Residual(Head):
    """Logits of `head` plus a learned gain times those of `readout`; at the start the head's are zero.

    What each of the two makes of an image is kept apart by the prefixes `head.` and `readout.`. It can do what `head`
    can (`fss.heads.parts.capabilities`), but for starting silent.

    Args:
        head: is silenced.
        readout: without parameters, its logits cosines (`scale=1`). It may study training images, too.
        lent: `head` embeds the read-out's tensors itself, under the same names.
        by_shots: the head's logits count 1/K beside a read-out of K supports, and 1/(K + 1) once they are learned:
            prototypes of several images err less, and a head that learned from single supports would undo that; of
            pseudo-tasks it learned to trust itself more than other images bear out.
        otsu: share of the way that the threshold of the sum moves towards the query's own, over K.
        own: weight of what the read-out says of the query once the query, as answered, is its support (the self-support
            matching of Fan et al., ECCV 2022, which learns it), over K squared: one support shows another thing than
            the query does, and several need the query less.

    Raises:
        ValueError: for a head that cannot start silent.
    """

    def __init__(
        self,
        head: Head,
        readout: Head,
        lent: bool = False,
        by_shots: bool = False,
        otsu: float = 0.0,
        own: float = 0.0,
    ):
        super().__init__()
        if not isinstance(head, Silences):
            raise ValueError(
                f"model.options.residual: expected none for {type(head).__name__}, which cannot start silent; set "
                "model.options.residual=none"
            )
        head.silence()
        self.head, self.readout, self.corners, self.lent = head, readout, head.corners, lent
        self.by_shots, self.otsu, self.own = by_shots, otsu, own
        self.gain = nn.Parameter(torch.tensor([_GAIN]))
        self.transformers = tuple(f"head.{name}" for name in head.transformers)  # type: ignore[misc]
        self.no_graph = head.no_graph or readout.no_graph  # type: ignore[misc]
        self._can_do_what(head)

    def _can_do_what(self, head: Head) -> None:
        """Have the head's further methods: its own, or with the read-out taken into account."""
        if isinstance(head, Fits):
            self.describe, self.fit = self._describe, head.fit
        if studious := [part for part in (head, self.readout) if isinstance(part, Studies)]:
            self.studies, self.study = max(part.studies for part in studious), self._study
        if isinstance(head, Settles):
            self.noted, self.settle = head.noted, head.settle
        if isinstance(head, Ways):
            self.margins = self._margins

    def embed(self, features: Features) -> Features:
        """What both make of an image, by prefix."""
        own = _prefixed("head.", self.head.embed(features))
        return own if self.lent else own | _prefixed("readout.", self.readout.embed(features))

    def focus(self, query: Features) -> Features:
        """What both compute besides of a query, by prefix."""
        own = _prefixed("head.", self.head.focus(_part("head.", query)))
        return own if self.lent else own | _prefixed("readout.", self.readout.focus(_part("readout.", query)))

    def show(self, support: Features, masks: torch.Tensor) -> Features:
        """What both compute of the supports, by prefix."""
        own, other = (_part(prefix, support) for prefix in ("head.", self._source))
        return _prefixed("head.", self.head.show(own, masks)) | _prefixed("readout.", self.readout.show(other, masks))

    def match(self, query: Features, support: Features, masks: torch.Tensor) -> torch.Tensor:
        """(B, 2, h, w) float32 logits; see `Head.match`."""
        logits = self.head.match(_part("head.", query), _part("head.", support), masks)
        cosines = self.readout.match(_part(self._source, query), _part("readout.", support), masks)
        sums = self._added(logits, cosines, masks.shape[1])
        half = self._of_itself(query, sums[:, 1] - sums[:, 0], masks.shape[1]) / 2
        return sums + torch.stack([-half, half], dim=1)

    def learn(
        self, query: Features, support: Features, masks: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[Auxiliary, ...]]:
        """The sum as of `forward`, and the further predictions of the head alone."""
        if type(self.head).learn is Head.learn:
            return self(query, support, masks), ()
        logits, auxiliary = self.head.learn(query, support, masks)
        return self._added(logits, self.readout(query, support, masks), masks.shape[1]), auxiliary

    def diagnose(self, query: Features, support: Features, masks: torch.Tensor) -> dict[str, float]:
        """Those of the head."""
        return self.head.diagnose(query, support, masks)

    def _study(self, images: Iterable[tuple[Features, torch.Tensor]], seed: int) -> None:
        """See `Studies.study`: the head's, and that of a read-out which looks up regions."""
        for part in (self.head, self.readout):
            if isinstance(part, Studies) and part.studies:
                part.study(images, seed)

    def _describe(self, embedded: Features) -> torch.Tensor:
        """See `Fits.describe`."""
        assert isinstance(self.head, Fits)
        return self.head.describe(_part("head.", embedded))

    def _margins(self, query: Features, support: Features, masks: torch.Tensor, ways: int) -> torch.Tensor:
        """See `Ways.margins`: the head's, and the read-out's of each way alone."""
        own = margins(self.head, _part("head.", query), _part("head.", support), masks, ways)
        own = self._share(masks.shape[1]) * own
        cosines = margins(self.readout, _part(self._source, query), _part("readout.", support), masks, ways)
        sums = own + self.gain * self._on_grid(cosines, own)
        sums = sums - threshold.own(sums, self.otsu, masks.shape[1])
        return sums + self._of_itself(query, sums.flatten(0, 1), masks.shape[1]).unflatten(0, (-1, ways))

    @property
    def _source(self) -> str:
        """The prefix of what the read-out needs of images."""
        return "head." if self.lent else "readout."

    def _share(self, shots: int) -> float:
        """What the head's logits of K supports are multiplied with."""
        if not self.by_shots:
            return 1.0
        return 1 / (shots if self.training else shots + 1)

    def _added(self, logits: torch.Tensor, cosines: torch.Tensor, shots: int) -> torch.Tensor:
        """Half of the read-out's margin, on the head's grid, goes to the foreground, half comes off the background."""
        cosines = self._on_grid(cosines, logits)
        half = self.gain * (cosines[:, 1] - cosines[:, 0]) / 2
        sums = self._share(shots) * logits + torch.stack([-half, half], dim=1)
        return threshold.moved(sums, self.otsu, shots)

    def _of_itself(self, query: Features, margins: torch.Tensor, shots: int) -> torch.Tensor:
        """What the read-out adds to (B, h, w) margins of the queries, these being its supports: zeros while it learns.

        A cell counts for its side as much as it is sure of it.
        """
        if self.own == 0 or self.training:
            return torch.zeros_like(margins)
        cells = _part(self._source, query)
        sides = self._on_grid(torch.stack([-margins, margins], dim=1), cells["tokens"]).clamp_min(0)
        shares = (sides / sides.amax(dim=(1, 2, 3), keepdim=True).clamp_min(_LEAST))[:, None]
        shown = self.readout.show({"tokens": cells["tokens"][:, None]}, shares)
        cosines = self._on_grid(self.readout.match(cells, shown, shares), margins)
        return self.own / shots**2 * self.gain * (cosines[:, 1] - cosines[:, 0])

    def _on_grid(self, maps: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) maps on the grid of others."""
        if maps.shape[-2:] == other.shape[-2:]:
            return maps
        return enlarge(maps, (other.shape[-2], other.shape[-1]), self.corners)


def _prefixed(prefix: str, tensors: Features) -> Features:
    return {prefix + name: values for name, values in tensors.items()}


def _part(prefix: str, tensors: Features) -> Features:
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
