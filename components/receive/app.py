"""The receiver as an ASGI application: its routes, and the form of its answers."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from components.receive import openapi, payloads
from components.receive.intake import Desk
from components.receive.settings import Limits, RefusedError

ABOUT = """Takes what an LLM application logs. **200** means that all of the body is on the disk.
Anything else means that it may not be: send it again. What arrives twice is stored once."""

JSON = "application/json"

router = APIRouter()


@router.post("/v1/interactions", openapi_extra=openapi.records(openapi.INTERACTION))
async def interactions(request: Request) -> Response:
    """Store interactions: one object, an array of them, or one a line."""
    return await _records(request, "interactions")


@router.post("/v1/feedback", openapi_extra=openapi.records(openapi.FEEDBACK))
async def feedback(request: Request) -> Response:
    """Store feedback: one object, an array of them, or one a line."""
    return await _records(request, "feedback")


@router.post("/v1/traces", openapi_extra=openapi.otlp())
async def traces(request: Request) -> Response:
    """Store spans with GenAI attributes: OTLP/HTTP, JSON or protobuf, plain or gzip'd."""
    return await _telemetry(request, "traces")


@router.post("/v1/logs", openapi_extra=openapi.otlp())
async def logs(request: Request) -> Response:
    """Store log records that are GenAI events: OTLP/HTTP, JSON or protobuf, plain or gzip'd.

    Those of one call are joined with its span where both wait for the same `flywheel collect`.
    """
    return await _telemetry(request, "logs")


@router.get("/healthz")
async def healthz(request: Request) -> Response:
    """Tell whether requests can be taken: 200, or 503 with the reason."""
    try:
        _desk(request).require_health()
    except RefusedError as refused:
        return _json(503, {"status": "failing", "detail": refused.reason})
    return _json(200, {"status": "ok"})


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Show figures for Prometheus."""
    return Response(_desk(request).metrics.page(), media_type=CONTENT_TYPE_LATEST)


def create(folder: Path, tokens: Path, limits: Limits) -> FastAPI:
    """Make the application.

    Args:
        folder: The spool.
        tokens: The file of tokens; until it exists nobody is let in.
        limits: How much it takes.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None]:
        app.state.desk = Desk(folder, tokens, limits)
        yield
        await app.state.desk.close()

    app = FastAPI(title="Flywheel receiver", description=ABOUT, version="1", lifespan=life)
    app.include_router(router)

    def documented() -> dict[str, object]:
        page = get_openapi(
            title=app.title, version=app.version, description=ABOUT, routes=app.routes
        )
        page.setdefault("components", {})["securitySchemes"] = openapi.SECURITY
        return page

    app.openapi = documented
    return app


async def _records(request: Request, kind: payloads.Kind) -> Response:
    try:
        count = await _desk(request).take(request, kind)
    except RefusedError as refused:
        body = json.dumps({"detail": refused.reason}).encode()
        return _answer(request, body, refused, JSON)
    except ClientDisconnect:
        return _gone(request)
    return _answer(request, b'{"accepted":%d}' % count, None, JSON)


async def _telemetry(request: Request, signal: payloads.Signal) -> Response:
    form = payloads.detect_encoding(request.headers.get("content-type", "")) or JSON
    try:
        await _desk(request).take(request, signal)
    except RefusedError as refused:
        return _answer(request, payloads.failure_body(form, refused), refused, form)
    except ClientDisconnect:
        return _gone(request)
    return _answer(request, payloads.accepted_body(form), None, form)


def _answer(
    request: Request, body: bytes, refused: RefusedError | None, media_type: str
) -> Response:
    status = refused.status if refused else 200
    _desk(request).metrics.answers.labels(request.url.path, status).inc()
    answer = Response(body, status, media_type=media_type)
    if refused and refused.retry_after is not None:
        answer.headers["retry-after"] = str(refused.retry_after)
    if status == 401:
        answer.headers["www-authenticate"] = "Bearer"
    if status == 415:
        answer.headers["accept-encoding"] = "gzip"
    return answer


def _gone(request: Request) -> Response:
    """Count a client that hung up, or was cut off; nobody reads this answer."""
    _desk(request).metrics.answers.labels(request.url.path, 408).inc()
    return Response(status_code=408)


def _json(status: int, value: dict[str, str]) -> Response:
    return Response(json.dumps(value), status, media_type=JSON)


def _desk(request: Request) -> Desk:
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk
