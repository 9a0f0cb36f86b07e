"""Keys of the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fss.keys import key, one_of


def _names() -> tuple[str, ...]:
    from fss import heads

    return (*heads.names(), "trained")


@dataclass
class ModelConfig:
    """The head that is meta-trained, or a read-out that needs no training."""

    name: str = key("umtfss", one_of(names=_names))
    """A head of `fss.heads`, or `trained` = an exported model."""
    path: str | None = key(None, when={"name": ("trained",)}, path=True)
    """Folder of an exported model, or models:/NAME/VERSION of MLflow's registry, which `jobs.evaluate` takes;
    `model=PATH` on the command line sets both."""
    options: dict[str, Any] = key({})
    """The head's own arguments; presets in conf/model show them."""
