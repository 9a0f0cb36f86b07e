"""HSNet's own episodes (protocol.pairs): its lists are read, and what they name must be there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.evaluate import episode_list
from cluster.evaluate.episode_list import Item
from fss import shards
from fss.datasets import Dataset
from fss.evaluation import hsnet


def hashes(folder: str | None) -> tuple[str, ...] | None:
    """Of all lists in `folder`, by their names."""
    if folder is None:
        return None
    return tuple(shards.sha256(path.read_bytes()) for path in sorted(Path(folder).glob("fold*.txt")))


def items(
    folder: str, dataset: Dataset, *, folds: Sequence[int], shots: Sequence[int], seeds: Sequence[int], count: int
) -> list[Item]:
    """`count` episodes of each fold, number of shots and seed.

    Raises:
        ValueError: if a list is missing or none, or names an image that the data set does not have.
    """
    drawn = []
    for fold in folds:
        pairs = _read(folder, fold)
        for number in shots:
            for seed in seeds:
                chosen = hsnet.draw(pairs, shots=number, count=count, seed=seed)
                drawn += [Item(fold, number, 1, seed, episode) for episode in chosen]
    try:
        episode_list.check(drawn, dataset)
    except ValueError as error:
        raise ValueError(f"protocol.pairs: {error}; HSNet's lists need all of VOC2012's val images") from error
    return drawn


def _read(folder: str, fold: int) -> list[hsnet.Pair]:
    place = hsnet.path(folder, fold)
    if not place.is_file():
        raise ValueError(
            f"protocol.pairs: expected a folder with HSNet's {place.name}, got {folder}; set it to "
            "data/splits/pascal/val of HSNet's code"
        )
    try:
        return hsnet.read(place.read_bytes())
    except ValueError as error:
        raise ValueError(f"{place}: {error}; take HSNet's own file") from error
