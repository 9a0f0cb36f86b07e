#!/usr/bin/env bash
# Pillow 13.0.0: `draft`, which should only make reading cheaper, makes a lossless JPEG unreadable.
#
# Version:    Pillow 13.0.0, imagecodecs 2026.3.6, numpy 2.3.5, CPython 3.11, Linux x86-64.
# Input:      an 8-bit grey ramp as a lossless JPEG (process 14), which Pillow opens and reads exactly.
# Expected:   after image.draft("L", (16, 16)) a smaller picture, or the whole one, as `draft` is a hint.
# Seen:       without `draft`: equal to the ramp. With it: OSError "broken data stream when reading image file".
# Why:        the decoder scales by its cosine transform, and a lossless file has none.
# It matters: loaders call `draft` to save time on large photos. X-rays and scans are then counted as damaged files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0 imagecodecs==2026.3.6 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import io

import imagecodecs
import numpy as np
import PIL
from PIL import Image

ramp = np.arange(64 * 64).reshape(64, 64).astype(np.uint8)
file = imagecodecs.jpeg_encode(ramp, lossless=True)
if not np.array_equal(np.asarray(Image.open(io.BytesIO(file))), ramp):
    raise SystemExit("changed: expected an exact picture without draft")
image = Image.open(io.BytesIO(file))
image.draft("L", (16, 16))
try:
    image.load()
except OSError as error:
    print(f"Pillow {PIL.__version__}, after draft: OSError: {error}")
else:
    raise SystemExit("changed: expected an OSError after draft")
PYTHON
