"""An application around a small model of this process, and images for it."""

import asyncio

import pytest
from starlette.testclient import TestClient

from cluster.config.serve import ServeConfig
from cluster.web.app import build
from cluster.web.finder import Finder
from fss.segmenter import Segmenter
from tests.fss.segmenter.test_segmenter import write


class Here:
    """Who finds things: this process. `asked` has for each call whether supports came along."""

    def __init__(self, segmenter):
        self.model, self.asked = Finder(segmenter), []

    async def about(self):
        return self.model.about

    async def drawn(self, image, shown):
        return await asyncio.to_thread(self.model.drawn, image, shown)

    async def find(self, asked):
        self.asked.append(asked.supports is not None)
        (answer,) = await asyncio.to_thread(self.model.find, [asked])
        return answer


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write(folder)
    return Segmenter.load(folder, "cpu")


@pytest.fixture
def serve(segmenter):
    """A function (**keys) -> a client of a server with these keys; its `finders` are a `Here`."""

    def make(**keys):
        finders = Here(segmenter)
        client = TestClient(build(finders, ServeConfig(model="m", **keys)), base_url="http://localhost")
        client.finders = finders
        return client

    return make


@pytest.fixture
def client(serve):
    return serve()
