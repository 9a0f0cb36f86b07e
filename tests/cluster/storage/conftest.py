"""A store for the module, and machines, each with copies of its own."""

import pytest

from tests.cluster import s3


def pytest_generate_tests(metafunc):
    """A module's `STORES` are those that its tests see, each in turn."""
    if "door" in metafunc.fixturenames:
        metafunc.parametrize("door", getattr(metafunc.module, "STORES", ["moto"]), indirect=True, scope="module")


@pytest.fixture(scope="module")
def door(request):
    """The store's door; it has one bucket, named `bucket`."""
    from cluster.storage import bucket

    with s3.server(request.param) as opened:
        bucket.system().makedirs("bucket", exist_ok=True)
        yield opened


@pytest.fixture
def machine(door, tmp_path, monkeypatch):
    """A function (name) that makes this process one on the machine of that name."""

    def on(name):
        monkeypatch.setenv("FSS_CACHE", str(tmp_path / name))

    on("first")
    return on


@pytest.fixture
def folder(machine, request):
    """A new folder in the bucket, as a path of this machine."""
    from cluster.storage import paths

    return paths.place(f"s3://bucket/{request.node.name.translate(str.maketrans('[] ', '---'))}")
