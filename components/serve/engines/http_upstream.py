"""An engine's HTTP API: JSON and server-sent events, with every failure as an ``UpstreamError``."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias, cast

import aiohttp
import orjson

from components.schema import Json
from components.serve.engines.serving_engine import HttpAnswer, UpstreamError
from components.store.addresses import without_secrets

LOG = logging.getLogger(__name__)

Body: TypeAlias = Mapping[str, Json]

REQUESTS_FAULT = frozenset({400, 413, 414, 415, 422, 431})
"""Statuses of what is wrong with a request. After any other somebody else may answer it: 404 is of
a replica that lost the adapter, 401 of one with another key, 529 of a provider with too much to do.
"""

PASSED_ON = ("retry-after", "retry-after-ms", "x-should-retry")
"""The headers of another server's answer that are its client's, as are those that begin so:"""
PASSED_ON_PREFIX = "x-ratelimit-"

_SECONDS = re.compile(r"[0-9]{1,5}")
_END_OF_EVENT = re.compile(rb"\r?\n\r?\n")

LONGEST_TEXT = 2000  # characters of an engine's own message that an error repeats
END_SECONDS = 0.05  # for the end of a body after its last event

LONGEST_EVENT = 8 * 2**20  # bytes; a longer event is no answer
LONGEST_BODY = 64 * 2**20  # bytes of one that is not streamed, which is held in memory


def read_key(variable: str | None, environment: Mapping[str, str], server: str) -> str | None:
    """Return the key in a server's variable, or ``None`` and a warning if it is not set."""
    if variable is None:
        return None
    key = environment.get(variable) or None
    if key is None:
        LOG.warning("%s is not set, so %s is asked without a key", variable, server)
    return key


class HttpUpstream:
    """One server's API; made in the event loop that uses it.

    Args:
        url: Its address, ``http://host:port`` or ``unix:/path``.
        api_key: Sent as a bearer token.
        connect_seconds: How long a connection may take.
        patience_seconds: How long it may be silent, before its first byte and between two.
        answer_seconds: How long it may take to an answer that is not streamed.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        connect_seconds: float = 2.0,
        patience_seconds: float = 60.0,
        answer_seconds: float = 600.0,
    ) -> None:
        self.url = without_secrets(url.rstrip("/"))
        self.answer_seconds = answer_seconds
        self._socket = url.removeprefix("unix:") if url.startswith("unix:") else None
        self._root = "http://engine" if self._socket else url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._connect, self._patience = connect_seconds, patience_seconds
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, *, patience_seconds: float | None = None) -> Json:
        """Return the JSON answer to a GET request."""
        async with self._request("GET", path, None, patience_seconds) as response:
            return await self._json(path, response)

    async def get_text(self, path: str, *, patience_seconds: float | None = None) -> str:
        """Return the text answer to a GET request."""
        async with self._request("GET", path, None, patience_seconds) as response:
            return (await self._body(path, response)).decode(errors="replace")

    async def post(
        self,
        path: str,
        body: Body,
        *,
        patience_seconds: float | None = None,
        traceparent: str | None = None,
    ) -> dict[str, Json]:
        """Return the JSON object that answers a POST request; empty if it is only text."""
        content = orjson.dumps(body)
        async with self._request("POST", path, content, patience_seconds, traceparent) as response:
            answer = await self._json(path, response, is_text_allowed=True)
        return answer if isinstance(answer, dict) else {}

    async def events(
        self, path: str, body: Body, *, traceparent: str | None = None
    ) -> AsyncGenerator[dict[str, Json]]:
        """Stream the JSON events that answer a POST request, up to ``[DONE]`` or the end.

        Closing the generator closes the connection, which cancels the request at the engine.
        """
        content = orjson.dumps(body)
        async with self._request("POST", path, content, None, traceparent) as response:
            async for block in blocks(response):
                payload = data_of(block)
                if not payload or not block.endswith(b"\n"):  # a comment, or an event that is cut
                    continue
                if payload == b"[DONE]":
                    await read_to_end(response)
                    return
                event = parse(payload)
                if not isinstance(event, dict):
                    raise UpstreamError(
                        502,
                        f"POST {self.url}{path}: expected JSON events, found {payload[:80]!r}",
                        is_retryable=True,
                    )
                if (error := event.get("error")) is not None:
                    raise UpstreamError(502, f"{self.url}: {_message(error)}", is_retryable=True)
                yield event

    @asynccontextmanager
    async def relay(
        self, path: str, content: bytes, *, traceparent: str | None = None
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Open the answer to a POST request, however long its first byte takes."""
        asking = self._request("POST", path, content, self.answer_seconds, traceparent)
        async with asking as response:
            yield response

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        content: bytes | None,
        patience_seconds: float | None,
        traceparent: str | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        patience = patience_seconds or self._patience
        action = f"{method} {self.url}{path}"
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=min(self._connect, patience), sock_read=patience
        )
        try:
            async with self._open().request(
                method,
                self._root + path,
                data=content,
                headers=_headers(content, traceparent),
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                if response.status >= 300:
                    raise await _refusal(action, response)
                yield response
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamError(
                502,
                f"{action}: no connection in {timeout.sock_connect:g} s",
                is_retryable=True,
            ) from error
        except TimeoutError as error:
            raise UpstreamError(
                504, f"{action}: no byte for {patience:g} s", is_retryable=True
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(
                502, f"{action}: {error or type(error).__name__}", is_retryable=True
            ) from error

    async def _json(
        self, path: str, response: aiohttp.ClientResponse, *, is_text_allowed: bool = False
    ) -> Json:
        content = await self._body(path, response)
        answer = parse(content)
        if answer is None and not is_text_allowed:
            raise UpstreamError(
                502, f"{self.url}{path}: expected JSON, found {content[:80]!r}", is_retryable=True
            )
        return answer

    async def _body(self, path: str, response: aiohttp.ClientResponse) -> bytes:
        return await read_body(f"{self.url}{path}", response)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=(
                    aiohttp.UnixConnector(self._socket, limit=0)
                    if self._socket
                    else aiohttp.TCPConnector(limit=0, keepalive_timeout=15)
                ),
                headers=self._headers,
                auto_decompress=True,
                trust_env=False,
            )
        return self._session


async def blocks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes]:
    """Yield a stream's events, each with the empty line after it, and what is left at the end.

    Raise ``UpstreamError`` if one has more than ``LONGEST_EVENT`` bytes.
    """
    buffer = bytearray()
    async for part in response.content.iter_any():
        start, begin = max(0, len(buffer) - 3), 0
        buffer += part
        while (end := _END_OF_EVENT.search(buffer, start)) is not None:
            block = bytes(buffer[begin : end.end()])
            begin = start = end.end()
            yield block
        del buffer[:begin]
        if len(buffer) > LONGEST_EVENT:
            raise UpstreamError(
                502,
                f"{response.url.host}: an event has more than {LONGEST_EVENT} bytes",
                is_retryable=False,
            )
    if buffer:
        yield bytes(buffer)


def data_of(block: bytes) -> bytes:
    """Return the data of an event; empty for a comment."""
    lines = [line[5:].strip() for line in block.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


async def read_body(
    place: str, response: aiohttp.ClientResponse, hold: Callable[[int], None] | None = None
) -> bytes:
    """Return a body; ``hold`` counts its bytes.

    Raise ``UpstreamError`` if it has more than ``LONGEST_BODY`` bytes.
    """
    content = bytearray()
    async for part in response.content.iter_any():
        content += part
        if hold is not None:
            hold(len(part))
        if len(content) > LONGEST_BODY:
            raise UpstreamError(
                502, f"{place}: the body has more than {LONGEST_BODY} bytes", is_retryable=True
            )
    return bytes(content)


def head_of(response: aiohttp.ClientResponse) -> HttpAnswer:
    """Return an answer without its body, with the headers that its client may see."""
    headers = [
        (name.lower().encode(), text.encode("latin-1", "replace"))
        for name, text in response.headers.items()
        if name.lower() in PASSED_ON or name.lower().startswith(PASSED_ON_PREFIX)
    ]
    media_type = response.headers.get("content-type", "application/json")
    return HttpAnswer(response.status, media_type.encode("latin-1", "replace"), headers)


async def read_to_end(response: aiohttp.ClientResponse) -> None:
    """Read a body's end, which may come after ``[DONE]``: else its connection would be closed."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(END_SECONDS):
            async for _ in response.content.iter_any():
                pass


def _headers(content: bytes | None, traceparent: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"} if content is not None else {}
    return headers if traceparent is None else headers | {"traceparent": traceparent}


async def _refusal(action: str, response: aiohttp.ClientResponse) -> UpstreamError:
    head = head_of(response)
    head.content = await read_body(action, response)
    text = head.content.decode(errors="replace")
    answer = parse(head.content)
    message = _message(answer) if isinstance(answer, dict) else text
    seconds = response.headers.get("retry-after", "")  # a date is another form of it
    return UpstreamError(
        response.status,
        f"{action}: {response.status} {message[:LONGEST_TEXT]}".rstrip(),
        is_retryable=response.status not in REQUESTS_FAULT,
        retry_after=int(seconds) if _SECONDS.fullmatch(seconds) else None,
        answer=head,
    )


def _message(error: Json) -> str:
    """Return the text of an error, whose form differs by engine and by version."""
    match error:
        case {"error": inner}:  # vLLM's and OpenAI's
            return _message(inner)
        case {"message": str(message)} | {"error_message": str(message)}:
            return message
        case {"detail": inner}:  # FastAPI's
            return _message(inner)
        case str(message):
            return message
        case _:
            return orjson.dumps(error).decode()


def parse(content: bytes) -> Json:
    """Return the value of a JSON text; ``None`` if it is none."""
    try:
        return cast("Json", orjson.loads(content))
    except orjson.JSONDecodeError:
        return None
