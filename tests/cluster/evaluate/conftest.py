"""Two evaluations that every module here looks at, made once."""

import pytest

from cluster.evaluate import units
from tests.cluster.evaluate.results import BLOCK, OPTIONS


@pytest.fixture(scope="package", autouse=True)
def small_blocks():
    """Several blocks, so that there is something to divide."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "_BLOCK", BLOCK)
        yield


@pytest.fixture(scope="package")
def root(tmp_path_factory):
    """Evaluations below it share their features."""
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="package")
def measured(configure, start, root):
    """Two read-outs on four folds, two numbers of shots and two lists."""
    return start(configure(root, *OPTIONS)).ensure("evaluate")


@pytest.fixture(scope="package")
def two_way(configure, start, root):
    """One read-out asked for two classes at once."""
    options = ("model=prototype", "fold=1", "shots=1", "ways=2", "episodes=20", "save_predictions=true")
    return start(configure(root, *options)).ensure("evaluate")
