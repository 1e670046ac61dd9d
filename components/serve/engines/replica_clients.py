"""The clients of the replicas that a home's `serve.yaml` names, and how they differ from vLLM's.

NIM is vLLM with a watched folder. SGLang lists ``<adapter>``, but ``model: <adapter>`` is answered
by the base, with that name echoed: an adapter is only used as ``<base>:<adapter>``, and ``model``
proves nothing. LoRAX names an adapter's folder in each request, always with ``adapter_source:
local``: it looks any other name up at the Hub, as its OpenAI-compatible paths do.

Written after NIM's documentation and the source of SGLang 0.5.23 and LoRAX a7394ba3; none of them
was ever run against this.
"""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import cast

from components.models.adapter_folder import CONFIG, WEIGHTS
from components.schema import Json
from components.serve.engines import http_upstream
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.serving_engine import (
    AnswerPiece,
    EngineNeeds,
    Generation,
    LoadedModel,
    Probe,
    ServingEngine,
    TokenLogprob,
    UpstreamError,
    token_count,
)
from components.serve.engines.vllm_server import (
    CONTROL_SECONDS,
    FINISHES,
    LOAD_SECONDS,
    Dialect,
    VllmServer,
)
from components.serve.settings import EngineSettings, ReplicaSettings

# /v1/health/live is 200 before the model is loaded.
NIM = Dialect(health="/v1/health/ready", metrics="/v1/metrics")
SGLANG = Dialect(
    load="/load_lora_adapter",
    unload="/unload_lora_adapter",
    unload_seconds=20.0,  # it waits for requests under way, and can hang (sglang#36894, open)
    not_loaded=400,
    pins=True,
    has_grammars=False,
    unknown=frozenset({"add_special_tokens", "structured_outputs"}),
)

NO_GRAMMARS = "it takes no Lark grammars: serve with `constrained: false`"

STAGE, GONE = ".stage", ".gone"  # siblings of the adapters: a rename needs the same file system
MARGIN_SECONDS, POLL_SECONDS = 5.0, 0.5

LORAX_BASE = "base"
STOPS = {"eos_token": "stop", "stop_sequence": "stop", "length": "length"}


def make_engines(settings: EngineSettings) -> dict[str, ServingEngine]:
    """Return a client for each replica in the file; empty for the embedded engine."""
    return {replica.name: _make_engine(settings, replica) for replica in settings.replicas}


def _make_engine(settings: EngineSettings, replica: ReplicaSettings) -> ServingEngine:
    name, base = replica.name, settings.base_name
    upstream = HttpUpstream(
        replica.url,
        api_key=http_upstream.read_key(settings.api_key_env, os.environ, name),
        patience_seconds=settings.first_byte_seconds,
    )
    adapters = Path(settings.adapters) if settings.adapters else None
    match settings.kind:
        case "vllm":
            return VllmServer(name, upstream, base=base, adapters=adapters)
        case "nim":
            nim = NimServer(name, upstream, base=base, adapters=adapters, dialect=NIM)
            nim.patience_seconds = 2 * settings.refresh_seconds + MARGIN_SECONDS
            return nim
        case "sglang":
            return SglangServer(name, upstream, base=base, adapters=adapters, dialect=SGLANG)
        case "lorax":
            return LoraxServer(name, upstream, adapters=adapters)
        case "embedded":
            raise ValueError("the embedded engine has no `replicas`")


class NimServer(VllmServer):
    """NVIDIA NIM: an adapter is a folder in its ``NIM_PEFT_SOURCE``, which replicas may share.

    Nothing acknowledges it, so the list is polled until a deadline.
    """

    patience_seconds = 60.0
    """How long an adapter may take to be listed: two of ``NIM_PEFT_REFRESH_INTERVAL``, and more."""

    async def preflight(self, needs: EngineNeeds) -> list[str]:
        """Return why it is not fit to serve; its room for adapters can't be read."""
        objections = [] if self._source.is_dir() else [f"there is no folder {self._source}"]
        await self._read_base()
        return objections + await self._invented_name_objections()

    async def load(self, adapter: str, folder: Path) -> None:
        """Move a copy into the watched folder in one rename, and wait until it is listed."""
        await asyncio.to_thread(self._put, adapter, folder)
        if not await self._until_listed(adapter, is_expected=True):
            await asyncio.to_thread(self._remove, adapter)
            raise UpstreamError(
                504,
                f"loading {adapter}: {self.name} does not list it {self.patience_seconds:g} s "
                f"after its folder was put into {self._source}; is NIM_PEFT_REFRESH_INTERVAL set?",
                is_retryable=True,
            )

    async def unload(self, adapter: str) -> None:
        """Move the folder away, and wait until it is not listed any more."""
        await asyncio.to_thread(self._remove, adapter)
        if not await self._until_listed(adapter, is_expected=False):
            raise UpstreamError(
                504,
                f"unloading {adapter}: {self.name} still lists it {self.patience_seconds:g} s "
                "after its folder was removed",
                is_retryable=False,
            )

    @property
    def _source(self) -> Path:
        assert self._adapters is not None  # the settings require it
        return self._adapters

    def _put(self, adapter: str, folder: Path) -> None:
        target = self._source / adapter
        if target.is_dir():
            return  # another replica of the same folder was first
        partial = self._source / STAGE / f"{adapter}.{self.name}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in (CONFIG, WEIGHTS):  # NIM's folders hold these two
            shutil.copyfile(folder / name, partial / name)
            with (partial / name).open("rb") as file:
                os.fsync(file.fileno())
        try:
            partial.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            shutil.rmtree(partial)

    def _remove(self, adapter: str) -> None:
        gone = self._source / GONE / f"{adapter}.{time.time_ns()}"
        gone.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            (self._source / adapter).rename(gone)
            shutil.rmtree(gone)

    async def _until_listed(self, adapter: str, *, is_expected: bool) -> bool:
        deadline = time.monotonic() + self.patience_seconds
        while time.monotonic() < deadline:
            models = await self.list_loaded()
            if any(model.name == adapter for model in models) == is_expected:
                return True
            await asyncio.sleep(min(POLL_SECONDS, self.patience_seconds / 20))
        return False


class SglangServer(VllmServer):
    """SGLang's server with ``--enable-lora``."""

    async def preflight(self, needs: EngineNeeds) -> list[str]:
        """Return why it is not fit to serve."""
        await self._read_base()
        answer = await self._http.get("/get_server_info", patience_seconds=CONTROL_SECONDS)
        settings = answer if isinstance(answer, dict) else {}
        objections = [NO_GRAMMARS] if needs.is_constrained else []
        if not settings.get("enable_lora"):
            objections.append("it has no LoRA: start it with --enable-lora")
        if settings.get("dp_size") not in (None, 1):
            objections.append("dp_size must be 1: adapters are loaded into one of its processes")
        least = {"max_lora_rank": needs.rank, "max_loaded_loras": needs.residents}
        for name, needed in least.items():
            actual = settings.get(name)
            if isinstance(actual, int) and actual < needed:
                option = name.replace("_", "-")
                objections.append(f"--{option} is {actual}, expected at least {needed}")
        return objections

    async def score(self, adapter: str, probe: Probe) -> Sequence[float]:
        """Return the log-probabilities of the answer's tokens by its native API."""
        body: dict[str, Json] = {
            "input_ids": [*probe.prompt_tokens, *probe.answer_tokens],
            "sampling_params": {"max_new_tokens": 1, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": 0,
        }
        if adapter != self.base:
            body["lora_path"] = adapter
        match await self._http.post("/generate", body):
            case {"meta_info": {"input_token_logprobs": list(tokens)}}:
                listed = [token for token in tokens if isinstance(token, list)]
            case _:
                listed = list[list[Json]]()
        return _of_answer(self.name, probe, ((token[1], token[0]) for token in listed))

    async def _metrics(self) -> str:
        with suppress(UpstreamError):  # they may be off
            return await super()._metrics()
        return ""

    def _model(self, adapter: str) -> str:
        return self.base if adapter == self.base else f"{self.base}:{adapter}"


class LoraxServer(VllmServer):
    """LoRAX by its native API; the first request that names an adapter's folder loads it."""

    def __init__(self, name: str, upstream: HttpUpstream, *, adapters: Path | None = None) -> None:
        super().__init__(name, upstream, base=LORAX_BASE, adapters=adapters)
        self._paths: dict[str, str] = {}

    async def preflight(self, needs: EngineNeeds) -> list[str]:
        """Return why it is not fit to serve."""
        await self._http.get("/info", patience_seconds=CONTROL_SECONDS)
        return [NO_GRAMMARS] if needs.is_constrained else []

    async def process_identity(self) -> str:
        """Check its health; a restart is harmless, since each request names the folder."""
        await self._http.get_text("/health", patience_seconds=CONTROL_SECONDS)
        return ""

    async def load(self, adapter: str, folder: Path) -> None:
        """Load an adapter by a first request."""
        path = self.path_of(folder)
        parameters = _named(path) | {"max_new_tokens": 1}
        body: dict[str, Json] = {"inputs": "a", "parameters": parameters}
        await self._http.post("/generate", body, patience_seconds=LOAD_SECONDS)
        self._paths[adapter] = path

    async def list_loaded(self) -> list[LoadedModel]:
        """List what was loaded from here; LoRAX has no list of its own."""
        loaded = [LoadedModel(name, root, LORAX_BASE) for name, root in self._paths.items()]
        return [LoadedModel(LORAX_BASE), *loaded]

    async def unload(self, adapter: str) -> None:
        """Forget a name; LoRAX drops the adapter when it needs the room."""
        self._paths.pop(adapter, None)

    async def complete(self, adapter: str, generation: Generation) -> AsyncGenerator[AnswerPiece]:
        """Stream an answer."""
        if generation.grammar is not None or not isinstance(generation.prompt, str):
            raise UpstreamError(
                400, f"{self.name}: LoRAX takes text prompts without a grammar", is_retryable=False
            )
        parameters = self._parameters(adapter) | _sampling(generation) | {"details": True}
        body: dict[str, Json] = {"inputs": generation.prompt, "parameters": parameters}
        trace = generation.traceparent
        async with aclosing(
            self._http.events("/generate_stream", body, traceparent=trace)
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
        options: dict[str, Json] = {"max_new_tokens": 1, "details": True}
        parameters = self._parameters(adapter) | options | {"decoder_input_details": True}
        body: dict[str, Json] = {"inputs": probe.prompt + probe.answer, "parameters": parameters}
        match await self._http.post("/generate", body):
            case {"details": {"prefill": list(prefill)}}:
                listed = [token for token in prefill if isinstance(token, dict)]
            case _:
                listed = list[dict[str, Json]]()
        scored = ((token.get("id"), token.get("logprob")) for token in listed)
        return _of_answer(self.name, probe, scored)

    def _parameters(self, adapter: str) -> dict[str, Json]:
        if adapter == LORAX_BASE:
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
        visible = "" if token.get("special") else text
        logprobs = (TokenLogprob(text, logprob),)
        match event.get("details"):
            case {"finish_reason": str(reason), **details}:
                return AnswerPiece(
                    visible,
                    logprobs,
                    FINISHES.get(STOPS.get(reason), "stop"),
                    token_count(details.get("prompt_tokens")),
                    token_count(details.get("generated_tokens")),
                    adapter,
                )
            case _:
                return AnswerPiece(visible, logprobs)


def _of_answer(replica: str, probe: Probe, listed: Iterable[tuple[Json, Json]]) -> list[float]:
    """Return the log-probabilities of the last tokens, which must be the answer's."""
    scored = [*listed][-len(probe.answer_tokens) :]
    if [token for token, _ in scored] != [*probe.answer_tokens]:
        raise UpstreamError(
            502,
            f"scoring on {replica}: the log-probabilities are of other tokens than the probe's",
            is_retryable=False,
        )
    return [float(cast("float", logprob)) for _, logprob in scored]


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
