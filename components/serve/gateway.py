"""The path of a request: token, workload, prompt, engine, answer, log.

A request reads its workload's route once, and is answered by that version or by what ``serve.yaml``
names as a fallback; never by the base alone. A workload without a champion is answered by the
OpenAI-compatible servers among its own fallbacks, if it has any.
"""

import asyncio
import logging
import random
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
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
    chat_answer,
    chat_request,
    engine_errors,
    replica_choice,
    response_id,
    served_prompt,
)
from components.serve.answer_log import Answerer, AnswerLog, Interaction
from components.serve.canary import answer_faults
from components.serve.canary.bad_events import BadKind
from components.serve.chat_answer import AnswerDraft, Chunks, VisiblePart
from components.serve.chat_request import ChatRequest, Endpoint, Obj, OpenAiError
from components.serve.engines.serving_engine import (
    Generation,
    ServingEngine,
    UpstreamError,
)
from components.serve.fallback_servers import FallbackServers
from components.serve.replica_choice import Attempt, ReplicaLoads
from components.serve.request_grammars import RequestGrammars
from components.serve.rollouts import Rollouts
from components.serve.routes import Current, Route, Served
from components.serve.running_rollout import ArmDraw
from components.serve.serve_metrics import ServeMetrics
from components.serve.served_prompt import ServedPrompt
from components.serve.served_workloads import ServedWorkloads
from components.serve.settings import ServeSettings
from components.serve.shadow_requests import ShadowRequests
from components.serve.streamed_answer import StreamedAnswer
from components.serve.visible_status import visible_status
from components.store import spool

LOG = logging.getLogger(__name__)

Headers = Mapping[bytes, bytes]

FEEDBACK_BYTES = 2**20
SHADOWED_LOAD = 0.05  # of the open requests that are allowed; with more there is no shadow

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(slots=True)
class Exchange:
    """A request that is being answered."""

    interaction: Interaction
    route: Route | None
    """``None`` for a workload without a champion, which another server answers."""
    began: float
    """``time.perf_counter()`` of its arrival."""
    must_log: bool
    draft: AnswerDraft
    held: ExitStack
    """The bytes of its body, which count until it ends."""
    who: Answerer | None = None
    """Who answers, or is about to."""
    is_sending: bool = False
    """Whether a byte was passed on: then nobody else may answer."""
    is_logged: bool = False
    """Whether the record is on its way to the disk."""
    draw: ArmDraw | None = None
    """Whose it is, while there is a canary."""
    reader: StreamedAnswer | None = None
    """What a version wrote; read again for the canary's evidence."""
    has_failed: bool = False
    """Whether the version of its arm failed to answer."""
    faults: frozenset[BadKind] | None = None
    """What is bad about the whole answer of its arm's version."""
    is_noted: bool = False
    """Whether it is in the canary's evidence."""

    @property
    def request(self) -> ChatRequest:
        """The checked request."""
        return self.interaction.request

    @property
    def epoch(self) -> int:
        """The route's epoch; 0 without a champion."""
        return self.route.epoch if self.route is not None else 0

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the response's headers that say who answers."""
        who = self.who
        headers = [(b"x-flywheel-epoch", b"%d" % self.epoch)]
        if who is not None:
            headers.append((b"x-flywheel-arm", who.arm.encode()))
            if who.served is not None:
                headers.append((b"x-flywheel-version", who.served.version.encode()))
        return headers


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
        rollouts: The canaries; without it only champions answer.
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
        rollouts: Rollouts | None = None,
    ) -> None:
        self._report, self._rollouts = report, rollouts
        self.settings, self.current, self.engines, self.desk = settings, current, engines, desk
        self.metrics = ServeMetrics()
        self._key = key
        self._log = AnswerLog(desk)
        self._loads = ReplicaLoads()
        self._open = Counter[str]()  # requests by client
        self._grammars = RequestGrammars()
        self._fallbacks = FallbackServers(settings, environment)
        self._workloads = ServedWorkloads(settings, current)
        self._shadows = ShadowRequests(_busy_from(settings))
        self.metrics.watch("open_requests", "Requests being answered.", self._open.total)
        self.metrics.watch("workloads", "Workloads with a route.", lambda: len(current.routes))
        if rollouts is not None:
            self.metrics.watch_rollouts(rollouts)
        self.metrics.watch(
            "can_log", "1 while answers can be logged: room and a working disk.", self._can_log
        )

    def use(self, settings: ServeSettings) -> None:
        """Answer by other settings from now on, but for what only a start reads."""
        kept = {name: getattr(self.settings, name) for name in ("engine", "swap", "only")}
        self.settings = settings = settings.model_copy(update=kept)
        self._fallbacks.use(settings)
        self._workloads.use(settings)
        self._shadows.busy_from = _busy_from(settings)

    async def close(self) -> None:
        """Write the records of partial answers, and close the connections to fallbacks."""
        await self._shadows.close()
        await self._log.close()
        await self._fallbacks.close()
        self._grammars.close()

    def _can_log(self) -> float:
        try:
            self.desk.require_health()
        except RefusedError:
            return 0.0
        return 1.0

    # The way in.

    async def open(self, request: Request, headers: Headers, endpoint: Endpoint) -> Exchange:
        """Check a request and count it under its workload's epoch; ``leave`` ends it.

        Raises:
            OpenAiError: It is refused.
            RefusedError: The receiver refuses it: token, quota, size, room.
        """
        began, timestamp = time.perf_counter(), time.time()
        token = self.desk.authorize(_text(headers, b"authorization"), "interactions")
        with ExitStack() as stack:
            hold = stack.enter_context(self.desk.hold(token))
            content = await self.desk.read_body(
                request, token, hold, self.settings.limits.body_bytes
            )
            interaction, must_log = self._interaction(content, token, headers, endpoint, timestamp)
            self._require_turn(token.client_id)
            route = self.current.enter(interaction.workload)
            if route is None and (
                endpoint != "chat" or interaction.workload not in self._workloads.elsewhere
            ):
                raise self._workloads.unknown(interaction.workload, token)
            held = stack.pop_all()
        self._open[token.client_id] += 1
        if self._shadows:
            self._shadows.make_room(self._open.total())
        draw = None
        if route is not None and route.canary is not None and self._rollouts is not None:
            draw = self._rollouts.draw(
                interaction.workload,
                route.canary,
                token.client_id,
                interaction.request,
                interaction.conversation_id,
            )
        draft = AnswerDraft(
            endpoint=endpoint,
            id=response_id.create(
                self._key,
                token.client_id,
                interaction.workload,
                "chatcmpl" if endpoint == "chat" else "cmpl",
                is_stored=interaction.request.is_stored,
            ),
            created=int(timestamp),
            has_logprobs=interaction.request.logprobs is not None,
        )
        return Exchange(interaction, route, began, must_log, draft, held, draw=draw)

    def _interaction(
        self, content: bytes, token: Token, headers: Headers, endpoint: Endpoint, timestamp: float
    ) -> tuple[Interaction, bool]:
        """Return a checked request, and whether its answer has to be logged."""
        reader = chat_request.read_chat if endpoint == "chat" else chat_request.read_completion
        chat = reader(content)
        workload = self._workloads.choose(chat, lambda name: _text(headers, name), token)
        chat_request.require_scope(token, workload, "model")
        must_log = chat.is_stored and self.settings.logging_of(workload) == "required"
        if must_log:
            self.desk.require_health()
        self.desk.count_bytes(token, len(content))
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
        )
        return interaction, must_log

    def leave(self, exchange: Exchange, status: int) -> None:
        """Count the end of a request that was answered with this HTTP status."""
        interaction, who = exchange.interaction, exchange.who
        self._note(exchange)
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
        if exchange.draw is not None:
            self._shadow(exchange)

    async def whole(self, exchange: Exchange) -> bytes:
        """Return the whole answer once its record is on disk; raise ``OpenAiError``."""
        draft = exchange.draft
        try:
            async with asyncio.timeout(self.settings.limits.answer_seconds):
                async with aclosing(self._parts(exchange)) as parts:
                    async for part in parts:
                        draft.add(part)
        except TimeoutError as error:
            exchange.has_failed = True
            raise self._too_slow() from error
        content = draft.whole()
        await self._commit(exchange, content)
        return content

    async def stream(self, exchange: Exchange) -> AsyncGenerator[bytes]:
        """Yield an answer's events; the last ones once its record is on disk.

        Raise ``OpenAiError`` before the first event only; later errors are events.
        """
        draft, chunks = exchange.draft, None
        try:
            async with asyncio.timeout(self.settings.limits.answer_seconds):
                async with aclosing(self._parts(exchange)) as parts:
                    async for part in parts:
                        draft.add(part)
                        if not (part.text or part.calls or part.logprobs):
                            continue
                        if chunks is None:
                            chunks = Chunks(draft, has_usage=exchange.request.has_usage)
                            exchange.is_sending = True
                        yield _chunk(chunks, draft, part)
            await self._commit(exchange, draft.whole())
        except (OpenAiError, TimeoutError) as error:
            refused = error if isinstance(error, OpenAiError) else self._too_slow()
            exchange.has_failed |= isinstance(error, TimeoutError)
            if not exchange.is_sending:
                raise refused from error
            self.abandon(exchange, answer_log.CUT)
            yield chat_answer.event(refused.body())
            return
        chunks = chunks or Chunks(draft, has_usage=exchange.request.has_usage)
        exchange.is_sending = True
        yield chunks.last(draft)

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
                _milliseconds_since(exchange.began),
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
        kind, value = str(record["kind"]), record["value"]
        if self._rollouts is not None and answer_faults.is_dislike(kind, value):
            self._rollouts.dislike(workload, answer_id)
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

    # Answering.

    async def _parts(self, exchange: Exchange) -> AsyncGenerator[VisiblePart]:
        """Yield the answer of the first who answers; raise ``OpenAiError`` if nobody does."""
        failed: list[str] = []
        last: UpstreamError | None = None
        is_canary = exchange.draw is not None and exchange.draw.arm == "canary"
        own_arm = "canary" if is_canary else "champion"
        attempts = replica_choice.attempts(
            exchange.route,
            self.settings.fallbacks_of(exchange.interaction.workload),
            self.engines,
            self._loads,
            is_chat=exchange.request.endpoint == "chat",
            is_canary=is_canary,
        )
        for attempt in attempts:
            self._begin(exchange, attempt, failed)
            self._loads.open[attempt.replica] += 1
            try:
                async with aclosing(self._answer(exchange, attempt)) as parts:
                    async for part in parts:
                        self._note_first(exchange)
                        yield part
                return  # noqa: TRY300 - the loop goes on after an error
            except OpenAiError:
                exchange.has_failed |= attempt.arm == own_arm
                raise
            except UpstreamError as error:
                exchange.has_failed |= attempt.arm == own_arm
                self.metrics.upstream_errors(attempt.replica, str(error.status)).inc()
                if attempt.engine is None:
                    LOG.warning("the fallback failed: %s", error.reason)
                elif error.is_retryable:
                    self._report(attempt.replica, error)
                if exchange.is_sending or not error.is_retryable:
                    raise engine_errors.to_client(error) from error
                if error.status >= 500:
                    self._loads.failed_at[attempt.replica] = time.monotonic()
                failed.append(attempt.replica)
                last = error
                exchange.draft.clear()
            finally:
                self._loads.open[attempt.replica] -= 1
        if last is not None:
            raise engine_errors.to_client(last) from last
        champion = exchange.route.champion.name if exchange.route else exchange.interaction.workload
        raise OpenAiError(
            503,
            f"no replica of {champion} is ready; send it again",
            retry_after=engine_errors.RETRY_SECONDS,
        )

    def _begin(self, exchange: Exchange, attempt: Attempt, failed: Sequence[str]) -> None:
        served, draft = attempt.served, exchange.draft
        exchange.who = Answerer(
            arm=attempt.arm,
            engine="openai" if served is None else self.settings.engine.kind,
            replica=attempt.replica,
            epoch=exchange.epoch,
            served=served,
            failed=tuple(failed),
            draw=exchange.draw.to_json() if exchange.draw is not None else None,
        )
        if served is not None:
            draft.model, draft.fingerprint = served.name, f"fp_{served.sha256[:12]}"
        elif attempt.fallback is not None:
            draft.model, draft.fingerprint = attempt.fallback.model, ""

    def _answer(self, exchange: Exchange, attempt: Attempt) -> AsyncGenerator[VisiblePart]:
        if attempt.fallback is not None:
            return self._fallbacks.ask(attempt.fallback, exchange.interaction, exchange.draft)
        assert attempt.served is not None
        assert attempt.engine is not None
        return self._ask_engine(exchange, attempt.served, attempt.engine)

    async def _ask_engine(
        self, exchange: Exchange, served: Served, engine: ServingEngine
    ) -> AsyncGenerator[VisiblePart]:
        request, draft = exchange.request, exchange.draft
        prompt = served_prompt.render(request, served)
        generation = await self._generation(exchange.interaction, served, prompt)
        answer = exchange.reader = StreamedAnswer(prompt.form, reads_calls=request.may_call)
        is_raw = request.endpoint == "completion"
        async with aclosing(engine.complete(served.model, generation)) as pieces:
            async for piece in pieces:
                text, calls = piece.text, ()
                if not is_raw:
                    delta = answer.feed(text)
                    text, calls = delta.text, delta.calls
                    if piece.finish is not None:
                        rest = answer.finish(is_cut=piece.finish == "length")
                        text, calls = text + rest.text, calls + rest.calls
                if calls and not request.is_parallel:
                    calls = () if draft.calls else calls[:1]
                if piece.finish is not None:
                    is_call = bool(draft.calls or calls) and piece.finish == "stop"
                    draft.finish = "tool_calls" if is_call else piece.finish
                    draft.prompt_tokens = piece.prompt_tokens
                    draft.completion_tokens = piece.completion_tokens
                yield VisiblePart(
                    text, chat_answer.tool_calls(calls) if calls else (), piece.logprobs
                )

    async def _generation(
        self, interaction: Interaction, served: Served, prompt: ServedPrompt
    ) -> Generation:
        request, own = interaction.request, self.settings.workload(interaction.workload)
        return Generation(
            prompt=prompt.text,
            max_tokens=min(
                request.max_tokens or served.max_new_tokens, self.settings.limits.max_tokens
            ),
            stop=request.stop,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            logprobs=request.logprobs,
            grammar=await self._grammars.of_request(request, own, served, prompt.form),
            is_streamed=request.is_streamed,
            traceparent=interaction.traceparent,
        )

    def _note_first(self, exchange: Exchange) -> None:
        if exchange.who is not None and exchange.who.ttft_ms is None:
            milliseconds = _milliseconds_since(exchange.began)
            exchange.who.ttft_ms = round(milliseconds, 3)
            workload = exchange.interaction.workload
            self.metrics.first_token_seconds(workload).observe(milliseconds / 1000)

    async def _commit(self, exchange: Exchange, content: bytes) -> None:
        """Wait until the record of a whole answer is on disk."""
        interaction, draft, who = exchange.interaction, exchange.draft, exchange.who
        assert who is not None
        milliseconds = _milliseconds_since(exchange.began)
        self.metrics.answer_seconds(interaction.workload).observe(milliseconds / 1000)
        self.metrics.tokens(interaction.workload, "prompt").inc(draft.prompt_tokens or 0)
        self.metrics.tokens(interaction.workload, "completion").inc(draft.completion_tokens or 0)
        await self._log_answer(exchange, content, milliseconds)
        self._note(exchange, milliseconds)

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

    def _note(self, exchange: Exchange, milliseconds: float | None = None) -> None:
        """Write what a request shows about its arm; an answer before its client sees the end.

        ``milliseconds`` of a whole answer; ``None`` if there is none. A fallback's answer is
        neither arm's.
        """
        draw, who = exchange.draw, exchange.who
        if draw is None or exchange.is_noted or self._rollouts is None:
            return
        exchange.is_noted = True
        workload, is_own = exchange.interaction.workload, who is not None and who.arm == draw.arm
        kinds = set[BadKind]({"error"} if exchange.has_failed else ())
        if is_own and milliseconds is not None:
            assert who is not None
            assert who.served is not None
            reader, text = exchange.reader, "".join(exchange.draft.text)
            if exchange.request.endpoint == "chat" and reader is not None:
                text = reader.raw  # with its calls, as the model wrote them
            exchange.faults = self._faults(
                exchange.interaction, who.served, text, exchange.draft.finish
            )
            kinds |= exchange.faults
        if is_own and not exchange.has_failed:
            # Of an answer that its client did not wait for, it is known how long it took at least.
            lasted = milliseconds or _milliseconds_since(exchange.began)
            if self._rollouts.is_slow(workload, exchange.draft.prompt_tokens, lasted):
                kinds.add("slow")
        self._rollouts.note(workload, draw, kinds, exchange.draft.id if is_own else None)

    def _faults(
        self, interaction: Interaction, served: Served, text: str, finish: str | None
    ) -> frozenset[BadKind]:
        labels = self.settings.workload(interaction.workload).labels or served.labels
        return answer_faults.faults(interaction.request, served.form, text, finish, labels)

    # Shadows.

    def _shadow(self, exchange: Exchange) -> None:
        """Have the canary's version answer, too, what the champion has answered."""
        draw, route, rollouts = exchange.draw, exchange.route, self._rollouts
        canary = route.canary if route else None
        if draw is None or canary is None or rollouts is None or exchange.faults is None:
            return
        workload, faults = exchange.interaction.workload, exchange.faults
        share = rollouts.shadow_share(workload, draw)
        if draw.arm != "champion" or not exchange.request.is_stored or random.random() >= share:
            return
        interaction = exchange.interaction

        async def compare() -> None:
            shadowed = await self._answer_for_nobody(interaction, canary.served)
            if shadowed is not None:
                rollouts.note_pair(workload, draw, shadowed, faults)

        def shed() -> None:
            rollouts.shed[workload] += 1

        self._shadows.begin(self._open.total(), compare, shed)

    async def _answer_for_nobody(
        self, interaction: Interaction, served: Served
    ) -> frozenset[BadKind] | None:
        """Return what is bad about a version's answer; ``None`` if an engine fails.

        It is in no log: it is no traffic, and nobody trains on it.
        """
        names = self._loads.order([name for name in served.replicas if name in self.engines])
        if not names:
            return None
        text, finish = list[str](), None
        self._loads.open[names[0]] += 1
        try:
            async with asyncio.timeout(self.settings.limits.answer_seconds):
                prompt = served_prompt.render(interaction.request, served)
                generation = await self._generation(interaction, served, prompt)
                engine = self.engines[names[0]]
                async with aclosing(engine.complete(served.model, generation)) as pieces:
                    async for piece in pieces:
                        text.append(piece.text)
                        finish = piece.finish or finish
        except (UpstreamError, OpenAiError, TimeoutError):
            return None
        finally:
            self._loads.open[names[0]] -= 1
        if finish is None:
            return None
        return self._faults(interaction, served, "".join(text), finish)

    def _too_slow(self) -> OpenAiError:
        seconds = self.settings.limits.answer_seconds
        return OpenAiError(504, f"the answer took more than {seconds:g} seconds; ask for less")


def _chunk(chunks: Chunks, draft: AnswerDraft, part: VisiblePart) -> bytes:
    logprobs: Json = None
    if part.logprobs:
        writer = (
            chat_answer.chat_logprobs
            if draft.endpoint == "chat"
            else chat_answer.completion_logprobs
        )
        logprobs = writer(part.logprobs)
    first = len(draft.calls) - len(part.calls)
    return chunks.delta(part.text, part.calls, first_call=first, logprobs=logprobs)


def _busy_from(settings: ServeSettings) -> int:
    """Return the open requests from which on users are not to wait for shadows."""
    most = int(settings.limits.open_requests * SHADOWED_LOAD)
    engine = settings.engine
    return max(1, min(most, engine.slots // 2) if engine.kind == "embedded" else most)


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _milliseconds_since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
