"""A store for tests: moto's, behind a door that can be told to refuse or to take its time."""

import contextlib
import os
import threading
import time

import pytest

_BUSY = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.'
    b"</Message></Error>"
)


class Door:
    """A WSGI application before another one; `requests` are the methods and paths that came."""

    def __init__(self, inner):
        self.inner, self.requests = inner, []
        self.refused, self.seconds, self.unconditional = 0, 0.0, False

    def __call__(self, environ, start_response):
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        if self.refused:
            self.refused -= 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(_BUSY)))])
            return [_BUSY]
        time.sleep(self.seconds)
        if self.unconditional:
            environ = {key: value for key, value in environ.items() if not key.startswith("HTTP_IF_")}
        return self.inner(environ, start_response)


@contextlib.contextmanager
def server():
    """The door of a store that this process asks, and all that it starts meanwhile."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    from cluster.storage import bucket

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_request(self, *_):
            pass

    door = Door(DomainDispatcherApplication(create_backend_app))
    listening = make_server("127.0.0.1", 0, door, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith("AWS_")]:
            patch.delenv(key)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listening.port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("NO_PROXY", "127.0.0.1")
        bucket._system.cache_clear()  # which knows another address
        yield door
        bucket._system.cache_clear()
    listening.shutdown()
    thread.join()
