"""A model as training exports it, for tests that only read it."""

import pytest

from tests.fss.segmenter.test_segmenter import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("exported") / "model"
    write(made)
    return made
