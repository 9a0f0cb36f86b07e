"""Which head a run trains or measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fss import heads
from fss.backbones import Backbone
from fss.heads.parts.head import Head


@dataclass(frozen=True)
class HeadSettings:
    """Name and options of a head, as `fss.heads.build` takes them."""

    name: str
    options: Mapping[str, Any]

    @property
    def about(self) -> dict[str, Any]:
        """As an exported model has it."""
        return {"name": self.name, "options": dict(self.options)}

    def build(self, backbone: Backbone, seed: int = 0) -> Head:
        """The head for this backbone; its first weights are a function of `seed`.

        Raises:
            ValueError: for options that it does not have.
        """
        return heads.build(self.name, self.options, backbone.channels, corners=backbone.corners, seed=seed)
