"""vLLM's OpenAI-compatible server with ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1``.

The embedded engine speaks the same part of its API.
"""

import re
import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Literal, cast

from components.schema import Json
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.replica_client import ReplicaClient
from components.serve.engines.serving_engine import (
    AnswerPiece,
    EngineNeeds,
    Generation,
    LoadedModel,
    Probe,
    TokenLogprob,
    UpstreamError,
    token_count,
)

OLDEST = (0, 32)
"""Before it, a request under way could be answered with another adapter after a load (vllm#47724),
and an adapter's name could replace the base's."""

LOAD_SECONDS = 120.0
CONTROL_SECONDS = 10.0

_START_TIME = re.compile(r"^process_start_time_seconds(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_MAX_LORA = re.compile(r'^vllm:lora_requests_info\{[^}]*max_lora="(\d+)"', re.MULTILINE)

FINISHES: Mapping[Json, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}


class VllmServer(ReplicaClient):
    """One replica; ``oldest`` is the first accepted version of vLLM, ``None`` for other servers."""

    def __init__(
        self,
        name: str,
        upstream: HttpUpstream,
        *,
        base: str | None = None,
        oldest: tuple[int, int] | None = OLDEST,
        adapters: Path | None = None,
    ) -> None:
        super().__init__(name, upstream, base=base, adapters=adapters)
        self._oldest = oldest

    async def preflight(self, needs: EngineNeeds) -> list[str]:
        """Return why it is not fit to serve."""
        await self.read_base()
        return [
            *(await self._version_objections()),
            *(await self._room_objections(needs)),
            *(await self._route_objections()),
            *(await invented_name_objections(self)),
        ]

    async def process_identity(self) -> str:
        """Return the start time of its process; raise if it is not healthy."""
        await self._http.get_text("/health", patience_seconds=CONTROL_SECONDS)
        return await self.start_time("/metrics")

    async def start_time(self, path: str) -> str:
        """Return the start time of the process; empty if its metrics lack it."""
        return await read_start_time(self._http, path)

    async def load(self, adapter: str, folder: Path) -> None:
        """Load an adapter; "already loaded" is accepted only of the same folder."""
        path = self.path_of(folder)
        body: dict[str, Json] = {"lora_name": adapter, "lora_path": path}
        try:
            await self._http.post("/v1/load_lora_adapter", body, patience_seconds=LOAD_SECONDS)
        except UpstreamError as error:
            if error.status != 400 or "already" not in error.reason:
                raise
            roots = [model.root for model in await self.list_loaded() if model.name == adapter]
            if roots != [path]:
                where = ", ".join(map(str, roots)) or "nowhere"
                raise UpstreamError(
                    409,
                    f"loading {adapter} on {self.name}: it is loaded already, but from {where}, "
                    f"expected {path}",
                    is_retryable=False,
                ) from error

    async def list_loaded(self) -> list[LoadedModel]:
        """List the base and the adapters, with their folders."""
        return await read_models(self._http, self.name)

    async def unload(self, adapter: str) -> None:
        """Forget a name; its weights stay in memory until others need the room."""
        try:
            await self._http.post(
                "/v1/unload_lora_adapter", {"lora_name": adapter}, patience_seconds=LOAD_SECONDS
            )
        except UpstreamError as error:
            if error.status != 404:
                raise

    async def complete(self, adapter: str, generation: Generation) -> AsyncGenerator[AnswerPiece]:
        """Stream an answer; one by another model is an error."""
        async for piece in completion_pieces(
            self._http, self.name, adapter, completion_body(adapter, generation), generation
        ):
            yield piece

    async def score(self, adapter: str, probe: Probe) -> Sequence[float]:
        """Return the log-probabilities of the answer's tokens by one forward pass."""
        tokens = [*probe.prompt_tokens, *probe.answer_tokens]
        body: dict[str, Json] = {
            "model": adapter,
            "prompt": [*tokens],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
            "add_special_tokens": False,
        }
        answer = await self._http.post("/v1/completions", body)
        require_model(self.name, adapter, answer.get("model"))
        match answer:
            case {"choices": [{"prompt_logprobs": list(positions)}]}:
                pass
            case _:
                raise UpstreamError(
                    502, f"scoring on {self.name}: no prompt_logprobs came back", is_retryable=True
                )
        if len(positions) != len(tokens):
            raise UpstreamError(
                502,
                f"scoring on {self.name}: {len(positions)} log-probabilities came back for "
                f"{len(tokens)} tokens",
                is_retryable=True,
            )
        start = len(probe.prompt_tokens)
        return [
            _logprob_of(self.name, position, token)
            for position, token in zip(positions[start:], probe.answer_tokens, strict=True)
        ]

    async def read_base(self) -> None:
        """Read the base's name from the list, unless it is known."""
        if self._base is not None:
            return
        bases = [model.name for model in await self.list_loaded() if model.parent is None]
        if len(bases) != 1:
            raise UpstreamError(
                502,
                f"listing the models of {self.name}: expected one base, found "
                f"{', '.join(bases) or 'none'}; set `base_name`",
                is_retryable=False,
            )
        self._base = bases[0]

    async def _version_objections(self) -> list[str]:
        if self._oldest is None:
            return []
        answer = await self._http.get("/version", patience_seconds=CONTROL_SECONDS)
        text = str(answer.get("version", "")) if isinstance(answer, dict) else ""
        numbers = re.match(r"(\d+)\.(\d+)", text)
        if numbers is not None and (int(numbers[1]), int(numbers[2])) >= self._oldest:
            return []
        oldest = ".".join(map(str, self._oldest))
        return [f"its version is {text or 'unknown'}, expected {oldest} or newer"]

    async def _room_objections(self, needs: EngineNeeds) -> list[str]:
        # Only known once an adapter was in use; a load without room is refused in any case.
        metrics = await self._http.get_text("/metrics", patience_seconds=CONTROL_SECONDS)
        match = _MAX_LORA.search(metrics)
        if match is None or int(match[1]) >= needs.residents:
            return []
        return [f"--max-loras is {match[1]}, expected at least {needs.residents}"]

    async def _route_objections(self) -> list[str]:
        try:
            await self._http.post("/v1/load_lora_adapter", {}, patience_seconds=CONTROL_SECONDS)
        except UpstreamError as error:
            if error.status in (404, 405):
                return [
                    "it has no /v1/load_lora_adapter: start it with --enable-lora and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
                ]
            if not 400 <= error.status < 500:
                raise
        return []


async def invented_name_objections(server: VllmServer) -> list[str]:
    """Object to a server that answers under a name that cannot exist, as its base would."""
    name = f"flywheel.v0-{secrets.token_hex(6)}"
    try:
        async with aclosing(server.complete(name, Generation((1,), 1))) as pieces:
            async for _ in pieces:
                break
    except UpstreamError as error:
        if error.status == 404:
            return []
        return [f"it answered {error.status} to the invented model {name}, expected 404"]
    return [f"it answers as the invented model {name}, expected 404: it does not check names"]


async def read_start_time(upstream: HttpUpstream, path: str) -> str:
    """Return the start time in a process's metrics; empty if they lack it."""
    metrics = await upstream.get_text(path, patience_seconds=CONTROL_SECONDS)
    match = _START_TIME.search(metrics)
    return match[1] if match else ""


async def read_models(upstream: HttpUpstream, replica: str) -> list[LoadedModel]:
    """Read the list at ``/v1/models``."""
    match await upstream.get("/v1/models", patience_seconds=CONTROL_SECONDS):
        case {"data": list(models)}:
            return [_loaded_model(model) for model in models if isinstance(model, dict)]
        case answer:
            raise UpstreamError(
                502,
                f"listing the models of {replica}: expected `data`, found {str(answer)[:80]}",
                is_retryable=True,
            )


def require_model(replica: str, adapter: str, answered: Json) -> None:
    """Raise ``UpstreamError`` if an answer is by another model than was asked."""
    if answered != adapter:
        raise UpstreamError(
            502, f"{replica}: {answered} answered instead of {adapter}", is_retryable=True
        )


async def completion_pieces(
    upstream: HttpUpstream,
    replica: str,
    adapter: str,
    body: dict[str, Json],
    generation: Generation,
) -> AsyncGenerator[AnswerPiece]:
    """Send a request to ``/v1/completions``; yield its answer's pieces."""
    path, trace = "/v1/completions", generation.traceparent
    if generation.is_streamed:
        events = upstream.events(path, body, traceparent=trace)
        async with aclosing(events), aclosing(read_pieces(replica, adapter, events)) as pieces:
            async for piece in pieces:
                yield piece
        return
    whole = {name: value for name, value in body.items() if name != "stream_options"}
    answer = await upstream.post(
        path,
        whole | {"stream": False},
        patience_seconds=upstream.answer_seconds,
        traceparent=trace,
    )
    async with aclosing(read_pieces(replica, adapter, _once(answer))) as pieces:
        async for piece in pieces:
            yield piece


async def _once(event: dict[str, Json]) -> AsyncGenerator[dict[str, Json]]:
    yield event


def completion_body(adapter: str, generation: Generation) -> dict[str, Json]:
    """Return a request to ``/v1/completions``."""
    prompt = generation.prompt
    body: dict[str, Json] = {
        "model": adapter,
        "prompt": prompt if isinstance(prompt, str) else [*prompt],
        "max_tokens": generation.max_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
        "add_special_tokens": False,
    }
    optional: dict[str, Json] = {
        "seed": generation.seed,
        "stop": [*generation.stop] or None,
        "logprobs": generation.logprobs,
        "user": generation.client,
        "structured_outputs": (
            {"grammar": generation.grammar} if generation.grammar is not None else None
        ),
    }
    return body | {name: value for name, value in optional.items() if value is not None}


async def read_pieces(
    replica: str, adapter: str, events: AsyncGenerator[dict[str, Json]]
) -> AsyncGenerator[AnswerPiece]:
    """Read the chunks of a completion.

    Raises:
        UpstreamError: Another model answered, or the answer was cut.
    """
    last: AnswerPiece | None = None
    counts: tuple[int | None, int | None] = None, None
    async for event in events:
        require_model(replica, adapter, event.get("model"))
        if isinstance(usage := event.get("usage"), dict):
            prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
            counts = token_count(prompt), token_count(completion)
        match event.get("choices"):
            case [dict(choice), *_]:
                pass
            case _:
                continue
        text = str(choice.get("text") or "")
        logprobs = _token_logprobs(replica, choice.get("logprobs"))
        reason = choice.get("finish_reason")
        if reason is None:
            yield AnswerPiece(text, logprobs)
        elif isinstance(reason, str) and reason in FINISHES:
            last = AnswerPiece(text, logprobs, FINISHES[reason])
        else:
            raise UpstreamError(502, f"{replica}: the answer ended by {reason}", is_retryable=True)
    if last is None:
        raise UpstreamError(502, f"{replica}: the answer was cut before its end", is_retryable=True)
    yield AnswerPiece(last.text, last.logprobs, last.finish, *counts, model=adapter)


def _token_logprobs(replica: str, logprobs: Json) -> tuple[TokenLogprob, ...]:
    match logprobs:
        case {"tokens": list(tokens), "token_logprobs": list(values), **others}:
            tops = others.get("top_logprobs")
        case _:
            return ()
    tops = tops if isinstance(tops, list) else [None] * len(tokens)
    if not len(tokens) == len(values) == len(tops):
        raise UpstreamError(
            502,
            f"{replica}: {len(values)} log-probabilities came for {len(tokens)} tokens",
            is_retryable=True,
        )
    return tuple(
        TokenLogprob(str(token), _number(value), _top(top))
        for token, value, top in zip(tokens, values, tops, strict=True)
    )


def _top(top: Json) -> tuple[tuple[str, float], ...]:
    items: Iterable[tuple[str, Json]] = top.items() if isinstance(top, dict) else ()
    return tuple((token, _number(value)) for token, value in items)


def _loaded_model(model: Mapping[str, Json]) -> LoadedModel:
    root, parent = model.get("root"), model.get("parent")
    return LoadedModel(
        str(model.get("id")),
        None if root is None else str(root),
        None if parent is None else str(parent),
    )


def _logprob_of(replica: str, position: Json, token: int) -> float:
    match position.get(str(token)) if isinstance(position, dict) else None:
        case {"logprob": float(value) | int(value)}:
            return float(value)
        case _:
            raise UpstreamError(
                502,
                f"scoring on {replica}: token {token} has no log-probability",
                is_retryable=True,
            )


def _number(value: Json) -> float:
    return float(cast("float", value)) if isinstance(value, float | int) else float("-inf")
