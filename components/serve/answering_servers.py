"""Who may answer a request, in order: a replica of the champion, then what ``serve.yaml`` names.

A canary's request goes to all replicas of the canary first, and then to the champion's.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from components.receive.settings import RefusedError
from components.serve import chat_answer, engine_errors
from components.serve.answer_log import AnswerArm, Answerer, Interaction
from components.serve.chat_answer import VisiblePart
from components.serve.engines.serving_engine import Generation, ServingEngine, UpstreamError
from components.serve.exchange import Exchange
from components.serve.fallback_servers import FallbackServers
from components.serve.openai_error import OpenAiError
from components.serve.request_grammars import RequestGrammars
from components.serve.request_processes import RequestProcesses
from components.serve.routes import Route, Served
from components.serve.serve_metrics import ServeMetrics
from components.serve.served_prompt import ServedPrompt
from components.serve.settings import Fallback, OpenAiFallback, ServeSettings
from components.serve.streamed_answer import StreamedAnswer

LOG = logging.getLogger(__name__)

COOL_SECONDS = 5.0  # a replica that has just failed is tried last for this long


@dataclass(frozen=True, slots=True)
class Attempt:
    """Somebody who may answer: a version on a replica, or an OpenAI-compatible server."""

    arm: AnswerArm
    replica: str
    served: Served | None = None
    engine: ServingEngine | None = None
    fallback: OpenAiFallback | None = None


@dataclass(slots=True)
class ReplicaLoads:
    """Open requests by replica, and when each last failed."""

    open: Counter[str] = field(default_factory=Counter[str])
    failed_at: dict[str, float] = field(default_factory=dict[str, float])
    turn: int = 0

    def order(self, names: Sequence[str]) -> list[str]:
        """Return replicas, the best first: not just failed, few open requests, in turn."""
        if len(names) < 2:
            return list(names)
        self.turn += 1
        start = self.turn % len(names)
        recent = time.monotonic() - COOL_SECONDS
        return sorted(
            [*names[start:], *names[:start]],
            key=lambda name: (self.failed_at.get(name, 0.0) > recent, self.open[name]),
        )


def attempts(
    route: Route | None,
    fallbacks: Sequence[Fallback],
    engines: Mapping[str, ServingEngine],
    loads: ReplicaLoads,
    *,
    is_canary: bool = False,
) -> Iterator[Attempt]:
    """Yield who may answer.

    ``route`` is ``None`` for a workload without a champion. ``is_canary``: the canary's version is
    to answer, and all others are fallbacks.
    """

    def of_version(arm: AnswerArm, served: Served) -> list[Attempt]:
        names = loads.order([name for name in served.replicas if name in engines])
        return [Attempt(arm, name, served, engines[name]) for name in names]

    if is_canary and route is not None and route.canary is not None:
        yield from of_version("canary", route.canary.served)
    own_arm: AnswerArm = "fallback" if is_canary else "champion"
    champion = of_version(own_arm, route.champion) if route else []
    yield from champion[:1]
    for fallback in fallbacks:
        match fallback:
            case "replica":
                yield from champion[1:]
            case "previous":
                if route and route.previous is not None:
                    yield from of_version("fallback", route.previous)
            case OpenAiFallback():
                yield Attempt("fallback", fallback.name, fallback=fallback)


class AnsweringServers:
    """The replicas and fallbacks of a gateway.

    Args:
        settings: The file ``serve.yaml``.
        engines: The replicas by name.
        requests: Renders prompts.
        environment: The environment variables, for the keys of fallbacks.
        metrics: Counts failures, and times first tokens.
        report: Called with each failure of a replica.
    """

    def __init__(
        self,
        settings: ServeSettings,
        engines: Mapping[str, ServingEngine],
        requests: RequestProcesses,
        environment: Mapping[str, str],
        metrics: ServeMetrics,
        report: Callable[[str, UpstreamError], None],
    ) -> None:
        self._settings, self._engines = settings, engines
        self._metrics, self._report = metrics, report
        self._loads = ReplicaLoads()
        self._client_key = secrets.token_bytes(16)
        self._grammars = RequestGrammars()
        self._requests = requests
        self._fallbacks = FallbackServers(settings, environment)

    async def close(self) -> None:
        """Close the connections to fallbacks, and end the processes."""
        await self._fallbacks.close()
        await self._grammars.close()

    async def end(self) -> None:
        """Let nobody wait for a grammar any more."""
        await self._grammars.close()

    async def parts(self, exchange: Exchange) -> AsyncGenerator[VisiblePart]:
        """Yield the answer of the first who answers; raise ``OpenAiError`` if nobody does."""
        failed: list[str] = []
        last: OpenAiError | None = None
        is_refused = not exchange.request.is_checked  # by what versions can read
        is_canary = exchange.draw is not None and exchange.draw.arm == "canary"
        own_arm = "canary" if is_canary else "champion"
        reads_alike = exchange.route is not None and exchange.route.reads_alike
        candidates = attempts(
            exchange.route,
            self._settings.fallbacks_of(exchange.interaction.workload),
            self._engines,
            self._loads,
            is_canary=is_canary,
        )
        for attempt in candidates:
            if is_refused and attempt.fallback is None:
                continue
            self._begin(exchange, attempt, failed)
            self._loads.open[attempt.replica] += 1
            try:
                async with aclosing(self._answer(exchange, attempt)) as parts:
                    async for part in parts:
                        self._note_first(exchange)
                        yield part
                return  # noqa: TRY300 - the loop goes on after an error
            except OpenAiError as error:  # by the template, or the grammar
                exchange.has_failed |= attempt.arm == own_arm and not reads_alike
                if exchange.is_sending:
                    raise
                last, is_refused = error, True
            except UpstreamError as error:
                is_own_fault = not (reads_alike and engine_errors.is_too_long(error))
                exchange.has_failed |= attempt.arm == own_arm and is_own_fault
                self._metrics.upstream_errors(attempt.replica, str(error.status)).inc()
                if attempt.engine is None:
                    what = error.reason if error.answer is None else error.status  # no texts
                    LOG.warning("the fallback %s failed: %s", attempt.replica, what)
                elif error.is_retryable:
                    self._report(attempt.replica, error)
                is_ours = attempt.fallback is None
                last = (engine_errors.to_client if is_ours else engine_errors.passed_on)(error)
                if exchange.is_sending or not (error.is_retryable or is_ours):
                    raise last from error
                if error.status >= 500:
                    self._loads.failed_at[attempt.replica] = time.monotonic()
                if error.is_retryable:
                    failed.append(attempt.replica)
                is_refused |= not error.is_retryable
                exchange.draft.clear()
            except RefusedError as refused:  # no memory for another server's answer
                raise OpenAiError.of(refused) from refused
            finally:
                self._loads.open[attempt.replica] -= 1
        if last is not None:
            raise last
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
            engine="openai" if served is None else self._settings.engine.kind,
            replica=attempt.replica,
            epoch=exchange.epoch,
            served=served,
            failed=tuple(failed),
            draw=exchange.draw.to_json() if exchange.draw is not None else None,
        )
        has_canary = exchange.route is not None and exchange.route.canary is not None
        # Whoever knew which version answers could have one arm disliked.
        draft.alias = exchange.interaction.workload if served is not None and has_canary else None
        if served is not None:
            draft.model, draft.fingerprint = served.name, f"fp_{served.sha256[:12]}"
        elif attempt.fallback is not None:
            draft.model, draft.fingerprint = attempt.fallback.model, ""

    def _answer(self, exchange: Exchange, attempt: Attempt) -> AsyncGenerator[VisiblePart]:
        if attempt.fallback is not None:
            return self._fallbacks.ask(
                attempt.fallback, exchange.interaction, exchange.draft, exchange.hold.take
            )
        assert attempt.served is not None
        assert attempt.engine is not None
        return self._ask_engine(exchange, attempt.served, attempt.engine)

    async def _ask_engine(
        self, exchange: Exchange, served: Served, engine: ServingEngine
    ) -> AsyncGenerator[VisiblePart]:
        request, draft = exchange.request, exchange.draft
        prompt = await self._requests.render(exchange.interaction, served)
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
                logprobs = piece.logprobs
                if not is_raw:
                    logprobs = chat_answer.with_most_probable(logprobs, request.logprobs or 0)
                yield VisiblePart(text, chat_answer.tool_calls(calls) if calls else (), logprobs)

    async def _generation(
        self, interaction: Interaction, served: Served, prompt: ServedPrompt
    ) -> Generation:
        request, own = interaction.request, self._settings.workload(interaction.workload)
        return Generation(
            prompt=prompt.text,
            max_tokens=min(
                request.max_tokens or served.max_new_tokens, self._settings.limits.max_tokens
            ),
            stop=request.stop,
            # A nucleus of nothing is the most probable token; engines refuse a `top_p` of 0.
            temperature=request.temperature if request.top_p else 0.0,
            top_p=request.top_p or 1.0,
            seed=request.seed,
            logprobs=request.logprobs,
            grammar=await self._grammars.of_request(
                interaction.client_id, request, own, served, prompt.form
            ),
            is_streamed=request.is_streamed,
            traceparent=interaction.traceparent,
            client=hashlib.blake2b(
                interaction.client_id.encode(), key=self._client_key, digest_size=8
            ).hexdigest(),
        )

    def _note_first(self, exchange: Exchange) -> None:
        if exchange.who is not None and exchange.who.ttft_ms is None:
            milliseconds = exchange.milliseconds()
            exchange.who.ttft_ms = round(milliseconds, 3)
            workload = exchange.interaction.workload
            self._metrics.first_token_seconds(workload).observe(milliseconds / 1000)

    async def answer_for_nobody(
        self, interaction: Interaction, served: Served
    ) -> tuple[str, str] | None:
        """Return what a version writes and why it ended; ``None`` if an engine fails.

        It is in no log: it is no traffic, and nobody trains on it.
        """
        names = self._loads.order([name for name in served.replicas if name in self._engines])
        if not names:
            return None
        text, finish = list[str](), None
        self._loads.open[names[0]] += 1
        try:
            async with asyncio.timeout(self._settings.limits.answer_seconds):
                prompt = await self._requests.render(interaction, served)
                generation = await self._generation(interaction, served, prompt)
                engine = self._engines[names[0]]
                async with aclosing(engine.complete(served.model, generation)) as pieces:
                    async for piece in pieces:
                        text.append(piece.text)
                        finish = piece.finish or finish
        except (UpstreamError, OpenAiError, TimeoutError):
            return None
        finally:
            self._loads.open[names[0]] -= 1
        return None if finish is None else ("".join(text), finish)
