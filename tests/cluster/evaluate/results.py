"""What tests of evaluation share: the settings of one evaluation, and how to read what it leaves."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

MANY = ("model=prototype", "baselines=smoothed", "fold=all", "shots=[1,2]", "seeds=[0,1]", "episodes=6")
OPTIONS = (*MANY, "save_predictions=true", "dataset.min_area=100")
ROWS = 2 * 4 * 2 * 2 * 6  # models, folds, shots, seeds, episodes
LIST = ("fold", "shots", "ways", "seed", "episode", "way")
MODEL = "prototype read-out"
BLOCK = 10


def figures(manifest):
    return json.loads(manifest.path("metrics.json").read_text())


def rows(manifest):
    return pq.read_table(manifest.path("episodes.parquet")).to_pylist()


def mask_of(photos, name):
    return np.asarray(Image.open(photos / "SegmentationClass" / f"{name}.png"))


def prediction(manifest, row):
    name = "prototype-read-out" if row["model"] == MODEL else "smoothed-read-out"
    folder = f"{name}/fold{row['fold']}-{row['shots']}shot-seed{row['seed']}"
    return np.asarray(Image.open(manifest.folder / "predictions" / folder / f"{row['episode']:06d}.png"))


def evaluation_images(photos):
    return (photos / "ImageSets" / "val.txt").read_text().split()


def showing(photos, class_id, min_area=100):
    """The evaluation images that show the class on at least `min_area` pixels, from the masks."""
    return [n for n in evaluation_images(photos) if (mask_of(photos, n) == class_id).sum() >= min_area]


def feature_files(folder):
    """Stored features by the hash of their image, with the time of writing."""
    return {path.stem: path.stat().st_mtime_ns for path in Path(folder).rglob("*.features")}


def named_by(listed):
    """The images that occur in rows."""
    return {name for row in listed for name in (row["query"], *row["supports"])}


def by_hand(found, prefix=""):
    """The figures of one list of one fold, from its rows."""
    sums, each, foreground, background = defaultdict(lambda: np.zeros(2)), defaultdict(list), np.zeros(2), np.zeros(2)
    for row in found:
        part, whole = row[f"{prefix}intersection"], row[f"{prefix}union"]
        sums[row["class_id"]] += part, whole
        each[row["class_id"]].append(part / whole)
        foreground += part, whole
        background += row[f"{prefix}background_intersection"], row[f"{prefix}background_union"]
    classes = [part / whole for part, whole in sums.values()]
    behind = background[0] / background[1]
    return {
        "miou": np.mean(classes),
        "miou_episode_mean": np.mean([np.mean(values) for values in each.values()]),
        "miou_with_background": np.mean([*classes, behind]),
        "fb_iou": (foreground[0] / foreground[1] + behind) / 2,
    }
