"""Which code made a stage: the hash of all that its module imports of this project, and of nothing else."""

import re
import subprocess

import pytest

from cluster.engine import origin
from cluster.stages import STAGES

FILES = {
    "cluster/__init__.py": "",
    "cluster/one/__init__.py": "",
    "cluster/one/stage.py": "from fss import near\nfrom fss.kinds import names\nimport numpy\n",
    "cluster/two/__init__.py": "",
    "cluster/two/stage.py": "from fss import near\n",
    "cluster/config/__init__.py": "from fss import far\n",
    "fss/__init__.py": "",
    "fss/choices.py": "",
    "fss/near.py": "def later():\n    from fss.deep import inner\nfrom cluster.config import Config\n",
    "fss/deep/__init__.py": "from . import near\n",
    "fss/deep/inner.py": "",
    "fss/far.py": "",
    "fss/kinds/__init__.py": "from fss import choices\n",
    "fss/kinds/first.py": "from fss.kinds.parts import shared\n",
    "fss/kinds/parts/__init__.py": "",
    "fss/kinds/parts/shared.py": "",
}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A function that writes a file of a small project, and tells both stages' code."""
    monkeypatch.setattr(origin, "ROOT", tmp_path)

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        origin.code.cache_clear()
        origin._imports.cache_clear()
        return origin.code("cluster.one.stage"), origin.code("cluster.two.stage")

    for path, text in FILES.items():
        write(path, text)
    yield write
    origin.code.cache_clear()
    origin._imports.cache_clear()


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("cluster/one/stage.py", (True, False)),
        ("fss/near.py", (True, True)),
        ("fss/deep/inner.py", (True, True)),  # imported in a function
        ("fss/kinds/first.py", (True, False)),  # found by its name
        ("fss/kinds/parts/shared.py", (True, False)),
        ("fss/far.py", (False, False)),  # only keys need it
        ("cluster/config/__init__.py", (False, False)),
    ],
)
def test_code_is_what_the_module_needs(tree, path, changes):
    before = tree("fss/new.py", "")
    after = tree(path, FILES[path] + "# changed\n")
    assert tuple(one != other for one, other in zip(before, after, strict=True)) == changes
    assert tree(path, FILES[path]) == before


def test_every_stage_has_a_code_of_its_own():
    found = {name: origin.code(stage.work.__module__) for name, stage in STAGES.items()}
    assert len(set(found.values())) == len(STAGES)
    assert all(re.fullmatch("[0-9a-f]{12}", one) for one in found.values())
    assert "fss.heads.panet" in origin._needed("cluster.evaluate.stage")
    assert "fss.heads.panet" not in origin._needed("cluster.shard.stage")


def test_libraries_processor_and_commit():
    found = origin.origin("cluster.shard.stage")
    assert {"code", "python", "torch", "numpy", "pillow", "webdataset", "processor"} <= {*found}
    assert all(found.values())
    if (origin.ROOT / ".git").exists():
        told = subprocess.run(["git", "-C", origin.ROOT, "rev-parse", "HEAD"], capture_output=True, check=True)
        assert found["commit"] == told.stdout.decode().strip()


def test_sources_without_a_commit(tree):
    origin._commit.cache_clear()
    assert "commit" not in origin.origin("cluster.one.stage")
    origin._commit.cache_clear()


def test_what_differs_is_named():
    before = {"code": "a", "torch": "2.14.1", "processor": "x86_64 AVX512", "commit": "1"}
    assert origin.difference(before, before | {"commit": "2"}) == ""
    now = before | {"torch": "2.15.0", "python": "3.12.1"}
    assert origin.difference(before, now) == "torch (2.14.1, now 2.15.0), python (none, now 3.12.1)"
