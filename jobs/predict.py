r"""Segment your own images with a trained model, given one or a few images that show the thing.

    python -m jobs.predict model=FOLDER support=img.jpg support_mask=mask.png query=FOLDER out=DIR
    python -m jobs.predict model=FOLDER support=[a.jpg,b.jpg] support_mask=[a.png,b.png] \
        query=image.jpg out=DIR
    python -m jobs.predict model=FOLDER support=img.jpg support_box=[[40,60,310,280]] \
        query='photos/**/*.jpg' out=DIR
    python -m jobs.predict model=FOLDER support=img.jpg support_points=[[[120,90,1],[300,40,0]]] \
        query=list.txt out=DIR
    python -m jobs.predict model=FOLDER support=img.jpg support_mask=mask.png query=clip.mp4 every=10 out=DIR

For every query image it writes NAME.png (palette, numbers 0 and 1) and NAME.overlay.jpg; soft=true adds NAME.soft.png.
For all of them it writes answers.csv (area, confidence, and whether the thing is there), coco.json and sheet.jpg.
`out` is a folder of its own: new, empty, or one that this command wrote before, which predict.json in it says.
"""

from __future__ import annotations

from cluster.config.predict import PredictConfig
from jobs._config import Command, run

COMMAND = Command(
    "predict",
    __doc__,
    (
        "model",
        "support",
        "support_mask",
        "support_box",
        "support_points",
        "query",
        "every",
        "out",
        "name",
        "threshold",
        "presence",
        "tile",
        "edges",
        "soft",
        "bands",
        "range",
        "overwrite",
        "device",
    ),
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
