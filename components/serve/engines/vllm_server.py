"""vLLM's OpenAI-compatible server with ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1``.

The embedded engine speaks the same part of its API; `replica_clients` has how others differ.
"""

import re
import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from components.schema import Json
from components.serve.engines.http_upstream import HttpUpstream
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


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server differs from vLLM."""

    oldest: tuple[int, int] | None = None
    """The first accepted version; any if ``None``."""
    health: str = "/health"
    metrics: str = "/metrics"
    load: str = "/v1/load_lora_adapter"
    unload: str = "/v1/unload_lora_adapter"
    unload_seconds: float = LOAD_SECONDS
    not_loaded: int = 404
    """The status that it refuses to unload an unknown name with."""
    pins: bool = False
    """Whether adapters are evicted unless they are loaded with ``pinned``."""
    has_grammars: bool = True
    unknown: frozenset[str] = frozenset()
    """Fields of a completion that it does not know."""


class VllmServer:
    """One replica.

    Args:
        name: Its name in logs and routes.
        upstream: Its API.
        base: The name of its base; read from the server if missing.
        adapters: The folder of staged adapters as the server sees it; our own path if missing.
        dialect: How it differs from vLLM.
    """

    def __init__(
        self,
        name: str,
        upstream: HttpUpstream,
        *,
        base: str | None = None,
        adapters: Path | None = None,
        dialect: Dialect = Dialect(oldest=OLDEST),
    ) -> None:
        self.name, self._http, self._adapters = name, upstream, adapters
        self._base, self._dialect = base, dialect

    @property
    def base(self) -> str:
        """The name of its base."""
        if self._base is None:
            raise UpstreamError(503, f"{self.name}: its base is not known yet", is_retryable=True)
        return self._base

    def path_of(self, folder: Path) -> str:
        """Return a staged folder's path as the server sees it."""
        return str(folder if self._adapters is None else self._adapters / folder.name)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.close()

    async def preflight(self, needs: EngineNeeds) -> list[str]:
        """Return why it is not fit to serve."""
        await self._read_base()
        return [
            *(await self._version_objections()),
            *(await self._room_objections(needs)),
            *(await self._route_objections()),
            *(await self._invented_name_objections()),
        ]

    async def process_identity(self) -> str:
        """Return the start time of its process, empty if its metrics lack it.

        Raise if it is not healthy.
        """
        await self._http.get_text(self._dialect.health, patience_seconds=CONTROL_SECONDS)
        match = _START_TIME.search(await self._metrics())
        return match[1] if match else ""

    async def load(self, adapter: str, folder: Path) -> None:
        """Load an adapter; "already loaded" is accepted only of the same folder."""
        path = self.path_of(folder)
        body: dict[str, Json] = {"lora_name": adapter, "lora_path": path}
        body |= {"pinned": True} if self._dialect.pins else {}
        try:
            await self._http.post(self._dialect.load, body, patience_seconds=LOAD_SECONDS)
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
        match await self._http.get("/v1/models", patience_seconds=CONTROL_SECONDS):
            case {"data": list(models)}:
                return [_loaded_model(model) for model in models if isinstance(model, dict)]
            case answer:
                raise UpstreamError(
                    502,
                    f"listing the models of {self.name}: expected `data`, found {str(answer)[:80]}",
                    is_retryable=True,
                )

    async def unload(self, adapter: str) -> None:
        """Forget a name; its weights stay in memory until others need the room."""
        seconds = self._dialect.unload_seconds
        try:
            await self._http.post(
                self._dialect.unload, {"lora_name": adapter}, patience_seconds=seconds
            )
        except UpstreamError as error:
            if error.status != self._dialect.not_loaded:
                raise

    async def complete(self, adapter: str, generation: Generation) -> AsyncGenerator[AnswerPiece]:
        """Stream an answer; one by another model is an error."""
        if generation.grammar is not None and not self._dialect.has_grammars:
            raise UpstreamError(400, f"{self.name} takes no Lark grammars", is_retryable=False)
        model = self._model(adapter)
        events = self._completion_events(_completion_body(model, generation), generation)
        async with (
            aclosing(events),
            aclosing(_read_pieces(self.name, model, events)) as pieces,
        ):
            async for piece in pieces:
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
        _require_model(self.name, adapter, answer.get("model"))
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

    def _model(self, adapter: str) -> str:
        """Return what requests call an adapter."""
        return adapter

    async def _completion_events(
        self, body: dict[str, Json], generation: Generation
    ) -> AsyncGenerator[dict[str, Json]]:
        path, trace = "/v1/completions", generation.traceparent
        body = {name: body[name] for name in body if name not in self._dialect.unknown}
        if generation.is_streamed:
            async with aclosing(self._http.events(path, body, traceparent=trace)) as events:
                async for event in events:
                    yield event
            return
        del body["stream_options"]
        yield await self._http.post(
            path,
            body | {"stream": False},
            patience_seconds=self._http.answer_seconds,
            traceparent=trace,
        )

    async def _metrics(self) -> str:
        return await self._http.get_text(self._dialect.metrics, patience_seconds=CONTROL_SECONDS)

    async def _read_base(self) -> None:
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
        if self._dialect.oldest is None:
            return []
        answer = await self._http.get("/version", patience_seconds=CONTROL_SECONDS)
        text = str(answer.get("version", "")) if isinstance(answer, dict) else ""
        numbers = re.match(r"(\d+)\.(\d+)", text)
        if numbers is not None and (int(numbers[1]), int(numbers[2])) >= self._dialect.oldest:
            return []
        oldest = ".".join(map(str, self._dialect.oldest))
        return [f"its version is {text or 'unknown'}, expected {oldest} or newer"]

    async def _room_objections(self, needs: EngineNeeds) -> list[str]:
        # Only known once an adapter was in use; a load without room is refused in any case.
        match = _MAX_LORA.search(await self._metrics())
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

    async def _invented_name_objections(self) -> list[str]:
        """Object to a server that answers under a name that cannot exist, as its base would."""
        name = f"flywheel.v0-{secrets.token_hex(6)}"
        try:
            async with aclosing(self.complete(name, Generation((1,), 1))) as pieces:
                async for _ in pieces:
                    break
        except UpstreamError as error:
            if error.status == 404:
                return []
            return [f"it answered {error.status} to the invented model {name}, expected 404"]
        return [f"it answers as the invented model {name}, expected 404: it does not check names"]


def _require_model(replica: str, adapter: str, answered: Json) -> None:
    if answered != adapter:
        raise UpstreamError(
            502, f"{replica}: {answered} answered instead of {adapter}", is_retryable=True
        )


def _completion_body(adapter: str, generation: Generation) -> dict[str, Json]:
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


async def _read_pieces(
    replica: str, adapter: str, events: AsyncGenerator[dict[str, Json]]
) -> AsyncGenerator[AnswerPiece]:
    last: AnswerPiece | None = None
    counts: tuple[int | None, int | None] = None, None
    async for event in events:
        _require_model(replica, adapter, event.get("model"))
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
