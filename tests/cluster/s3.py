"""Stores for tests, moto's and Ceph's, each behind a door that can be told to refuse or to take its time."""

import contextlib
import http.client
import os
import threading
import time

import pytest

from tests import ceph, rays

_BUSY = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.'
    b"</Message></Error>"
)


class Door:
    """A WSGI application before another one; `requests` are the methods and paths that came."""

    def __init__(self, inner):
        self.inner, self.requests = inner, []
        self.refused, self.seconds = 0, 0.0

    def __call__(self, environ, start_response):
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if self.refused:
            self.refused -= 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(_BUSY)))])
            return [_BUSY]
        time.sleep(self.seconds)
        return self.inner(environ, start_response)


def kinds():
    """As which stores a test may ask for one: moto's, and Ceph's where it is installed."""
    absent = pytest.mark.skipif(not ceph.installed(), reason=f"Ceph is not installed: {ceph.INSTALL}")
    return ["moto", pytest.param("ceph", marks=absent)]


def real():
    """What a test asks for that takes long: Ceph's where it is installed."""
    return "ceph" if ceph.installed() else "moto"


def _headers(environ):
    for key, value in environ.items():
        if key.startswith("HTTP_") and key != "HTTP_EXPECT":  # that was answered by who took the request
            yield key.removeprefix("HTTP_").replace("_", "-"), value
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            yield key.replace("_", "-"), value


def _to(port):
    """A WSGI application that passes requests on to what listens at a port of this machine, as they came."""

    def application(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as inside:
            inside.request(environ["REQUEST_METHOD"], environ["RAW_URI"], body, dict(_headers(environ)))
            answer = inside.getresponse()
            kept = [pair for pair in answer.getheaders() if pair[0].lower() not in ("connection", "transfer-encoding")]
            start_response(f"{answer.status} {answer.reason}", kept)
            return [answer.read()]

    return application


@contextlib.contextmanager
def _inner(kind):
    if kind == "moto":
        from moto.server import DomainDispatcherApplication, create_backend_app

        yield DomainDispatcherApplication(create_backend_app)
    else:
        with ceph.Store(rays.free_ports(2)) as store:
            yield _to(store.port)


@contextlib.contextmanager
def server(kind="moto"):
    """The door of a store that this process asks, and all that it starts meanwhile."""
    with _inner(kind) as inner, _listening(Door(inner)) as door:
        yield door


@contextlib.contextmanager
def _listening(door):
    from werkzeug.serving import WSGIRequestHandler, make_server

    from cluster.storage import bucket

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_):
            pass

    listening = make_server("127.0.0.1", 0, door, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith("AWS_")]:
            patch.delenv(key)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listening.port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", ceph.ID)  # moto's takes any
        patch.setenv("AWS_SECRET_ACCESS_KEY", ceph.SECRET)
        patch.setenv("NO_PROXY", "127.0.0.1")
        bucket._system.cache_clear()  # which knows another address
        yield door
        bucket._system.cache_clear()
    listening.shutdown()
    thread.join()
