"""LoRAX by its native API: adapters are named in each request, and the first one loads them.

An adapter's id is its folder, always with ``adapter_source: local``: LoRAX looks any other name up
at the Hub. Written after its source (a7394ba3); LoRAX itself was never run against this.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import cast

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
from components.serve.engines.vllm_server import CONTROL_SECONDS, FINISHES, LOAD_SECONDS

BASE = "base"
STOPS = {"eos_token": "stop", "stop_sequence": "stop", "length": "length"}


class LoraxServer(ReplicaClient):
    """One replica; ``adapters`` is the folder of staged adapters as it sees it."""

    def __init__(self, name: str, upstream: HttpUpstream, *, adapters: Path | None = None) -> None:
        super().__init__(name, upstream, base=BASE, adapters=adapters)
        self._paths: dict[str, str] = {}

    async def preflight(self, needs: EngineNeeds) -> list[str]:
        """Return why it is not fit to serve."""
        await self._http.get("/info", patience_seconds=CONTROL_SECONDS)
        if needs.is_constrained:
            return ["it takes no Lark grammars: serve with `constrained: false`"]
        return []

    async def process_identity(self) -> str:
        """Check its health; a restart is harmless, since each request names the folder."""
        await self._http.get_text("/health", patience_seconds=CONTROL_SECONDS)
        return ""

    async def load(self, adapter: str, folder: Path) -> None:
        """Load an adapter by a first request."""
        path = self.path_of(folder)
        body: dict[str, Json] = {"inputs": "a", "parameters": _named(path) | {"max_new_tokens": 1}}
        await self._http.post("/generate", body, patience_seconds=LOAD_SECONDS)
        self._paths[adapter] = path

    async def list_loaded(self) -> list[LoadedModel]:
        """List what was loaded from here; LoRAX has no list of its own."""
        loaded = [LoadedModel(name, root, BASE) for name, root in self._paths.items()]
        return [LoadedModel(BASE), *loaded]

    async def unload(self, adapter: str) -> None:
        """Forget a name; LoRAX drops the adapter when it needs the room."""
        self._paths.pop(adapter, None)

    async def complete(self, adapter: str, generation: Generation) -> AsyncGenerator[AnswerPiece]:
        """Stream an answer."""
        if generation.grammar is not None or not isinstance(generation.prompt, str):
            raise UpstreamError(
                400, f"{self.name}: LoRAX takes text prompts without a grammar", is_retryable=False
            )
        body: dict[str, Json] = {
            "inputs": generation.prompt,
            "parameters": self._parameters(adapter)
            | _sampling(generation)
            | {"details": True, "decoder_input_details": False},
        }
        async with aclosing(
            self._http.events("/generate_stream", body, traceparent=generation.traceparent)
        ) as events:
            async for event in events:
                yield (piece := self._piece(adapter, event))
                if piece.finish is not None:
                    return
        raise UpstreamError(
            502, f"{self.name}: the answer was cut before its end", is_retryable=True
        )

    async def score(self, adapter: str, probe: Probe) -> Sequence[float]:
        """Return the log-probabilities of the answer's tokens, sent as text."""
        body: dict[str, Json] = {
            "inputs": probe.prompt + probe.answer,
            "parameters": self._parameters(adapter)
            | {"max_new_tokens": 1, "details": True, "decoder_input_details": True},
        }
        match await self._http.post("/generate", body):
            case {"details": {"prefill": list(prefill)}}:
                tokens = [token for token in prefill if isinstance(token, dict)]
            case _:
                tokens = list[dict[str, Json]]()
        scored = tokens[-len(probe.answer_tokens) :]
        if [token.get("id") for token in scored] != [*probe.answer_tokens]:
            raise UpstreamError(
                502,
                f"scoring on {self.name}: its tokens of a probe's text are others",
                is_retryable=False,
            )
        return [float(cast("float", token["logprob"])) for token in scored]

    def _parameters(self, adapter: str) -> dict[str, Json]:
        if adapter == BASE:
            return {}
        if adapter not in self._paths:
            raise UpstreamError(404, f"{self.name} has no {adapter}", is_retryable=True)
        return _named(self._paths[adapter])

    def _piece(self, adapter: str, event: dict[str, Json]) -> AnswerPiece:
        match event:
            case {"token": {"text": str(text), "logprob": float(logprob), **token}}:
                pass
            case _:
                raise UpstreamError(
                    502, f"{self.name}: expected a token, found {event}", is_retryable=True
                )
        shown = "" if token.get("special") else text
        logprobs = (TokenLogprob(text, logprob),)
        match event.get("details"):
            case {"finish_reason": str(reason), **details}:
                return AnswerPiece(
                    shown,
                    logprobs,
                    FINISHES.get(STOPS.get(reason), "stop"),
                    token_count(details.get("prompt_tokens")),
                    token_count(details.get("generated_tokens")),
                    adapter,
                )
            case _:
                return AnswerPiece(shown, logprobs)


def _named(path: str) -> dict[str, Json]:
    return {"adapter_id": path, "adapter_source": "local"}


def _sampling(generation: Generation) -> dict[str, Json]:
    options: dict[str, Json] = {
        "max_new_tokens": generation.max_tokens,
        "stop": [*generation.stop],
        "seed": generation.seed,
        "do_sample": generation.temperature > 0,
    }
    if generation.temperature > 0:
        options["temperature"] = generation.temperature
        options["top_p"] = generation.top_p if generation.top_p < 1 else None
    return options
