"""docs/guarantees.md names tests that are there."""

import re

from tests.places import ROOT


def test_every_test_that_a_guarantee_names_exists():
    named = re.findall(r"`(tests/[\w/]+/test_\w+\.py)(?:::(test_\w+))?`", (ROOT / "docs/guarantees.md").read_text())
    assert len(named) > 10
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text() if name else (ROOT / path).is_file(), (path, name)
