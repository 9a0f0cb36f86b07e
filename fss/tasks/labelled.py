"""Episodes of labelled images: which images are used, which are kept for validation, and what episode i is.

For few-label training (UMTFSS, Tables 2 and 6: 297, 595 and 1190 of 5953 images) and for training with all labels. All
of it is a pure function of a seed and of the images' names. Images that show a class which is not trained on stay, that
class as background, as in PFENet, HSNet and UMTFSS (BAM leaves them out, which is worth some 3 mIoU).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from fss import rng
from fss.evaluation.episodes import Areas

#: Share of the labelled images that is kept out of training, if any are.
HELD = 0.1


def subset(names: Sequence[str], ratio: float, seed: int) -> tuple[str, ...]:
    """`ratio` of `names`, rounded down but at least one, in their order; a smaller ratio's are among a larger one's."""
    count = max(1, math.floor(ratio * len(names) + 1e-9))
    chosen = set(_first(names, count, seed, "labelled"))
    return tuple(name for name in names if name in chosen)


def held_out(names: Sequence[str], seed: int) -> frozenset[str]:
    """The tenth of `names`, at least one, that training leaves out."""
    return frozenset(_first(names, max(1, math.floor(HELD * len(names))), seed, "held out"))


def _first(names: Sequence[str], count: int, seed: int, what: str) -> list[str]:
    return sorted(names, key=lambda name: (rng.mix(seed, what, name), name))[:count]


@dataclasses.dataclass(frozen=True)
class Episodes:
    """Episodes of `queries` in turn: a class of the query uniformly (as PFENet and UMTFSS), supports uniformly.

    `count` episodes an epoch; one more often than there are queries meets a query again, with other supports.
    """

    queries: tuple[tuple[str, tuple[int, ...]], ...]
    """Images with the classes that they may be asked for."""
    supports: Mapping[int, tuple[str, ...]]
    """Class -> the images that may show it; more than `shots` of them, the query left out."""
    shots: int
    seed: int
    count: int

    def draw(self, index: int, epoch: int) -> tuple[int, str, tuple[str, ...]]:
        """Class, query and supports of an episode, all images different; a function of (seed, epoch, index)."""
        generator = rng.numpy_rng(self.seed, "labelled episode", epoch, index)
        query, classes = self.queries[index % len(self.queries)]
        class_id = classes[int(generator.integers(len(classes)))]
        others = [name for name in self.supports[class_id] if name != query]
        chosen = generator.choice(len(others), size=self.shots, replace=False)
        return class_id, query, tuple(others[i] for i in chosen)


def episodes(
    areas: Areas, classes: Sequence[int], *, shots: int, min_area: int, held: int, seed: int
) -> tuple[Episodes, Episodes]:
    """Episodes for training and `held` or more for validation (none if 0) of images with these class areas in pixels.

    Validation asks for classes in held-out images, which training never sees in any role, and supports them by
    images of training.

    Raises:
        ValueError: if no class shows at least `min_area` in more than `shots` images of training.
    """
    large = {name: tuple(c for c in classes if pixels.get(c, 0) >= min_area) for name, pixels in areas.items()}
    kept = (
        held_out(sorted(name for name, shown in large.items() if shown), seed) if held and any(large.values()) else ()
    )
    showing: dict[int, list[str]] = {c: [] for c in classes}
    for name, shown in large.items():
        for c in shown if name not in kept else ():
            showing[c].append(name)
    supports = {c: tuple(sorted(names)) for c, names in showing.items() if len(names) > shots}
    if not supports:
        raise ValueError(
            f"expected a class with {min_area} pixels or more in at least {shots + 1} of {len(areas)} labelled images "
            "that are trained on, found none; raise train.ratio, lower pair.shots or dataset.min_area, set "
            "train.holdout=0, or give more images"
        )
    asked = [(name, tuple(c for c in shown if c in supports)) for name, shown in large.items()]
    train = tuple((name, shown) for name, shown in asked if shown and name not in kept)
    validate = tuple((name, shown) for name, shown in asked if shown and name in kept)
    return (
        Episodes(train, supports, shots, rng.mix(seed, "train"), len(train)),
        Episodes(validate, supports, shots, rng.mix(seed, "held"), max(held, len(validate)) if validate else 0),
    )
