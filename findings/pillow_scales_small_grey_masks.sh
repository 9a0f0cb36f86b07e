#!/usr/bin/env bash
# Pillow 13.0.0: class numbers in a greyscale PNG of 2 or 4 bits are multiplied by 85 or 17, and class 3 or 15 becomes 255.
#
# Version:    Pillow 13.0.0, numpy 2.3.5, pypng 0.20220715.0, CPython 3.11, Linux x86-64.
# Input:      one row of a greyscale PNG of 2 bits, values 0 1 2 3; one of 4 bits, values 0 1 3 15; the first again as a
#             palette PNG of 2 bits.
# Expected:   a mask's numbers as they are stored, as the palette PNG gives them; pypng gives 0 1 2 3.
# Seen:       0 85 170 255, and 0 17 51 255. The mode is L, as for 8 bits, and nothing tells the depth of the file.
# Why:        grey is read as light: the largest value of a depth becomes white.
# It matters: annotation tools write small class sets with few bits. The last class then reads as void, which is 255.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.3.5 pypng==0.20220715.0
"$folder/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import PIL
import png
from PIL import Image


def written(values, **options):
    stream = io.BytesIO()
    png.Writer(len(values), 1, **options).write(stream, [values])
    return stream.getvalue()


def read(file):
    image = Image.open(io.BytesIO(file))
    values = np.asarray(image).ravel().tolist()
    print(f"Pillow {PIL.__version__}: mode {image.mode}, values {values}")
    return values


two = written([0, 1, 2, 3], greyscale=True, bitdepth=2)
print("pypng:", list(next(iter(png.Reader(bytes=two).read()[2]))))
if read(two) != [0, 85, 170, 255]:
    raise SystemExit("changed: expected 0 85 170 255 from 2 bits")
if read(written([0, 1, 3, 15], greyscale=True, bitdepth=4)) != [0, 17, 51, 255]:
    raise SystemExit("changed: expected 0 17 51 255 from 4 bits")
if read(written([0, 1, 2, 3], palette=[(i, i, i) for i in range(4)], bitdepth=2)) != [0, 1, 2, 3]:
    raise SystemExit("changed: expected 0 1 2 3 from a palette")
PYTHON
