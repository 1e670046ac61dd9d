"""The path of a request: token, workload, who answers, answer, log.

A request reads its workload's route once, and is answered by that version or by what ``serve.yaml``
names as a fallback; never by the base alone. A workload without a champion is answered by the
OpenAI-compatible servers among its own fallbacks, if it has any.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from typing import cast

import orjson
from starlette.requests import Request

from components.receive.client_tokens import Token
from components.receive.intake import Desk
from components.receive.settings import RefusedError
from components.schema import Json
from components.serve import (
    answer_feedback,
    answer_log,
    engine_errors,
    response_id,
    responses_answer,
)
from components.serve.answer_log import AnswerLog, Interaction
from components.serve.answering_servers import AnsweringServers
from components.serve.body_fields import Obj
from components.serve.chat_answer import AnswerDraft
from components.serve.chat_request import ChatRequest
from components.serve.engines.serving_engine import ServingEngine, UpstreamError
from components.serve.exchange import Exchange
from components.serve.openai_error import OpenAiError, require_scope
from components.serve.request_processes import Api, ReadRequest, RequestProcesses
from components.serve.rollout import Rollout
from components.serve.routes import Current
from components.serve.serve_metrics import ServeMetrics
from components.serve.served_workloads import ServedWorkloads, visible_status
from components.serve.settings import BODY_BYTES, ServeSettings
from components.serve.shadow_requests import ShadowRequests
from components.store import spool

Headers = Mapping[bytes, bytes]

FEEDBACK_BYTES = 2**20
SHADOWED_LOAD = 0.05  # of the open requests that are allowed; with more there is no shadow

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Gateway:
    """Answers requests; belongs to one event loop.

    Args:
        settings: The file ``serve.yaml``.
        current: The routes, which a swap flips.
        engines: The replicas by name.
        desk: The receiver's: tokens, quotas, admission, the spool.
        key: Of response ids.
        environment: The environment variables, for the keys of fallbacks.
        report: Called with each failure of a replica.
        rollout: Lets versions answer a share; without it only champions answer.
    """

    def __init__(
        self,
        settings: ServeSettings,
        current: Current,
        engines: Mapping[str, ServingEngine],
        desk: Desk,
        key: bytes,
        environment: Mapping[str, str],
        report: Callable[[str, UpstreamError], None],
        rollout: Rollout | None = None,
    ) -> None:
        self._rollout = rollout
        self.settings, self.current, self.engines, self.desk = settings, current, engines, desk
        self.metrics = ServeMetrics()
        self._key = key
        self._log = AnswerLog(desk)
        self._requests = RequestProcesses()
        self._servers = AnsweringServers(
            settings, engines, self._requests, environment, self.metrics, report
        )
        self._open = Counter[str]()  # requests by client
        self._workloads = ServedWorkloads(settings, current)
        self._shadows = ShadowRequests(_busy_from(settings))
        self.metrics.watch("open_requests", "Requests being answered.", self._open.total)
        self.metrics.watch("workloads", "Workloads with a route.", lambda: len(current.routes))
        if rollout is not None:
            self.metrics.collect(rollout.metrics)
        self.metrics.watch(
            "can_log",
            "1 while answers can be logged: room and a working disk.",
            lambda: float(self._log_failure() is None),
        )

    async def end(self) -> None:
        """Begin to end: refuse what has not begun to be answered, since others' may be slow."""
        await self._requests.close()
        await self._servers.end()

    async def close(self) -> None:
        """Write the records of partial answers, and close the connections to fallbacks."""
        await self._shadows.close()
        await self._log.close()
        await self._servers.close()
        await self._requests.close()

    def _log_failure(self) -> str | None:
        try:
            self.desk.require_health()
        except RefusedError as refused:
            return refused.reason
        return None

    # The way in.

    async def open(self, request: Request, headers: Headers, api: Api) -> Exchange:
        """Check a request and count it under its workload's epoch; ``leave`` ends it.

        Raises:
            OpenAiError: It is refused.
            RefusedError: The receiver refuses it: token, quota, size, room.
        """
        began, timestamp = time.perf_counter(), time.time()
        token = self.desk.authorize(_text(headers, b"authorization"), "interactions")
        with ExitStack() as stack:
            hold = stack.enter_context(self.desk.hold(token))
            longest = self.settings.longest_body()
            content = await self.desk.read_body(request, token, hold, longest)
            read = await self._requests.read(token.client_id, api, content)
            size = len(content)
            del content  # it may be large
            interaction, must_log = self._interaction(read, size, token, headers, timestamp)
            self._require_turn(token.client_id)
            route = self.current.enter(interaction.workload)
            if route is None and interaction.workload not in self._workloads.elsewhere:
                raise self._workloads.unknown(interaction.workload, token)
            held = stack.pop_all()
        self._open[token.client_id] += 1
        if self._shadows:
            self._shadows.make_room(self._open.total())
        draw = None
        canary = route.canary if route and interaction.request.is_checked else None
        if canary is not None and self._rollout is not None:
            draw = self._rollout.draw(
                interaction.workload,
                canary,
                token.client_id,
                interaction.request,
                interaction.conversation_id,
            )
        draft = AnswerDraft(
            endpoint=interaction.request.endpoint,
            id=response_id.create(
                self._key,
                token.client_id,
                interaction.workload,
                interaction.request.id_prefix,
                is_stored=interaction.request.is_stored,
            ),
            created=int(timestamp),
            has_logprobs=interaction.request.logprobs is not None,
        )
        return Exchange(interaction, route, began, must_log, draft, hold, held, draw=draw)

    def _interaction(
        self, read: ReadRequest, size: int, token: Token, headers: Headers, timestamp: float
    ) -> tuple[Interaction, bool]:
        """Return a request, and whether its answer has to be logged."""
        workload = self._workloads.choose(read.sent, lambda name: _text(headers, name), token)
        require_scope(token, workload, "model")
        chat = self._request(read, workload, size)
        must_log = chat.is_stored and self.settings.logging_of(workload) == "required"
        if must_log:
            self.desk.require_health()
        self.desk.count_bytes(token, size)
        traceparent = _text(headers, b"traceparent")
        interaction = Interaction(
            client_id=token.client_id,
            workload=workload,
            request=chat,
            timestamp=timestamp,
            conversation_id=_text(headers, b"x-conversation-id")
            or chat.metadata.get("conversation_id")
            or None,
            traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent or "") else None,
            size=size,
        )
        return interaction, must_log

    def _request(self, read: ReadRequest, workload: str, size: int) -> ChatRequest:
        """Return a request as a version reads it; as it was sent if only another server may answer.

        Raise ``OpenAiError`` if no version can answer it, and there is no other server.
        """
        route, has_server = self.current.routes.get(workload), self.settings.has_server(workload)
        if route is None and workload in self._workloads.elsewhere:
            return read.sent
        checked = read.checked
        if size > BODY_BYTES:
            checked = OpenAiError(413, f"the body has {size} bytes, expected at most {BODY_BYTES}")
        if not isinstance(checked, OpenAiError):
            return checked
        if route is None or not has_server:
            raise checked
        return read.sent

    def leave(self, exchange: Exchange, status: int) -> None:
        """Count the end of a request that was answered with this HTTP status."""
        interaction, who = exchange.interaction, exchange.who
        self._observe(exchange)
        exchange.held.close()
        if exchange.route is not None:
            self.current.leave(interaction.workload, exchange.epoch)
        clients = self._open
        clients[interaction.client_id] -= 1
        if not clients[interaction.client_id]:
            del clients[interaction.client_id]
        version = who.served.version if who is not None and who.served is not None else ""
        arm = who.arm if who is not None else ""
        self.metrics.requests(interaction.workload, version, arm, str(status)).inc()
        self._shadow(exchange)

    async def whole(self, exchange: Exchange) -> bytes:
        """Return the whole answer once its record is on disk; raise ``OpenAiError``."""
        draft = exchange.draft
        try:
            async with asyncio.timeout(self.settings.limits.answer_seconds):
                async with aclosing(self._servers.parts(exchange)) as parts:
                    async for part in parts:
                        draft.add(part)
        except TimeoutError as error:
            exchange.has_failed = True
            raise self._too_slow() from error
        content = draft.whole()
        await self._commit(exchange, content)
        responses = exchange.request.responses if draft.relayed is None else None
        if responses is not None:
            return responses_answer.whole(draft, responses.body)
        return draft.shown(content)

    async def stream(self, exchange: Exchange) -> AsyncGenerator[bytes]:
        """Yield an answer's events; the last ones once its record is on disk.

        Raise ``OpenAiError`` before the first event only; later errors are events.
        """
        draft, writer = exchange.draft, None
        try:
            async with asyncio.timeout(self.settings.limits.answer_seconds):
                async with aclosing(self._servers.parts(exchange)) as parts:
                    async for part in parts:
                        draft.add(part)
                        if not (part.text or part.calls or part.logprobs or part.relayed):
                            continue
                        if writer is None:
                            writer = exchange.writer()
                            exchange.is_sending = True
                        yield writer.part(part)
            await self._commit(exchange, draft.whole())
        except (OpenAiError, TimeoutError) as error:
            refused = error if isinstance(error, OpenAiError) else self._too_slow()
            exchange.has_failed |= isinstance(error, TimeoutError)
            if writer is None:
                raise refused from error
            self.abandon(exchange, answer_log.CUT)
            yield writer.failed(refused)
            return
        writer = writer or exchange.writer()
        exchange.is_sending = True
        yield writer.last(draft)

    def abandon(self, exchange: Exchange, finish: str) -> None:
        """Record what there is of an answer that ends early, unless its record is on its way."""
        workload, who = exchange.interaction.workload, exchange.who
        self.metrics.partial(workload, finish).inc()
        if exchange.is_logged or not exchange.request.is_stored or who is None:
            return
        exchange.is_logged = True
        exchange.draft.finish = finish
        self._log.write_later(
            exchange.interaction.client_id,
            answer_log.record(
                exchange.interaction,
                exchange.draft,
                exchange.draft.whole(),
                who,
                exchange.milliseconds(),
            ),
        )

    # Feedback and lists.

    async def take_feedback(
        self, request: Request, headers: Headers, otherwise: Callable[[bytes], bool]
    ) -> Obj | bytes:
        """Store feedback about an answer; return the response.

        Return the body itself if ``otherwise`` claims it. Raise ``OpenAiError``: 404 if the id is
        not one that this client was given.
        """
        token = self.desk.authorize(_text(headers, b"authorization"), "feedback")
        with self.desk.hold(token) as hold:
            content = await self.desk.read_body(request, token, hold, FEEDBACK_BYTES)
        if otherwise(content):
            return content
        workload, answer_id, record = answer_feedback.read(content, self._key, token)
        self.desk.count_bytes(token, len(content))
        await self.desk.write(spool.line("feedback", token.client_id, orjson.dumps(record)))
        self.desk.metrics.records.labels("feedback", token.client_id).inc()
        self.metrics.feedback(workload).inc()
        if self._rollout is not None:
            self._rollout.dislike(workload, answer_id, str(record["kind"]), record["value"])
        return {"object": "feedback", "response_id": answer_id, "workload": workload}

    def models(self, headers: Headers) -> Obj:
        """Return the workloads that a client may use, as OpenAI's list of models."""
        token = self.desk.authorize(_text(headers, b"authorization"), "interactions")
        return {
            "object": "list",
            "data": [self._workloads.describe(name) for name in self._workloads.names(token)],
        }

    def model(self, headers: Headers, name: str) -> Obj:
        """Return one workload; raise ``OpenAiError`` (404) if it is unknown."""
        token = self.desk.authorize(_text(headers, b"authorization"), "interactions")
        if name not in self._workloads.names(token):
            raise self._workloads.unknown(name, token)
        return self._workloads.describe(name)

    def routes(self, headers: Headers, status: Mapping[str, Json]) -> Obj:
        """Return who serves the workloads that a client may use, and what a status has of them."""
        token = self.desk.authorize(_text(headers, b"authorization"), "interactions")
        routes = cast("dict[str, Json]", self.current.routes.to_json()["routes"])
        served = {name: routes[name] for name in self._workloads.names(token) if name in routes}
        about: Json = visible_status(status, token)
        return {"object": "routes", "routes": served, "status": about}

    def unready(self) -> str | None:
        """Return why requests would fail; ``None`` if the gateway is ready."""
        names = {*self.current.routes, *self._workloads.elsewhere}
        if all(self.settings.logging_of(name) == "required" for name in names):
            return self._no_route() or self._log_failure()
        return self._no_route()

    def _no_route(self) -> str | None:
        if self._workloads.elsewhere:
            return None
        if not len(self.current.routes):
            return "no workload has a champion that is proved; see `flywheel serve status`"
        out = [
            name
            for name in self.current.routes
            if not any(
                replica in self.engines for replica in self.current.routes[name].champion.replicas
            )
        ]
        if len(out) == len(self.current.routes):
            return f"no replica is ready for {', '.join(out)}"
        return None

    def _require_turn(self, client_id: str) -> None:
        limits, clients = self.settings.limits, self._open
        if clients[client_id] >= max(1, int(limits.open_requests * limits.client_share)):
            raise OpenAiError(
                429,
                f"{clients[client_id]} requests of {client_id} are under way; send fewer at once",
                retry_after=engine_errors.RETRY_SECONDS,
            )
        if clients.total() >= limits.open_requests:
            raise OpenAiError(
                503,
                f"{limits.open_requests} requests are being answered; send it again",
                retry_after=engine_errors.RETRY_SECONDS,
            )

    async def _commit(self, exchange: Exchange, content: bytes) -> None:
        """Wait until the record of a whole answer is on disk."""
        interaction, draft, who = exchange.interaction, exchange.draft, exchange.who
        assert who is not None
        milliseconds = exchange.milliseconds()
        self.metrics.answer_seconds(interaction.workload).observe(milliseconds / 1000)
        self.metrics.tokens(interaction.workload, "prompt").inc(draft.prompt_tokens or 0)
        self.metrics.tokens(interaction.workload, "completion").inc(draft.completion_tokens or 0)
        await self._log_answer(exchange, content, milliseconds)
        self._observe(exchange, milliseconds)

    async def _log_answer(self, exchange: Exchange, content: bytes, milliseconds: float) -> None:
        interaction, draft, who = exchange.interaction, exchange.draft, exchange.who
        assert who is not None
        if not exchange.request.is_stored:
            self.metrics.unlogged(interaction.workload, "store").inc()
            return
        line = answer_log.record(interaction, draft, content, who, milliseconds)
        exchange.is_logged = True
        try:
            await self._log.write(interaction.client_id, line)
        except RefusedError as refused:
            if exchange.must_log:
                raise OpenAiError.of(refused) from refused
            self.metrics.unlogged(interaction.workload, "no_room").inc()

    def _observe(self, exchange: Exchange, milliseconds: float | None = None) -> None:
        """Note what a drawn request shows; an answer before its client sees the end."""
        if self._rollout is not None and exchange.draw is not None:
            self._rollout.observe(exchange, self._labels(exchange), milliseconds)

    def _labels(self, exchange: Exchange) -> Sequence[str]:
        return self.settings.workload(exchange.interaction.workload).labels

    def _shadow(self, exchange: Exchange) -> None:
        """Have another version answer, too, what a user was answered, if that is to be compared."""
        if self._rollout is None or exchange.draw is None:
            return
        shadow = self._rollout.shadow(exchange, self._labels(exchange))
        if shadow is None:
            return
        interaction = exchange.interaction

        async def compare() -> None:
            answered = await self._servers.answer_for_nobody(interaction, shadow.served)
            if answered is not None:
                shadow.compare(*answered)

        self._shadows.begin(self._open.total(), compare, shadow.shed)

    def _too_slow(self) -> OpenAiError:
        seconds = self.settings.limits.answer_seconds
        reason = f"the answer took more than {seconds:g} seconds; ask for less"
        return OpenAiError(504, reason, is_final=True)


def _busy_from(settings: ServeSettings) -> int:
    """Return the open requests from which on users are not to wait for shadows."""
    most = int(settings.limits.open_requests * SHADOWED_LOAD)
    engine = settings.engine
    return max(1, min(most, engine.slots // 2) if engine.kind == "embedded" else most)


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")
