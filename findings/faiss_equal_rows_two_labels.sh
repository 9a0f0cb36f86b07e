#!/usr/bin/env bash
# faiss-cpu 1.15.1: equal query rows of one search can get different neighbours, from a size of call on.
#
# Version:    faiss-cpu 1.15.1, numpy 2.3.5, CPython 3.11, Linux x86-64, one thread.
# Input:      512 centroids of 384 dimensions; n times the same query row, which lies halfway between centroids 3 and 7.
# Expected:   equal rows, one label. The number of rows beside a row should not change its label.
# Seen:       333 rows (127,872 numbers): every row gets the same label.
#             334 rows (128,256 numbers): some rows get label 3, others label 7.
# Why:        a search of few numbers, and a larger one, are computed in different ways; in the larger way a row's
#             distance is rounded by where the row stands in the call.
# It matters: cluster assignments near a border depend on the batch size and on the row's place in the batch. k-means
#             labels that are to be equal for any number of workers need calls of one fixed size, and ties need a rule.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.3.5
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import faiss
import numpy as np

rng = np.random.default_rng(0)
centroids = rng.standard_normal((512, 384), dtype=np.float32)
index = faiss.IndexFlatL2(384)
index.add(centroids)
row = (centroids[3] + centroids[7]) / 2
labels = {}
for count in (333, 334):
    _, nearest = index.search(np.repeat(row[None], count, axis=0), 1)
    labels[count] = sorted(set(nearest.ravel().tolist()))
    print(f"faiss {faiss.__version__}, {count} equal rows: labels {labels[count]}")
if len(labels[333]) != 1 or len(labels[334]) != 2:
    raise SystemExit("changed: expected one label for 333 rows and two for 334")
PYTHON
