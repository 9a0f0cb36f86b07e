"""Check and normalise unlabelled images, and write them as shards with a ledger of every input.

    python -m jobs.shard experiment=photos corpus.root=PHOTOS
    python -m jobs.shard experiment=photos corpus.root=/data/{000..099}.tar corpus.longer_side=640

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

KEYS = (
    "name",
    "root",
    "corpus.root",
    "corpus.list",
    "corpus.longer_side",
    "corpus.shard_size",
    "corpus.near_duplicates",
    "cluster.workers",
)

if __name__ == "__main__":
    main("shard", __doc__, KEYS)
