"""The guard before a server of the stack: whom it answers, whatever the server itself would do.

A page of another origin in the browser of somebody who is logged in can neither read nor change
anything, a name that was made to point here (DNS rebinding) is not answered, and without the login
nothing but the health check is.
"""

import base64
import hmac
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from flows.settings import HOST

HEALTH = frozenset({"/health"})
"""The paths that are answered without a login."""


def own_origins(port: int, exported: str | None) -> tuple[str, ...]:
    """Return the origins of a server's own pages: this machine's, and those an operator exported.

    Args:
        port: Where the server listens.
        exported: A list with commas, as Prefect and MLflow take it; ``*`` stands for any.
    """
    others = (origin.strip().rstrip("/") for origin in (exported or "").split(","))
    return (f"http://{HOST}:{port}", f"http://localhost:{port}", *filter(None, others))


def own_hosts(origins: tuple[str, ...]) -> str:
    """Return the hosts of origins, with commas between them."""
    return ",".join(urlsplit(origin).netloc or origin for origin in origins)


class Guard:
    """An ASGI application that passes on to another one what is allowed."""

    def __init__(
        self,
        app: ASGIApp,
        origins: tuple[str, ...],
        hosts: str,
        login: str | None = None,
        closed: tuple[str, ...] = (),
    ) -> None:
        """Guard ``app``.

        Args:
            app: The server.
            origins: Those of its own pages; ``*`` stands for any.
            hosts: The names and ports that it answers to, with commas between them.
            login: ``user:password``; ``None`` where the server asks for a login itself.
            closed: What the paths begin with that nobody is given, logged in or not.
        """
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = frozenset(host.strip() for host in hosts.split(","))
        self._closed = closed
        self._token = base64.b64encode(login.encode()) if login else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or say why not."""
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif objection := self._foreign(scope, headers):
            await _refuse(scope, send, 403, objection)
        elif scope["path"].startswith(self._closed):
            await _refuse(scope, send, 403, "this server does not offer that")
        elif not self._lets_in(scope, headers):
            await _refuse(scope, send, 401, "this server asks for a user and a password")
        else:
            await self._app(scope, receive, send)

    def _foreign(self, scope: Scope, headers: Mapping[bytes, str]) -> str | None:
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if not _among(host, self._hosts):
            return f"this server does not answer as {host!r}"
        if origin is not None:
            own = _among(origin, self._origins)
            return None if own else f"this server takes nothing from pages of {origin!r}"
        if headers.get(b"sec-fetch-site") in {"cross-site", "same-site"} and not _is_link(
            scope, headers
        ):
            return "this server gives nothing to pages of other origins"
        return None

    def _lets_in(self, scope: Scope, headers: Mapping[bytes, str]) -> bool:
        if self._token is None or scope["path"] in HEALTH:
            return True
        scheme, _, token = headers.get(b"authorization", "").partition(" ")
        is_right = hmac.compare_digest(token.strip().encode("latin-1"), self._token)
        return scheme.lower() == "basic" and is_right


def _among(value: str, known: frozenset[str]) -> bool:
    return value in known or "*" in known


def _is_link(scope: Scope, headers: Mapping[bytes, str]) -> bool:
    """Return whether a person followed a link to here; only reading is without consequence."""
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and headers.get(b"sec-fetch-mode") == "navigate"
        and headers.get(b"sec-fetch-dest") == "document"
    )


async def _refuse(scope: Scope, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="MLflow of Flywheel"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
