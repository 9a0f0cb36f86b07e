"""The rule of the three layers: `fss` knows nothing of the cluster, `cluster` nothing of the commands."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import ROOT

FORBIDDEN = {
    "fss": ("cluster", "jobs", "ray", "deepspeed", "mlflow", "torch.distributed", "pickle"),
    "cluster": ("jobs",),
}

#: Imports every module of `fss` where the cluster's libraries cannot be, and compares the generators of the process.
IMPORT_ALL = """
import importlib, pkgutil, random, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ray", "deepspeed", "mlflow", "faiss", "cluster", "jobs"}:
            raise ImportError(f"{name} must not be imported by fss")

sys.meta_path.insert(0, Blocked())
import numpy, torch

def state():
    legacy = [str(part) if not hasattr(part, "tobytes") else part.tobytes() for part in numpy.random.get_state()]
    return random.getstate(), legacy, torch.get_rng_state().numpy().tobytes()

before = state()
import fss
names = [module.name for module in pkgutil.walk_packages(fss.__path__, "fss.")]
for name in names:
    importlib.import_module(name)
assert state() == before, "an import moved a global generator"
print(len(names))
"""


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in a file, wherever it stands; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def used(path: Path) -> Iterator[tuple[int, str]]:
    """(line, name) of dotted names as they are written, such as torch.distributed.all_reduce without its call."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            yield node.lineno, ast.unparse(node)


def breaches(package: str) -> list[str]:
    found = []
    for path in files(package):
        for line, name in [*imported(path), *used(path)]:
            for layer in FORBIDDEN[package]:
                if name == layer or (name.startswith(f"{layer}.") and _is_module(path, layer)):
                    found.append(f"{path.relative_to(ROOT)}:{line} uses {name}")
    return sorted(set(found))


def _is_module(path: Path, layer: str) -> bool:
    """Whether `layer.x` in a file can mean the module: it is imported there, or reached through torch."""
    return "." in layer or any(name == layer or name.startswith(f"{layer}.") for _, name in imported(path))


def test_every_module_of_the_library_imports_without_the_clusters_libraries():
    result = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == len(files("fss")) - 1
    assert result.stderr == ""


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_layer_imports_what_stands_above_it(package):
    assert files(package)
    assert breaches(package) == []


def test_the_rule_would_notice(tmp_path):
    source = tmp_path / "bad.py"
    source.write_text("import torch\nfrom torch import distributed\ndef f():\n    import ray.util as r\n")
    assert {(2, "torch.distributed"), (4, "ray.util")} <= set(imported(source))
    source.write_text("import torch\ntorch.distributed.barrier()\n")
    assert (2, "torch.distributed.barrier") in set(used(source))


def test_nothing_is_reported_to_ray_train():
    """Its controller takes one report in two seconds, and the worker waits: figures go to the journal."""
    for path in files("cluster"):
        assert not [name for _, name in [*imported(path), *used(path)] if name.endswith("train.report")], path


def test_imports_are_absolute():
    for package in ("fss", "cluster", "jobs"):
        for path in files(package):
            assert not any(name.startswith(".") for _, name in imported(path)), path


@pytest.mark.parametrize("word", ["print", "seed_everything", "breakpoint"])
def test_the_library_does_not_print(word):
    for path in files("fss"):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not any(isinstance(c.func, ast.Name) and c.func.id == word for c in calls), path
