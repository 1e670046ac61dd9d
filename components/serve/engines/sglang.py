"""SGLang's server with ``--enable-lora``.

Its list has ``<adapter>``, but ``model: <adapter>`` is answered by the base, with that name echoed:
an adapter is only used as ``<base>:<adapter>``. So its ``model`` proves nothing. Written after the
source of 0.5.23; SGLang itself was never run against this.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from components.schema import Json
from components.serve.engines import vllm_server
from components.serve.engines.replica_client import ReplicaClient
from components.serve.engines.serving_engine import (
    AnswerPiece,
    EngineNeeds,
    Generation,
    LoadedModel,
    Probe,
    UpstreamError,
)
from components.serve.engines.vllm_server import CONTROL_SECONDS, LOAD_SECONDS

UNLOAD_SECONDS = 20.0  # it can hang (sglang#36894, open)

_UNKNOWN_HERE = ("add_special_tokens", "structured_outputs")


class SglangServer(ReplicaClient):
    """One replica; ``base`` is its ``--served-model-name``, read from its list if missing."""

    async def preflight(self, needs: EngineNeeds) -> list[str]:
        """Return why it is not fit to serve."""
        answer = await self._http.get("/get_server_info", patience_seconds=CONTROL_SECONDS)
        settings = answer if isinstance(answer, dict) else {}
        if self._base is None:
            self._base = str(settings.get("served_model_name") or settings.get("model_path"))
        objections: list[str] = []
        if not settings.get("enable_lora"):
            objections.append("it has no LoRA: start it with --enable-lora")
        if settings.get("dp_size") not in (None, 1):
            objections.append("dp_size must be 1: adapters are loaded into one of its processes")
        rank = settings.get("max_lora_rank")
        if isinstance(rank, int) and rank < needs.rank:
            objections.append(f"--max-lora-rank is {rank}, expected at least {needs.rank}")
        room = settings.get("max_loaded_loras")
        if isinstance(room, int) and room < needs.residents:
            objections.append(f"--max-loaded-loras is {room}, expected at least {needs.residents}")
        if needs.is_constrained:
            objections.append("it takes no Lark grammars: serve with `constrained: false`")
        return objections

    async def process_identity(self) -> str:
        """Return the start time of its process; empty if its metrics are off."""
        await self._http.get_text("/health", patience_seconds=CONTROL_SECONDS)
        try:
            return await vllm_server.read_start_time(self._http, "/metrics")
        except UpstreamError:
            return ""

    async def load(self, adapter: str, folder: Path) -> None:
        """Load an adapter, so that it is not evicted."""
        path = self.path_of(folder)
        body: dict[str, Json] = {"lora_name": adapter, "lora_path": path, "pinned": True}
        answer = await self._http.post("/load_lora_adapter", body, patience_seconds=LOAD_SECONDS)
        if answer.get("success") is False:
            raise UpstreamError(
                400,
                f"loading {adapter} on {self.name}: {answer.get('error_message')}",
                is_retryable=False,
            )

    async def list_loaded(self) -> list[LoadedModel]:
        """List the base and the adapters."""
        return await vllm_server.read_models(self._http, self.name)

    async def unload(self, adapter: str) -> None:
        """Forget a name; it waits for requests under way, and sometimes for ever."""
        try:
            await self._http.post(
                "/unload_lora_adapter", {"lora_name": adapter}, patience_seconds=UNLOAD_SECONDS
            )
        except UpstreamError as error:
            if error.status != 400:
                raise

    async def complete(self, adapter: str, generation: Generation) -> AsyncGenerator[AnswerPiece]:
        """Stream an answer."""
        if generation.grammar is not None:
            raise UpstreamError(
                400, f"{self.name}: SGLang takes no Lark grammars", is_retryable=False
            )
        model = self._model(adapter)
        body = vllm_server.completion_body(model, generation)
        body = {name: value for name, value in body.items() if name not in _UNKNOWN_HERE}
        pieces = vllm_server.completion_pieces(self._http, self.name, model, body, generation)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

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
        answer = await self._http.post("/generate", body)
        match answer:
            case {"meta_info": {"input_token_logprobs": list(tokens)}}:
                pass
            case _:
                tokens = list[Json]()
        scored = tokens[-len(probe.answer_tokens) :]
        values = [(token[0], token[1]) for token in scored if isinstance(token, list)]
        if [token for _, token in values] != [*probe.answer_tokens]:
            raise UpstreamError(
                502,
                f"scoring on {self.name}: the log-probabilities are of other tokens",
                is_retryable=True,
            )
        return [float(str(value)) for value, _ in values]

    def _model(self, adapter: str) -> str:
        return self.base if adapter == self.base else f"{self.base}:{adapter}"
