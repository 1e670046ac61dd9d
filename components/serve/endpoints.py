"""The gateway as an ASGI application: its paths, headers and errors.

It is plain ASGI, without a framework's routing in a request's way: an answer costs a millisecond at
most. Paths of the receiver go to its own application where that is mounted.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeAlias, cast
from urllib.parse import unquote

import orjson
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from components.receive import app as receiver_app
from components.receive.intake import Desk
from components.receive.settings import Limits, RefusedError
from components.schema import Json
from components.serve import (
    answer_log,
    response_id,
    serve_openapi,
)
from components.serve.body_fields import Obj
from components.serve.engines.serving_engine import ServingEngine, UpstreamError
from components.serve.exchange import Exchange
from components.serve.gateway import Api, Gateway, Headers
from components.serve.openai_error import OpenAiError, PassedOnError
from components.serve.rollout import Rollout
from components.serve.routes import Current
from components.serve.settings import ServeSettings

Handler: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = b"application/json"
_UNKNOWN_STATUS = 499  # nginx's, for a client that closed the connection


class GatewayApp:
    """The application; its lifespan opens and closes the spool.

    Args:
        home: The folder with the spool, the tokens and the keys.
        settings: The file ``serve.yaml``.
        current: The routes.
        engines: The replicas by name; may change while it serves.
        limits: The receiver's, for tokens, bodies in memory, and the spool.
        receiver: Whether the receiver's paths are served as well.
        environment: The environment variables, for the keys of fallbacks.
        status: What ``/v1/routes`` says besides the routes.
        report: Called with each failure of a replica.
        rollout: Lets versions answer a share; without it only champions answer.
    """

    def __init__(
        self,
        home: Path,
        settings: ServeSettings,
        current: Current,
        engines: Mapping[str, ServingEngine],
        *,
        limits: Limits,
        receiver: bool,
        environment: Mapping[str, str],
        status: Callable[[], Mapping[str, Json]],
        report: Callable[[str, UpstreamError], None],
        rollout: Rollout | None = None,
    ) -> None:
        self._rollout = rollout
        self._home, self._settings, self._current = home, settings, current
        self._engines, self.limits, self._environment = engines, limits, environment
        self._has_receiver, self._status, self._report = receiver, status, report
        self._gateway: Gateway | None = None
        self._receiver: FastAPI | None = None
        self._schema = serve_openapi.document()
        self._handlers: dict[str, dict[str, Handler]] = {
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/responses": {"POST": self._responses},
            "/v1/completions": {"POST": self._completion},
            "/v1/feedback": {"POST": self._feedback},
            "/v1/models": {"GET": self._models},
            "/v1/routes": {"GET": self._routes},
            "/healthz": {"GET": self._healthz},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._lifespan(receive, send)
            return
        try:
            await self._handler(scope)(scope, receive, send)
        except OpenAiError as error:
            await _refuse(send, error)
        except RefusedError as refused:
            await _refuse(send, OpenAiError.of(refused))
        except ClientDisconnect:
            return

    def _handler(self, scope: Scope) -> Handler:
        path, method = scope["path"], scope["method"]
        handlers = self._handlers.get(path)
        if handlers is None and path.startswith("/v1/models/"):
            handlers = {"GET": self._model}
        if handlers is None:
            return self._receiver or self._unknown
        handler = handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise OpenAiError(
                405,
                f"{method} is not allowed on {path[:200]}, expected {', '.join(handlers)}",
                code="method_not_allowed",
                allow=", ".join(handlers),
            )
        return handler

    @property
    def gateway(self) -> Gateway:
        """The gateway, once the application has started."""
        assert self._gateway is not None
        return self._gateway

    async def start(self) -> None:
        """Open the spool."""
        key = response_id.read_key(self._home / "keys")
        desk = Desk(self._home / "spool", self._home / "tokens.json", self.limits)
        self._gateway = Gateway(
            self._settings,
            self._current,
            self._engines,
            desk,
            key,
            self._environment,
            self._report,
            self._rollout,
        )
        self._gateway.metrics.watch_serving(self._current, self._status)
        if self._has_receiver:
            self._receiver = receiver_app.create_mounted(desk)
            self._receiver.router.default = self._unknown
            self._schema = serve_openapi.document(self._receiver.openapi())

    async def stop(self) -> None:
        """Write what is left to write, and seal the spool."""
        await self.gateway.close()
        await self.gateway.desk.close()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except (OSError, ValueError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer("chat", scope, receive, send)

    async def _responses(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer("responses", scope, receive, send)

    async def _completion(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer("completion", scope, receive, send)

    async def _answer(self, api: Api, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self.gateway
        try:
            exchange = await gateway.open(Request(scope, receive), _headers(scope), api)
        except (OpenAiError, RefusedError) as refused:
            gateway.metrics.requests("", "", "", str(refused.status)).inc()
            raise
        status = _UNKNOWN_STATUS
        work = asyncio.current_task()
        assert work is not None
        watch = asyncio.create_task(_watch(receive, work))
        try:
            if exchange.request.is_streamed:
                status = await self._stream(exchange, send)
            else:
                content = await gateway.whole(exchange)
                await _send(send, 200, content, exchange.headers(), exchange.media_type)
                status = 200
        except asyncio.CancelledError:
            if not watch.done():  # the server ends
                gateway.abandon(exchange, answer_log.CUT)
                raise
            work.uncancel()
            gateway.abandon(exchange, answer_log.GONE)
        except PassedOnError as error:
            status, answer = error.status, error.answer
            headers = exchange.headers() + answer.headers
            await _send(send, status, answer.content, headers, answer.media_type)
        except OpenAiError as error:
            status = error.status
            if exchange.request.responses is not None:
                error.rename(exchange.request.responses.names)
            raise
        finally:
            watch.cancel()
            gateway.leave(exchange, status)

    async def _stream(self, exchange: Exchange, send: Send) -> int:
        """Send a stream; its first event comes with the head, so that errors have their status."""
        events = self.gateway.stream(exchange)
        try:
            is_begun = False
            async for event in events:
                if not is_begun:
                    is_begun = True
                    await send(_head(200, exchange.media_type, None, exchange.headers()))
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await events.aclose()
        return 200

    async def _feedback(self, scope: Scope, receive: Receive, send: Send) -> None:
        receiver = self._receiver
        answer = await self.gateway.take_feedback(
            Request(scope, receive),
            dict(scope["headers"]),
            otherwise=lambda body: receiver is not None and _is_record(body),
        )
        if isinstance(answer, bytes):
            assert receiver is not None
            plain = [
                (name, value) for name, value in scope["headers"] if name != b"content-encoding"
            ]
            await receiver({**scope, "headers": plain}, _replay(answer, receive), send)
            return
        await _send_json(send, answer)

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send_json(send, self.gateway.models(_headers(scope)))

    async def _model(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = unquote(scope["path"].removeprefix("/v1/models/"))
        await _send_json(send, self.gateway.model(_headers(scope), name))

    async def _routes(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send_json(send, self.gateway.routes(_headers(scope), self._status()))

    async def _healthz(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Not whether there is room for records: whoever restarts what is unhealthy would end the
        # answers that need none, and make no room.
        await _send_json(send, {"status": "ok"})

    async def _readyz(self, scope: Scope, receive: Receive, send: Send) -> None:
        reason = self.gateway.unready()
        if reason is not None:
            await _send_json(send, {"status": "not ready", "detail": reason}, 503)
            return
        await self._healthz(scope, receive, send)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = self.gateway.metrics.page() + self.gateway.desk.metrics.page()
        await _send(send, 200, page, [], CONTENT_TYPE_LATEST.encode())

    async def _openapi(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _send_json(send, self._schema)

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = ", ".join(cast("Obj", self._schema["paths"]))
        reason = f"Unknown request URL: {scope['method']} {scope['path'][:200]}; known: {known}"
        await _refuse(send, OpenAiError(404, reason, code="unknown_url"))


async def _watch(receive: Receive, work: "asyncio.Task[None]") -> None:
    """Cancel the work when its client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    work.cancel()


def _headers(scope: Scope) -> Headers:
    return dict(scope["headers"])


def _is_record(body: bytes) -> bool:
    """Return whether feedback has the receiver's form: records that name their workload."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return True  # several lines, or an error that the receiver explains
    return not isinstance(value, dict) or "workload_id" in value


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that has the body at once."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _head(
    status: int,
    media_type: bytes,
    length: int | None,
    headers: list[tuple[bytes, bytes]],
) -> Message:
    own = [(b"content-type", media_type)]
    if length is None:
        own += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    else:
        own.append((b"content-length", b"%d" % length))
    return {"type": "http.response.start", "status": status, "headers": [*own, *headers]}


async def _send(
    send: Send,
    status: int,
    body: bytes,
    headers: list[tuple[bytes, bytes]],
    media_type: bytes = JSON,
) -> None:
    await send(_head(status, media_type, len(body), headers))
    await send({"type": "http.response.body", "body": body})


async def _send_json(send: Send, value: Obj, status: int = 200) -> None:
    await _send(send, status, orjson.dumps(value), [])


async def _refuse(send: Send, error: OpenAiError) -> None:
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if error.is_final:
        headers.append((b"x-should-retry", b"false"))  # OpenAI's clients heed it
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.allow is not None:
        headers.append((b"allow", error.allow.encode()))
    if error.status == 415:
        headers.append((b"accept-encoding", b"gzip"))
    await _send(send, error.status, error.body(), headers)
