"""The table for whoever has a GPU is made on any processor, so that nobody rents a machine for a typing error."""

import argparse
from collections import Counter

import pytest

from benchmarks import gpu


@pytest.mark.slow
def test_every_path_has_its_rows_without_a_gpu(tmp_path):
    given = argparse.Namespace(backbones=["small"], batches=[1, 2], heads=["panet"])
    rows = list(gpu.figures(gpu.Bench(gpu.SMOKE, 1), given, tmp_path))
    assert Counter(row.path for row in rows) == {
        "product": 2,
        "network": 4,
        "label": 4,
        "k-means": 2,
        "train": 2,
        "evaluate": 6,
    }
    assert all(row.rate > 0 for row in rows)
    assert all(row.share is None or row.share > 0 for row in rows)
