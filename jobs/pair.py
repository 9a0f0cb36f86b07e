"""Pair regions of one cluster across images into few-shot tasks.

    python -m jobs.pair experiment=tiny
    python -m jobs.pair experiment=photos corpus.root=PHOTOS backbone.weights=FILE pair.nearest=0.3

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

KEYS = (
    "name",
    "root",
    "corpus.root",
    "backbone.weights",
    "pair.pairing",
    "pair.tasks_per_image",
    "pair.shots",
    "pair.nearest",
    "cluster.workers",
)

if __name__ == "__main__":
    main("pair", __doc__, KEYS)
