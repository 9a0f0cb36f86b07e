"""Keys of how models are measured."""

from __future__ import annotations

from dataclasses import dataclass

from fss.keys import at_least, key, one_of

ORDERS = ("classes", "pairs", "images", "random_images")
FIGURES = ("miou", "miou_episode_mean", "miou_with_background", "fb_iou")


@dataclass
class ProtocolConfig:
    """How episodes are drawn and scored; the presets of conf/protocol are those of the field."""

    name: str = "ours"
    """What tables call it."""
    order: str = key("classes", one_of(*ORDERS))
    """Which query and class come next: classes, pairs, images or random_images, see fss.evaluation.episodes."""
    pairs: str | None = key(None, path=True, when={"order": ("pairs",)})
    """Folder of HSNet's own lists, fold0.txt to fold3.txt (data/splits/pascal/val of its code): episodes are then
    exactly its own, supports by its random numbers."""
    tiny_queries: bool = key(False, when={"order": ("pairs", "images", "random_images")})
    """Whether a query may be asked for a class of which it shows less than dataset.min_area."""
    episodes: dict[str, int] = key({"default": 1000})
    """Episodes of each fold, number of shots and seed, by data set; `episodes=` overrides it."""
    seeds: list[int] | None = None
    """Lists of episodes; none = one, of `seed`. `seeds=` overrides it."""
    resolution: int | None = key(None, at_least(1))
    """Side in pixels of the square at which the model's resolution is scored; none = backbone.size."""
    supports: str = key("masks", one_of("masks", "names"))
    """What supports bring: `masks`, or `names`, of which source=cam makes masks."""
    headline: str = key("miou", one_of(*FIGURES, *(f"model_resolution.{figure}" for figure in FIGURES)))
    """The protocol's own figure: miou or miou_episode_mean, model_resolution.miou, ... as in metrics.json."""
