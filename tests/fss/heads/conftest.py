"""What tests of heads share."""

import pytest


@pytest.fixture(autouse=True)
def _by_hand(exact_products: None) -> None:
    """What is computed by hand is so in float32; of bfloat16 says test_heads.py."""
