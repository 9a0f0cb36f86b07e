"""A TCP address that can be up, down, or silent, in front of a server that keeps running."""

import contextlib
import socket
import threading


class Relay:
    """Passes connections on to port `target` of this machine while it is `up`, and refuses them while it is not.

    Without a target it takes connections and never answers. `connections` counts those that it took. The port stays
    its own all the time.
    """

    def __init__(self, target=None):
        self._held = socket.socket()  # bound and not listening: who connects is refused
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.connections = 0
        self.asked = threading.Event()
        self._target, self._listener, self._open = target, None, []

    def up(self):
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self):
        if self._listener:
            _end(self._listener)
            self._listener = None
        while self._open:
            _end(self._open.pop())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.down()
        self._held.close()

    def _accept(self, listener):
        with contextlib.suppress(OSError):  # the listener has ended
            while True:
                client, _ = listener.accept()
                self._open.append(client)
                self.connections += 1
                self.asked.set()
                if self._target:
                    server = socket.create_connection(("127.0.0.1", self._target))
                    self._open.append(server)
                    for ends in ((client, server), (server, client)):
                        threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _end(one):
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
