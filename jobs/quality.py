"""Measure clusters and regions, and draw the atlas of clusters.

    python -m jobs.quality experiment=tiny
    python -m jobs.quality experiment=photos corpus.root=PHOTOS backbone.weights=FILE quality.masks=MASKS

The stages it reads are run first if they are not done yet. It prints what tasks of the regions are worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs._stage import main

if TYPE_CHECKING:
    from cluster.engine.stage import Manifest

KEYS = (
    "name",
    "root",
    "corpus.root",
    "quality.masks",
    "quality.shards",
    "quality.clusters",
    "quality.regions",
    "cluster.workers",
)


def tell(manifest: Manifest) -> str:
    """The figures of tasks, a line each."""
    from cluster.engine import publish
    from cluster.quality import text

    return text.lines(publish.read_json(manifest.path("quality.json"))["tasks"])


if __name__ == "__main__":
    main("quality", __doc__, KEYS, tell)
