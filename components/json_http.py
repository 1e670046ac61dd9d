"""JSON over HTTP, for servers whose own client libraries take seconds to import."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx

Answer: TypeAlias = Any  # JSON of a response, whose form the caller knows

BUSY = frozenset({408, 429, 502, 503, 504})
"""Responses of a server, or of its proxy, after which the same request can be retried."""

FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
"""Seconds before the first and the longest wait between attempts; they double."""

TRIES = 6  # maximum attempts of a request that is lost or met a busy server

LOST = (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout, httpx.RemoteProtocolError)
"""Errors of connections cut by a server's restart; the same request can be retried."""


@dataclass(frozen=True)
class Rest:
    """A server's API. Requests are retried while it is busy, so they must be idempotent.

    ``patience_seconds`` is how long to wait for a server that accepts no connection.
    """

    base: str
    auth: httpx.Auth | None = None
    trust_env: bool = False
    """Whether to use the environment's proxies and certificates; not for servers on loopback."""
    patience_seconds: float = 0.0
    http: httpx.Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A client without TLS needs no certificates, which take 30 ms to load.
        verify = self.base.startswith("https:") or self.trust_env
        client = httpx.Client(auth=self.auth, trust_env=self.trust_env, verify=verify, timeout=60)
        object.__setattr__(self, "http", client)

    def get(self, path: str, **params: str | int | None) -> Answer:
        """Send a GET request without parameters that are ``None``; return the answer."""
        return self.send("GET", path, params={k: v for k, v in params.items() if v is not None})

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Send a POST request with a JSON body; return the answer."""
        return self.send("POST", path, body=body)

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Send a DELETE request; return the answer."""
        return self.send("DELETE", path, body=body)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Send a request, retrying while the server is busy or restarts; return the JSON answer.

        Raises:
            httpx.HTTPStatusError: The answer is an error; the message has the server's text.
            httpx.TransportError: The server does not answer.
        """
        deadline, wait, attempt = time.monotonic() + self.patience_seconds, FIRST_WAIT, 1
        while True:
            try:
                answer = self.http.request(method, self.base + path, params=params, json=body)
            except httpx.ConnectError:
                if time.monotonic() >= deadline:
                    raise
            except LOST:
                if attempt >= TRIES:
                    raise
            else:
                if answer.status_code not in BUSY or attempt >= TRIES:
                    return _content(answer)
            time.sleep(wait * random.uniform(0.7, 1.3))
            wait, attempt = min(2 * wait, LONGEST_WAIT), attempt + 1


def _content(answer: httpx.Response) -> Answer:
    if answer.is_error:
        request = f"{answer.request.method} {answer.request.url}"
        raise httpx.HTTPStatusError(
            f"{request}: {answer.status_code} {answer.text[:2000]}",
            request=answer.request,
            response=answer,
        )
    return answer.json() if answer.content else None
