#!/usr/bin/env bash
# safetensors 0.8.0: `load` of bytes gives the tensors in another order at each call; `load_file` keeps the file's.
#
# Version:    safetensors 0.8.0, numpy 2.3.5, CPython 3.11, Linux x86-64.
# Input:      one file of eight small arrays, read as bytes by `load` and by its path by `load_file`, twenty times each.
# Expected:   two ways to read one file, one order: that of the file's header.
# Seen:       `load_file` gives the header's order every time. `load` gives many orders, also within one process and
#             with a fixed PYTHONHASHSEED.
# Why:        `load` goes through a hash map whose seed is drawn anew; the dict is filled in its order.
# It matters: whoever loads weights from a store or an archive has them as bytes. A hash over `.items()`, a zip with
#             `parameters()`, a flat vector of the weights, or sums in that order then differ from run to run: sort by name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.3.5
cd "$folder"
PYTHONHASHSEED=0 "$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load, load_file, save_file

save_file({f"layer{number}": np.zeros(2, np.float32) for number in range(8)}, "weights.safetensors")
data = Path("weights.safetensors").read_bytes()
by_path = {tuple(load_file("weights.safetensors")) for _ in range(20)}
by_bytes = {tuple(load(data)) for _ in range(20)}
print(f"safetensors {safetensors.__version__}, 20 reads: {len(by_path)} order by path, {len(by_bytes)} orders by bytes")
if len(by_path) != 1 or len(by_bytes) < 2:
    raise SystemExit("changed: expected one order by path and several by bytes")
PYTHON
