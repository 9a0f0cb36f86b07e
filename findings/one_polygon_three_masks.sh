#!/usr/bin/env bash
# pycocotools 2.0.11, OpenCV 5.0.0, Pillow 13.0.0: one polygon is three masks, and OpenCV's own outline shrinks in COCO.
#
# Version:    pycocotools 2.0.11, opencv-python-headless 5.0.0.93, Pillow 13.0.0, numpy 2.4.6, CPython 3.11, Linux x86-64.
# Input:      (1) the polygon (10, 10) (20, 10) (20, 20) (10, 20).
#             (2) a mask of 10 x 10 pixels, its outline by cv2.findContours, given to pycocotools as a polygon.
# Expected:   (1) one polygon, one mask. (2) the mask that the outline was taken from.
# Seen:       (1) pycocotools 100 pixels; cv2.fillPoly and Pillow's polygon 121. (2) 81 of the 100 pixels.
# Why:        COCO's corners lie between pixels, OpenCV's and Pillow's are pixels, which they colour too. An outline of
#             OpenCV goes through the middles of the border's pixels, so COCO cuts half a pixel off all around.
# It matters: masks that are made by one tool and read by another gain or lose a border, a fifth of a small thing, and
#             do so once more each time they are written and read. Run-length codes or PNG keep a mask as it is.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pycocotools==2.0.11 opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import cv2
import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco

SIZE = 40
corners = [(10, 10), (20, 10), (20, 20), (10, 20)]


def by_coco(polygon):
    return int(coco.decode(coco.merge(coco.frPyObjects([np.ravel(polygon).astype(float).tolist()], SIZE, SIZE))).sum())


def by_pillow(polygon):
    image = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(image).polygon(polygon, fill=1)
    return int(np.asarray(image).sum())


square = np.zeros((SIZE, SIZE), np.uint8)
square[10:20, 10:20] = 1
(outline,), _ = cv2.findContours(square, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
filled = int(cv2.fillPoly(np.zeros((SIZE, SIZE), np.uint8), [np.array(corners)], 1).sum())
seen = {"pycocotools": by_coco(corners), "fillPoly": filled, "Pillow": by_pillow(corners)}
print(f"one polygon: {seen}; {int(square.sum())} pixels, outlined by OpenCV, in COCO: {by_coco(outline)}")
if seen != {"pycocotools": 100, "fillPoly": 121, "Pillow": 121} or by_coco(outline) != 81:
    raise SystemExit("changed: expected 100, 121 and 121 pixels for one polygon, and 81 of 100 after an outline")
PYTHON
