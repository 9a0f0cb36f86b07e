"""Who may ask, and how much may be sent: looked at before any route."""

from __future__ import annotations

import base64
import binascii
import secrets
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.config.serve import is_loopback

#: What needs no token: pages, which then ask for it, and whether the server lives.
_PUBLIC = {"/", "/docs", "/health", "/openapi.json"}
_BYTES_OF_MIB = 2**20


class Access:
    """Lets in who sends the token, or without one whoever is on this machine; pages of other servers never."""

    def __init__(self, app: ASGIApp, token: str | None):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        refusal = self._refusal(scope["path"], Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _told(403, f"expected a page of this server, got one of {origin}")
        if self.token is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            # a page elsewhere may give its own name this machine's address, and read what is answered
            return _told(403, f"expected localhost as the server's name, got {host}; set a token to use other names")
        if self.token is None or path in _PUBLIC or path.startswith("/page/"):
            return None
        if secrets.compare_digest(_sent(headers.get("authorization", "")).encode(), self.token.encode()):
            return None
        answer = _told(401, "expected the token of this server; send it as Authorization: Bearer TOKEN")
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer


class Size:
    """Refuses a body of more than `mib` MiB, as soon as that is known."""

    def __init__(self, app: ASGIApp, mib: float):
        self.app, self.most, self.mib = app, mib * _BYTES_OF_MIB, mib

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        announced = int(Headers(scope=scope).get("content-length", "0")) if scope["type"] == "http" else 0
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if max(came, announced) > self.most:
                raise HTTPException(
                    413, f"expected a request of at most {self.mib:g} MiB; send fewer or smaller images"
                )
            return message

        await self.app(scope, counted, send)


def _sent(authorization: str) -> str:
    """The token of a header: as it is, or as the password that tools send which know names and passwords alone."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() != "basic":
        return value if kind.lower() == "bearer" else ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _told(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status)
