r"""Segment your own images with a trained model, given one or a few images with a mask of the thing.

    python -m jobs.predict model=FOLDER support=img.jpg support_mask=mask.png query=FOLDER out=DIR
    python -m jobs.predict model=FOLDER support=[a.jpg,b.jpg] support_mask=[a.png,b.png] \
        query=image.jpg out=DIR

For every query image it writes NAME.png (0 and 1, in the image's size) and NAME.overlay.jpg to look at.
`out` is a folder of its own: new, empty, or one that this command wrote before, which predict.json in it says.
"""

from __future__ import annotations

import functools

from cluster.config.predict import PredictConfig
from jobs._config import Command, load_keys, run

COMMAND = Command(
    "predict",
    __doc__,
    ("model", "support", "support_mask", "query", "out", "threshold", "bands", "range", "overwrite", "device"),
    load=functools.partial(load_keys, PredictConfig),
    schema=PredictConfig,
    kept="masks written so far are kept in {out}; the same command with overwrite=true writes them all",
)


def predict(config: PredictConfig) -> None:
    """Segment all queries; images that cannot be read are named and skipped."""
    from cluster.serving.predict import predict

    for line in predict(config):
        print(line, flush=True)


if __name__ == "__main__":
    run(COMMAND, predict)
