"""The receiver as an ASGI application: its routes and responses."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from components.receive import openapi, payloads
from components.receive.intake import Desk
from components.receive.settings import Limits, RefusedError

ABOUT = """Stores the logs of an LLM application. **200** means that the whole body is on disk.
Any other status means that it may not be: send it again. Duplicates are stored once.
`warnings` in the answer name records that are stored, but that no workload can use."""

JSON = "application/json"

router = APIRouter()


@router.post("/v1/interactions", openapi_extra=openapi.records(openapi.InteractionRecord))
async def interactions(request: Request) -> Response:
    """Store interactions: one object, an array of objects, or one per line."""
    return await _records(request, "interactions")


@router.post("/v1/feedback", openapi_extra=openapi.records(openapi.FeedbackRecord))
async def feedback(request: Request) -> Response:
    """Store feedback: one object, an array of objects, or one per line."""
    return await _records(request, "feedback")


@router.post("/v1/traces", openapi_extra=openapi.otlp())
async def traces(request: Request) -> Response:
    """Store spans with GenAI attributes: OTLP/HTTP, JSON or protobuf, plain or gzip."""
    return await _telemetry(request, "traces")


@router.post("/v1/logs", openapi_extra=openapi.otlp())
async def logs(request: Request) -> Response:
    """Store log records that are GenAI events: OTLP/HTTP, JSON or protobuf, plain or gzip.

    They are joined with the span of their call if the same `flywheel collect` loads both.
    """
    return await _telemetry(request, "logs")


@router.get("/healthz")
async def healthz(request: Request) -> Response:
    """Return whether requests are accepted: 200, or 503 with the reason."""
    try:
        _desk(request).require_health()
    except RefusedError as refused:
        return JSONResponse({"status": "failing", "detail": refused.reason}, 503)
    return JSONResponse({"status": "ok"})


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return metrics for Prometheus."""
    return Response(_desk(request).metrics.page(), media_type=CONTENT_TYPE_LATEST)


def create(folder: Path, tokens: Path, limits: Limits) -> FastAPI:
    """Return the application; it refuses every request until the file of tokens exists."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.desk = Desk(folder, tokens, limits)
        yield
        await app.state.desk.close()

    app = FastAPI(title="Flywheel receiver", description=ABOUT, version="1", lifespan=lifespan)
    _add_routes(app)
    return app


def create_mounted(desk: Desk) -> FastAPI:
    """Return the application for another one of this process, which owns the desk."""
    app = FastAPI(title="Flywheel receiver", description=ABOUT, version="1")
    app.state.desk = desk
    _add_routes(app)
    return app


def _add_routes(app: FastAPI) -> None:
    app.include_router(router)

    def openapi_schema() -> dict[str, object]:
        schema = get_openapi(
            title=app.title, version=app.version, description=ABOUT, routes=app.routes
        )
        schema.setdefault("components", {})["securitySchemes"] = openapi.SECURITY
        return schema

    app.openapi = openapi_schema


async def _records(request: Request, kind: payloads.Kind) -> Response:
    try:
        taken = await _desk(request).take(request, kind)
    except RefusedError as refused:
        body = json.dumps({"detail": refused.reason}).encode()
        return _answer(request, body, refused, JSON)
    except ClientDisconnect:
        return _gone(request)
    body = b'{"accepted":%d}' % taken.count
    if taken.warnings:
        answer = {"accepted": taken.count, "warnings": taken.warnings}
        body = json.dumps(answer).encode()
    return _answer(request, body, None, JSON)


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
    """Count a client that disconnected or was cut off; this response reaches nobody."""
    _desk(request).metrics.answers.labels(request.url.path, 408).inc()
    return Response(status_code=408)


def _desk(request: Request) -> Desk:
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk
