"""Which head a run trains or measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cluster.config import Config, baselines
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


def looking_up(config: Config) -> HeadSettings | None:
    """The model, or the first of the baselines, that looks up regions of the corpus; None if none of them does."""
    asked = [HeadSettings(config.model.name, dict(config.model.options))]
    asked += [HeadSettings(name, {}) for name in baselines(config) or ()]
    known = (one for one in asked if one.name in heads.names())
    return next((one for one in known if heads.read_options(one.name, one.options)[0].looks_up_regions), None)
