"""Pre-train the backbone on the corpus without labels (backbone.weights=pretrain).

    python -m jobs.pretrain experiment=demo
    python -m jobs.pretrain experiment=demo pretrain.steps=400 cluster.train_workers=2

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

KEYS = (
    "name",
    "root",
    "pretrain.steps",
    "pretrain.batch",
    "pretrain.lr",
    "pretrain.size",
    "cluster.train_workers",
    "cluster.cpus_per_train_worker",
    "cluster.train_gpus",
)

if __name__ == "__main__":
    main("pretrain", __doc__, KEYS)
