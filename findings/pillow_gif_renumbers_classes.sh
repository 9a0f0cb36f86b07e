#!/usr/bin/env bash
# Pillow 13.0.0: a mask of class numbers saved as GIF comes back with other class numbers.
#
# Version:    Pillow 13.0.0, numpy 2.3.5, CPython 3.11, Linux x86-64.
# Input:      a palette image with the classes 0, 7 and 15, and a palette of 256 different colours.
# Expected:   the same numbers from every format that stores a palette image.
# Seen:       PNG, TIFF and BMP give 0, 7, 15 back. GIF gives 0, 1, 2. With optimize=False GIF gives 0, 7, 15.
# Why:        saving a GIF drops the colours that no pixel has, and numbers the rest anew. It is on unless switched off.
# It matters: two masks of one set then use one number for two classes, and nothing in either file tells.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import PIL
from PIL import Image

classes = np.zeros((40, 40), np.uint8)
classes[5:20, 5:20], classes[22:30, 22:30] = 7, 15
mask = Image.fromarray(classes)
mask.putpalette([value for i in range(256) for value in (i, 255 - i, i * 7 % 256)])


def back(kind, **options):
    stream = io.BytesIO()
    mask.save(stream, kind, **options)
    numbers = np.unique(np.asarray(Image.open(stream))).tolist()
    print(f"Pillow {PIL.__version__}, {kind} {options or ''}: classes {numbers}")
    return numbers


if any(back(kind) != [0, 7, 15] for kind in ("PNG", "TIFF", "BMP")) or back("GIF", optimize=False) != [0, 7, 15]:
    raise SystemExit("changed: expected 0, 7, 15 from all but GIF as it is saved by default")
if back("GIF") != [0, 1, 2]:
    raise SystemExit("changed: expected 0, 1, 2 from GIF")
PYTHON
