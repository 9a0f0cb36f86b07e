#!/usr/bin/env bash
# Pillow 13.0.0: two layouts of a 16-bit TIFF are read as other pictures, without an error.
#
# Version:    Pillow 13.0.0, tifffile 2026.3.3, imagecodecs 2026.3.6, numpy 2.3.5, CPython 3.11, Linux x86-64.
# Input:      (1) one colour, (1000, 20000, 60000), as 16-bit RGB: pixel by pixel, and plane by plane (uncompressed).
#             (2) a grey ramp whose zero is white, in 8 and in 16 bits.
# Expected:   (1) one colour, (3, 78, 234) in 8 bits, from both layouts. (2) zero is the lightest value in both depths.
# Seen:       (1) pixel by pixel: (3, 78, 234). Plane by plane: two colours, (3, 78, 234) and (232, 32, 96): every other
#             value is the low byte of a number. (2) 8 bits: turned round, zero reads as 255. 16 bits: zero reads as 0.
# It matters: microscopes and satellites write both. A network sees noise, or a negative; tifffile reads both rightly.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    pillow==13.0.0 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import PIL
import tifffile
from PIL import Image


def read(pixels, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    assert np.array_equal(tifffile.imread(io.BytesIO(stream.getvalue())), pixels)
    return np.asarray(Image.open(stream))


def colours(image):
    found = np.unique(image.reshape(-1, 3), axis=0).tolist()
    print(f"Pillow {PIL.__version__}: colours {found}")
    return found


colour = np.full((16, 16, 3), (1000, 20000, 60000), np.uint16)
if colours(read(colour, photometric="rgb", planarconfig="contig")) != [[3, 78, 234]]:
    raise SystemExit("changed: expected one colour pixel by pixel")
planes = np.ascontiguousarray(np.moveaxis(colour, -1, 0))
if colours(read(planes, photometric="rgb", planarconfig="separate")) != [[3, 78, 234], [232, 32, 96]]:
    raise SystemExit("changed: expected two colours plane by plane")

ramp = np.arange(64).reshape(8, 8)
eight = read(ramp.astype(np.uint8), photometric="miniswhite")
sixteen = read((ramp * 1000).astype(np.uint16), photometric="miniswhite")
print(f"zero is white: 8 bits read {eight[0, :3].tolist()}, 16 bits read {sixteen[0, :3].tolist()}")
if eight[0, :3].tolist() != [255, 254, 253] or sixteen[0, :3].tolist() != [0, 1000, 2000]:
    raise SystemExit("changed: expected 255 254 253 and 0 1000 2000")
PYTHON
