#!/usr/bin/env bash
# webdataset 1.0.2: no image handler keeps the class numbers of a palette mask; class 1 becomes 38, or a colour.
#
# Version:    webdataset 1.0.2, Pillow 13.0.0, numpy 2.4.6, CPython 3.11, Linux x86-64.
# Input:      a shard with one palette PNG, as PASCAL VOC has its masks: classes 0, 1 and 2 are black, red and green.
# Expected:   some handler of `.decode` gives 0, 1 and 2: Pillow itself does, without being asked.
# Seen:       "pill" and "l8" (grey) give 0, 38 and 75, the brightness of the colours; "pil" and "rgb8" give the colours.
# Why:        every handler converts an image to RGB, L or RGBA. Pillow's conversion looks the palette up.
# It matters: 38 is a valid class in larger data sets, so nothing fails. Masks in shards need a decoder of one's own, or
#             must be written as grey PNG.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check webdataset==1.0.2 pillow==13.0.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import io
import tarfile

import numpy as np
import webdataset
from PIL import Image

mask = Image.fromarray(np.repeat(np.arange(3, dtype=np.uint8), 4)[None])
mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
file = io.BytesIO()
mask.save(file, "PNG")
with tarfile.open("shard.tar", "w") as shard:
    entry = tarfile.TarInfo("one.png")
    entry.size = len(file.getvalue())
    shard.addfile(entry, io.BytesIO(file.getvalue()))


def decoded(handler):
    (sample,) = webdataset.WebDataset("shard.tar", shardshuffle=False).decode(handler)
    image = np.asarray(sample["png"])
    return np.unique(image.reshape(-1, *image.shape[2:]), axis=0).tolist()


plain = np.unique(np.asarray(Image.open(file))).tolist()
seen = {handler: decoded(handler) for handler in ("pill", "l8", "pil", "rgb8")}
print(f"Pillow: {plain}; webdataset {webdataset.__version__}: {seen}")
colours = [[0, 0, 0], [0, 128, 0], [128, 0, 0]]
grey = [0, 38, 75]
if plain != [0, 1, 2] or seen != {"pill": grey, "l8": grey, "pil": colours, "rgb8": colours}:
    raise SystemExit("changed: expected the brightness of the colours, or the colours, from every handler")
PYTHON
