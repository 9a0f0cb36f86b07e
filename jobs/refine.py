"""Find masks of whole things in every group of shards, from which tasks are paired instead of label's regions.

    python -m jobs.refine experiment=tiny refine=consensus
    python -m jobs.refine experiment=photos corpus.root=PHOTOS backbone.weights=FILE refine=consensus

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

KEYS = (
    "name",
    "root",
    "corpus.root",
    "backbone.weights",
    "refine.neighbours",
    "refine.rounds",
    "refine.vote",
    "refine.clusters",
    "pair.group_shards",
    "cluster.workers",
)

if __name__ == "__main__":
    main("refine", __doc__, KEYS)
