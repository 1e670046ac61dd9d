"""The HTTP routes: the part of vLLM's that serving uses (completions, adapters, models, health)."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any, cast

import orjson
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client import Counter as CounterMetric
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from components.chat.grammar_processes import BusyCompilerError, GrammarProcesses
from components.extensions.embedded.answer_text import AnswerText
from components.extensions.embedded.attached_lora import AttachedLora
from components.extensions.embedded.completion_answer import CompletionWriter
from components.extensions.embedded.completion_request import CompletionRequest, StructuredOutputs
from components.extensions.embedded.compute_thread import ComputeThread, Parts
from components.extensions.embedded.continuous_batch import (
    AnswerRequest,
    ContinuousBatch,
    RunningAnswer,
)
from components.extensions.embedded.lora_folder import UnservableAdapterError
from components.extensions.embedded.prompt_tokens import PromptError, PromptReader
from components.extensions.embedded.sampling import Sampler, SamplingSettings
from components.extensions.embedded.served_models import ModelNotFoundError, ServedModels
from components.extensions.embedded.shared_base import SharedBase
from components.models import base as bases
from components.models.constrained import Matcher, Vocabulary
from components.schema import Json
from components.worker_processes import ClientTurns

MAX_BODY = 16 * 2**20  # bytes of a request's body
RETRY_SECONDS = 1  # what a refused client is advised to wait

TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    413: "BadRequestError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


class RejectedRequestError(Exception):
    """A request is answered with an error."""

    def __init__(self, status: int, reason: str, param: str | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.param = status, reason, param


class EngineServer:
    """The routes over one batch; ``queue`` is how many requests may wait for a slot.

    ``client_share`` is the part of all requests that may be of one ``user``. ``on_failure`` is
    called when nothing is computed any more.
    """

    def __init__(
        self,
        models: ServedModels,
        batch: ContinuousBatch,
        *,
        slots: int,
        queue: int,
        client_share: float,
        threads: int,
        on_failure: Callable[[], object] = lambda: None,
    ) -> None:
        self.models, self.batch, self._on_failure = models, batch, on_failure
        self.most_open, self.slots, self.threads = slots + queue, slots, threads
        self.most_each = max(1, int(self.most_open * client_share))
        self.open = Counter[str | None]()  # requests by user
        self._prompts = PromptReader(models.base)
        self._grammars = GrammarProcesses()
        self._compiling = ClientTurns()
        tokenizer = models.base.tokenizer
        self._ends = bases.end_tokens(models.base.model, tokenizer)
        # It takes more than a second without letting other threads run, so not with a request.
        self._vocabulary = _vocabulary(models.base, self._ends)
        self._decode = _decoder(tokenizer)
        self._special: dict[str, int] = dict(getattr(tokenizer, "added_tokens_encoder", {}))
        settings = models.base.model.generation_config
        self._penalty: float = getattr(settings, "repetition_penalty", None) or 1.0
        self.app = Starlette(
            routes=[
                Route("/v1/completions", self._guarded(self._complete), methods=["POST"]),
                Route("/v1/load_lora_adapter", self._guarded(self._load), methods=["POST"]),
                Route("/v1/unload_lora_adapter", self._guarded(self._unload), methods=["POST"]),
                Route("/v1/models", self._list),
                Route("/health", self._health),
                Route("/version", _version),
                Route("/metrics", self._metrics),
            ],
            lifespan=self._lifespan,
            exception_handlers={404: _no_route, 405: _no_route, 500: _failed},
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        loop = self._loop = asyncio.get_running_loop()
        self.thread = ComputeThread(self.batch, loop, self.threads, self._on_failure)
        try:
            yield
        finally:
            await self._grammars.close()
            await asyncio.to_thread(self.thread.stop)

    def end(self) -> None:
        """Begin to end, from any thread: what waits for its grammar is refused."""
        asyncio.run_coroutine_threadsafe(self._grammars.close(), self._loop)

    def _guarded(self, endpoint: Callable[[dict[str, Json]], Any]) -> Callable[[Request], Any]:
        async def answered(request: Request) -> Response:
            try:
                return await endpoint(await _body(request))
            except RejectedRequestError as error:
                return _error(error.status, error.reason, error.param)
            except ModelNotFoundError as error:
                return _error(404, str(error), "model")
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                place = ".".join(map(str, first["loc"])) or None
                return _error(400, f"{place or 'the request'}: {first['msg']}", place)

        return answered

    async def _complete(self, body: dict[str, Json]) -> Response:
        asked = CompletionRequest.model_validate(body)
        adapter = self.models.find(asked.model)
        self._require_room(asked.user)
        # Between here and the answer's end, the request counts.
        self.open[asked.user] += 1
        try:
            request = self._request(asked, await self._prompts.read(asked))
            matcher = await self._matcher(asked.user or "", asked.structured_outputs)
            parts: Parts = asyncio.Queue()
            answer = self._running(request, adapter, matcher, parts, asked.user or "")
            writer = self._writer(asked, request)
            response = _CompletionResponse(self, asked, answer, parts, writer)
        except BaseException as error:
            self._leave(asked.user)
            if isinstance(error, PromptError):
                raise RejectedRequestError(400, str(error), "prompt") from error
            raise
        self.thread.add(answer)
        return response

    def _require_room(self, user: str | None) -> None:
        if self.open.total() >= self.most_open:
            raise RejectedRequestError(
                503,
                f"{self.open.total()} requests are running or waiting, which is all there is room "
                "for",
            )
        if user is not None and self.open[user] >= self.most_each:
            raise RejectedRequestError(
                429,
                f"{self.open[user]} requests of this user are running or waiting, which is all "
                "that one may have; send fewer at once",
            )

    def _leave(self, user: str | None) -> None:
        self.open[user] -= 1
        if not self.open[user]:
            del self.open[user]

    def closed(self, user: str | None, answer: RunningAnswer, *, is_finished: bool) -> None:
        """Count an answer that ended, or whose client is gone."""
        self._leave(user)
        if not is_finished:
            self.thread.cancel(answer)

    def _request(self, asked: CompletionRequest, prompt: list[int]) -> AnswerRequest:
        context = self.models.base.context
        rest = max(1, context - len(prompt))
        most = rest if asked.max_tokens is None else asked.max_tokens
        if len(prompt) + most > context:
            raise RejectedRequestError(
                400,
                f"This model's maximum context length is {context} tokens. However, you requested "
                f"{len(prompt) + most} tokens ({len(prompt)} in the prompt, {most} in the "
                "completion). Please reduce the length of the prompt or completion.",
                "prompt",
            )
        stops = [stop for stop in asked.stops if stop]
        ends = frozenset(() if asked.ignore_eos else self._ends)
        # A stop string that is a special token does not appear in the text.
        special = {self._special[stop] for stop in stops if stop in self._special}
        scores_prompt = asked.prompt_logprobs
        if asked.echo and asked.logprobs is not None:
            scores_prompt = max(scores_prompt or 0, asked.logprobs)
        return AnswerRequest(
            prompt=tuple(prompt),
            max_tokens=most,
            ends=ends | special | frozenset(asked.stop_token_ids or ()),
            stops=tuple(stops),
            sampling=SamplingSettings(
                temperature=1.0 if asked.temperature is None else asked.temperature,
                top_p=1.0 if asked.top_p is None else asked.top_p,
                seed=None if asked.seed is None else asked.seed % 2**64,
                repetition_penalty=asked.repetition_penalty or self._penalty,
            ),
            logprobs=asked.logprobs,
            prompt_logprobs=scores_prompt,
            shows_special_tokens=not asked.skip_special_tokens,
        )

    async def _matcher(self, user: str, outputs: StructuredOutputs | None) -> Matcher | None:
        if outputs is None:
            return None
        try:
            if isinstance(self._vocabulary, ValueError):
                raise self._vocabulary
            grammar = await self._grammars.compile(user, _task(outputs))
            # Again, with the tokens: at most twice as long, without Python's lock.
            async with self._compiling.turn(user):
                return await asyncio.to_thread(self._vocabulary.start, grammar or "")
        except BusyCompilerError as error:
            raise RejectedRequestError(
                429 if error.is_share else 503, str(error), "structured_outputs"
            ) from error
        except ValueError as error:  # what is wrong with the grammar, schema or choices
            raise RejectedRequestError(400, str(error), "structured_outputs") from error

    def _running(
        self,
        request: AnswerRequest,
        adapter: AttachedLora | None,
        matcher: Matcher | None,
        parts: Parts,
        client: str,
    ) -> RunningAnswer:
        shown = request.shows_special_tokens
        return RunningAnswer(
            request,
            adapter,
            matcher,
            self.thread.deliver_to(parts),
            AnswerText(lambda tokens: self._decode(tokens, not shown), request.stops),
            Sampler(request.sampling),
            client,
        )

    def _writer(self, asked: CompletionRequest, request: AnswerRequest) -> CompletionWriter:
        prompt = request.prompt
        return CompletionWriter(
            asked.model,
            prompt,
            lambda token: self._decode([token], False),
            asked.logprobs is not None,
            echo=self._decode(prompt, asked.skip_special_tokens) if asked.echo else None,
        )

    async def _load(self, body: dict[str, Json]) -> Response:
        name, path = body.get("lora_name"), body.get("lora_path")
        if not (isinstance(name, str) and name and isinstance(path, str) and path):
            raise RejectedRequestError(400, "Both 'lora_name' and 'lora_path' must be provided.")
        try:
            await self.models.load(name, path)
        except UnservableAdapterError as error:
            raise RejectedRequestError(400, str(error)) from error
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, body: dict[str, Json]) -> Response:
        name = body.get("lora_name")
        if not isinstance(name, str) or not name:
            raise RejectedRequestError(
                400, "'lora_name' needs to be provided to unload a LoRA adapter."
            )
        adapter, is_shared = self.models.remove(name)
        self.thread.forget(adapter, is_shared=is_shared)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def _list(self, _: Request) -> Response:
        models, context = self.models, self.models.base.context
        entry = {"object": "model", "owned_by": "flywheel", "max_model_len": context}
        base = {"id": models.name, "root": str(models.folder), "parent": None}
        adapters = [
            {"id": adapter.name, "root": adapter.root, "parent": models.name}
            for adapter in models.adapters.values()
        ]
        return JSONResponse(
            {
                "object": "list",
                "data": [model | entry for model in (base, *adapters)],
            }
        )

    async def _health(self, _: Request) -> Response:
        return Response(status_code=503 if self.thread.has_failed else 200)

    async def _metrics(self, _: Request) -> Response:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        waiting, counts = len(self.batch.waiting), self.batch.counts
        for name, help_text, amount in (
            ("requests_running", "Requests in slots.", len(self.batch.running)),
            ("requests_waiting", "Requests that wait for a slot.", waiting),
            ("adapters", "Adapters in memory.", len(self.models.adapters)),
            ("stored_prefix_bytes", "Kept keys and values.", self.batch.store.bytes),
        ):
            Gauge(f"embedded_{name}", help_text, registry=registry).set(amount)
        for name, help_text, amount in (
            ("answers", "Answers that ended.", counts.answers),
            ("steps", "Steps computed.", counts.steps),
            ("prompt_tokens", "Prompt tokens computed.", counts.prompt_tokens),
            ("cached_prompt_tokens", "Prompt tokens that were kept.", counts.cached_prompt_tokens),
            ("answer_tokens", "Answer tokens computed.", counts.answer_tokens),
        ):
            CounterMetric(f"embedded_{name}", help_text, registry=registry).inc(amount)
        return PlainTextResponse(generate_latest(registry))


class _CompletionResponse(Response):
    """An answer, whole or in chunks; a client that closes its connection cancels it."""

    def __init__(
        self,
        server: EngineServer,
        asked: CompletionRequest,
        answer: RunningAnswer,
        parts: Parts,
        writer: CompletionWriter,
    ) -> None:
        self.server, self.asked, self.answer = server, asked, answer
        self.parts, self.writer = parts, writer
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._stream(send) if self.asked.stream else self._whole())
        gone = asyncio.ensure_future(_disconnected(receive))
        is_finished = False
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                is_finished = True
                response = work.result()
                if response is not None:
                    await response(scope, receive, send)
        finally:
            work.cancel()
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await work
            self.server.closed(self.asked.user, self.answer, is_finished=is_finished)

    async def _whole(self) -> Response:
        parts = [await self.parts.get()]
        while parts[-1].finish is None:
            parts.append(await self.parts.get())
        if parts[-1].finish == "error":
            return _error(500, parts[-1].problem)
        scores_prompt = self.asked.prompt_logprobs is not None
        return JSONResponse(self.writer.whole(parts, scores_prompt=scores_prompt))

    async def _stream(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        headers += [(b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            part = await self.parts.get()
            if part.finish == "error":
                await _send_event(send, _error_body(500, part.problem))
                break
            if part.text or part.scores or part.finish or self.writer.echo:
                await _send_event(send, self.writer.chunk(part))
            else:
                self.writer.completion_tokens += len(part.tokens)
            if part.finish:
                if self.asked.stream_options and self.asked.stream_options.include_usage:
                    await _send_event(send, self.writer.last_chunk())
                break
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _send_event(send: Send, body: Mapping[str, Json]) -> None:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    chunk = f"data: {text}\n\n".encode()
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> dict[str, Json]:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY:
            raise RejectedRequestError(413, f"the body is longer than {MAX_BODY} bytes")
    try:
        body = orjson.loads(content)  # without NaN and lone surrogates, which no answer could have
    except ValueError as error:
        raise RejectedRequestError(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise RejectedRequestError(400, f"expected a JSON object, found {type(body).__name__}")
    return cast("dict[str, Json]", body)


def _task(outputs: StructuredOutputs) -> bytes:
    if outputs.grammar is not None:
        return orjson.dumps({"grammar": outputs.grammar})
    if outputs.choice is not None:
        return orjson.dumps({"labels": outputs.choice})
    schema = outputs.json_schema
    schema = orjson.loads(schema) if isinstance(schema, str) else schema
    form = {"type": "json_schema", "json_schema": {"name": "_", "schema": schema}}
    return orjson.dumps({"form": "written", "tools": [], "response_format": form})


def _error(status: int, reason: str, param: str | None = None) -> Response:
    headers = {"retry-after": str(RETRY_SECONDS)} if status in (429, 503) else None
    return JSONResponse(_error_body(status, reason, param), status, headers)


def _error_body(status: int, reason: str, param: str | None = None) -> dict[str, Json]:
    kind = TYPES.get(status, "BadRequestError")
    return {"error": {"message": reason, "type": kind, "param": param, "code": status}}


async def _no_route(request: Request, error: Exception) -> Response:
    status = cast("int", getattr(error, "status_code", 404))
    return _error(status, f"there is no {request.method} {request.url.path}")


async def _failed(_: Request, error: Exception) -> Response:
    return _error(500, f"the engine failed: {type(error).__name__}")  # uvicorn logs the rest


async def _version(_: Request) -> Response:
    return JSONResponse({"version": version("lora-flywheel"), "engine": "embedded"})


def _vocabulary(base: SharedBase, ends: Sequence[int]) -> Vocabulary | ValueError:
    try:
        return Vocabulary(base.tokenizer, base.vocabulary, ends)
    except ValueError as error:  # its answers can't be constrained
        return error


def _decoder(tokenizer: Any) -> Callable[[Sequence[int], bool], str]:  # noqa: ANN401 - untyped
    backend = getattr(tokenizer, "backend_tokenizer", None)
    cleans = getattr(tokenizer, "clean_up_tokenization_spaces", False)
    decode = tokenizer.decode if backend is None or cleans else backend.decode  # ten times as fast

    def decoded(tokens: Sequence[int], skips_special: bool) -> str:
        return decode(list(tokens), skip_special_tokens=skips_special)

    return decoded
