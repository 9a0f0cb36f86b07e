"""What tests of heads share."""

import pytest

from fss import precision


@pytest.fixture(autouse=True)
def _products_are_exact(monkeypatch):
    """What is computed by hand is so in float32, whatever the processor; of bfloat16 says test_heads.py."""
    monkeypatch.setattr(precision, "_MULTIPLIES", False)
