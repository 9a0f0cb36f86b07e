"""Measure clusters and regions, and draw the atlas of clusters.

    python -m jobs.quality experiment=tiny
    python -m jobs.quality experiment=photos corpus.root=PHOTOS backbone.weights=FILE quality.masks=MASKS

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

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

if __name__ == "__main__":
    main("quality", __doc__, KEYS)
