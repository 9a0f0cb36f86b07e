"""Meta-train a few-shot segmentation model on the pseudo-tasks with DeepSpeed.

    python -m jobs.train experiment=tiny
    python -m jobs.train experiment=photos corpus.root=PHOTOS backbone.weights=FILE model=umtfss

The stages it reads are run first if they are not done yet.
"""

from jobs._stage import main

KEYS = (
    "name",
    "root",
    "corpus.root",
    "backbone.weights",
    "train.steps",
    "train.batch",
    "train.lr",
    "train.loss",
    "train.tasks",
    "train.init_from",
    "cluster.train_workers",
    "cluster.cpus_per_train_worker",
    "cluster.train_gpus",
)

if __name__ == "__main__":
    main("train", __doc__, KEYS)
