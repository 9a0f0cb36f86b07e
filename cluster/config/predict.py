"""The keys of `jobs.predict`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from cluster.config.corpus import reading_problems
from fss.imaging.colour import Reading
from fss.keys import key, ranged


@dataclass
class PredictConfig:
    """Segment the user's own images."""

    model: str = key(MISSING, path=True)
    """Folder of an exported model, a run's folder, whose model is taken, or MLflow's models:/NAME@ALIAS or
    models:/NAME/VERSION."""
    support: str | list[str] = key(MISSING, path=True)
    """Image, or list of images, that shows the thing: support=[a.jpg,b.jpg]."""
    support_mask: str | list[str] = key(MISSING, path=True)
    """Its mask, or one for each support: nonzero (or 1) = the thing."""
    query: str = key(MISSING, path=True)
    """Image or folder of images to segment."""
    out: str = MISSING
    """Folder that masks and overlays are written into."""
    threshold: float = key(0.5, ranged("a probability in (0, 1)", lambda value: 0 < value < 1))
    """Foreground probability from which a pixel belongs to the thing, in (0, 1)."""
    bands: list[int] | None = None
    """Bands of TIFFs of several that are shown as red, green and blue, or one as grey, counted from 1: [4,3,2]; none =
    as the file says. Give what the model's corpus.bands was."""
    range: list[float] | None = None
    """Numbers that are shown black and white, [low,high], in files of more than 8 bits; none = as their numbers say.
    Give what the model's corpus.range was."""
    overwrite: bool = False
    """Whether masks that are in `out` already are written anew; otherwise they are refused."""
    device: str = "auto"
    """Where the model runs: `cpu`, `cuda`, or `auto` = a GPU if there is one."""

    @property
    def reading(self) -> Reading:
        """How numbers become light."""
        return Reading(tuple(self.bands) if self.bands else None, tuple(self.range) if self.range else None)  # type: ignore[arg-type]

    def problems(self) -> list[str]:
        """What cannot work, one sentence each."""
        wrong = []
        supports, masks = listed(self.support), listed(self.support_mask)
        if MISSING not in (*supports, *masks) and len(supports) != len(masks):
            wrong.append(
                f"support_mask: expected one mask for each support, got {len(supports)} supports and {len(masks)} masks"
            )
        if not supports:
            wrong.append("support: expected at least one image, got an empty list")
        return [*wrong, *reading_problems(self.bands, self.range)]


def listed(value: str | list[str]) -> list[str]:
    """One text, or a list of them, as a list."""
    return value if isinstance(value, list) else [value]
