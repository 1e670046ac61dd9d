"""The engine on vLLM, through lm-eval's own vLLM model, adapters named by request."""
# pyright: reportMissingImports=false, reportCallIssue=false, reportAttributeAccessIssue=false
# vLLM is not installed where pyright runs, and lm-eval's class decorator hides its model's type.

import io
import json
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch  # noqa: TID253 - this module is itself imported late
from lm_eval.models.utils import normalize_gen_kwargs  # noqa: TID253 - as above
from lm_eval.models.vllm_causallms import VLLM  # noqa: TID253 - as above
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase  # noqa: TID253 - as above
from vllm import SamplingParams, TokensPrompt
from vllm.lora.request import LoRARequest
from vllm.sampling_params import StructuredOutputsParams

from components.evaluate.constraint import AnswerConstraint
from components.evaluate.engines import adapter_checks, protocol, vllm_limits
from components.evaluate.engines.adapter_checks import AdapterNotAppliedError
from components.evaluate.engines.protocol import EngineError
from components.evaluate.engines.speed import MAX_TOKENS
from components.evaluate.settings import EvaluationSettings
from components.models import constrained, machine
from components.models.base import compute_dtype, is_quantized, write_dequantized
from components.schema import Progress
from components.store.manifest import AdapterManifest

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

MAX_MEMORY = 1 / 4  # the share of free memory for keys and values on a CPU. On CUDA vLLM decides.

FITTING = -1
"""The context window is the base's, or as much of it as keys and values have memory for: without
this, vLLM refuses a base whose window does not fit, such as 128k tokens of an 8B model in 24 GB."""

PENALTY = "repetition_penalty"
"""The one default setting that changes greedy answers and that vLLM supports."""


@contextmanager
def load_vllm(
    base: Path, settings: EvaluationSettings, adapters: Sequence[Path]
) -> "Generator[VllmEngine]":
    """Load a base with room for adapters; see ``harness.load_engine``.

    Raises:
        EngineError: The base has default settings that vLLM does not support.
        AdapterNotAppliedError: vLLM does not support an adapter.
    """
    rooms = [_room_for_adapter(adapter, base) for adapter in adapters]
    penalty = _repetition_penalty(base)
    with tempfile.TemporaryDirectory(prefix="vllm-base-") as folder:
        weights = base
        if is_quantized(settings.precision):
            weights = Path(folder)
            write_dequantized(base, settings.precision, weights)
        yield VllmEngine(_make_model(base, weights, settings, rooms, penalty), adapters)


def _room_for_adapter(adapter: Path, base: Path) -> vllm_limits.LoraRoom:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["target_modules"] = adapter_checks.adapter_modules(adapter)
    if objections := [*vllm_limits.vllm_objections(config)]:
        raise AdapterNotAppliedError(
            f"evaluating {adapter} in vLLM: {'; '.join(objections)}; evaluate it with engine: "
            "transformers"
        )
    adapter_checks.require_fitting(adapter, base)
    return vllm_limits.lora_room_of(config)


def _repetition_penalty(base: Path) -> float:
    try:
        defaults = GenerationConfig.from_pretrained(base, local_files_only=True).to_diff_dict()
    except OSError:  # the base has no generation_config.json
        return 1.0
    if unsupported := [name for name in protocol.swaying_settings(defaults) if name != PENALTY]:
        raise EngineError(
            f"evaluating {base} in vLLM: its generation_config.json has {', '.join(unsupported)}, "
            "which changes greedy answers but not in vLLM; evaluate with engine: transformers"
        )
    return defaults.get(PENALTY, 1.0)


def _make_model(
    base: Path,
    weights: Path,
    settings: EvaluationSettings,
    rooms: Sequence[vllm_limits.LoraRoom],
    penalty: float,
) -> "VllmModel":
    on_cpu: dict[str, Any] = {
        "enforce_eager": True,  # compiling takes longer than an evaluation
        "distributed_executor_backend": "uni",
        "kv_cache_memory_bytes": int(MAX_MEMORY * machine.available_memory()),
    }
    dtype = str(compute_dtype(settings.precision, for_training=False)).removeprefix("torch.")
    model = VllmModel(  # pyright: ignore[reportAbstractUsage] - VLLM is not
        pretrained=str(weights),
        tokenizer=str(base),
        dtype=dtype,
        batch_size="auto",
        max_num_seqs=settings.batch_size,
        max_model_len=FITTING,
        structured_outputs_config={"backend": "guidance"},  # the grammars are llguidance's
        **(_lora_options(rooms) if rooms else {}),
        **({} if torch.cuda.is_available() else on_cpu),
    )
    model.penalty = penalty
    return model


def _lora_options(rooms: Sequence[vllm_limits.LoraRoom]) -> dict[str, Any]:
    # Only the adapters' modules: vLLM's CPU build fails to score a prompt if lm_head is included.
    return {
        "enable_lora": True,
        "max_lora_rank": vllm_limits.max_lora_rank(room.rank for room in rooms),
        "lora_target_modules": sorted({name for room in rooms for name in room.modules}),
    }


class VllmEngine:
    """A base in vLLM, with at most one adapter in use."""

    def __init__(self, model: "VllmModel", adapters: Sequence[Path]) -> None:
        self._model = model
        self._numbers = {adapter: number for number, adapter in enumerate(adapters, start=1)}
        self.tokenizer: PreTrainedTokenizerBase = model.tokenizer
        self.length: int = model.max_length
        self._base_probe = self._probe()
        self._noise = (self._probe() - self._base_probe).abs().max()

    @contextmanager
    def use_adapter(self, adapter: Path | None) -> "Generator[VllmEngine]":
        """Use an adapter in every request, as ``Engine.use_adapter``."""
        if adapter is None:
            yield self
            return
        name = AdapterManifest.read(adapter).key
        lora = LoRARequest(name, self._numbers[adapter], str(adapter))
        try:
            self._model.model.llm_engine.add_lora(lora)
        except ValueError as error:
            raise AdapterNotAppliedError(
                f"evaluating {adapter}: vLLM refuses it: {error}"
            ) from error
        self._model.lora_request = lora
        try:
            if (self._probe() - self._base_probe).abs().max() <= self._noise:
                raise AdapterNotAppliedError(
                    f"evaluating {adapter}: with it attached, vLLM's log-probabilities of a text "
                    "are those without it; its weights are too small for this precision"
                )
            yield self
        finally:
            self._model.lora_request = None

    @contextmanager
    def answering(
        self,
        stage: str,
        report: Callable[[Progress], None],
        constraint: AnswerConstraint | None = None,
        *,
        is_chat: bool = False,
    ) -> "Generator[VllmModel]":
        """Return a model for lm-eval."""
        self._model.add_bos_token = False if is_chat else None
        self._model.stage, self._model.report = stage, report
        self._model.constraint = constraint
        yield self._model

    def alone(self, prompt: str) -> tuple[float, float]:
        """Answer one request by itself, and time it, with an empty prefix cache."""
        room = self.length - MAX_TOKENS - 1
        tokens = self.tokenizer(prompt, add_special_tokens=False)["input_ids"][-room:]
        first, total = (self._time(tokens, count) for count in (1, MAX_TOKENS + 1))
        return first, MAX_TOKENS / (total - first)

    def _time(self, prompt: list[int], count: int) -> float:
        self._model.model.reset_prefix_cache()
        settings = SamplingParams(
            temperature=0, max_tokens=count, ignore_eos=True, detokenize=False
        )
        started = time.perf_counter()
        self._model.generate_tokens([prompt], settings)
        return time.perf_counter() - started

    def _probe(self) -> torch.Tensor:
        # the log-probabilities of the probe's tokens except the first, ``[tokens]``
        tokens = self.tokenizer(adapter_checks.PROBE_TEXT)["input_ids"]
        settings = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        (output,) = self._model.generate_tokens([tokens], settings)
        scored = zip(output.prompt_logprobs[1:], tokens[1:], strict=True)
        return torch.tensor([logprobs[token].logprob for logprobs, token in scored])


class VllmModel(VLLM):
    """lm-eval's vLLM model, with progress.

    ``lora_request`` is the adapter in use, ``penalty`` the base's repetition penalty.
    """

    stage: str
    report: Callable[[Progress], None]
    penalty: float
    constraint: AnswerConstraint | None = None

    @property
    def max_length(self) -> int:
        """Return the context window, in tokens, that keys and values have memory for."""
        return int(self.model.llm_engine.model_config.max_model_len)

    def loglikelihood(
        self, requests: "list[Instance]", disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Score continuations; ``report`` replaces lm-eval's progress bar."""
        self._report(0, len(requests))
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[str]:
        """Answer prompts; ``report`` replaces lm-eval's progress bar. Settings must not sample."""
        for request in requests:
            _, settings = cast("tuple[str, dict[str, Any]]", request.args)
            protocol.require_greedy(normalize_gen_kwargs(settings, self.max_gen_toks))
        self._report(0, len(requests))
        kept = [self._constrained(request) for request in requests]
        return super().generate_until(kept, disable_tqdm=disable_tqdm)

    def _constrained(self, request: "Instance") -> "Instance":
        grammar = None if self.constraint is None else self.constraint.grammar(request.doc)
        if self.constraint is None or grammar is None:
            return request
        if marks := constrained.special_marks(self.tokenizer):
            names = ", ".join(sorted(marks))
            self.constraint.note(f"vLLM's llguidance holds {names} for special tokens, not text")
            return request
        prompt, settings = cast("tuple[str, dict[str, Any]]", request.args)
        outputs = StructuredOutputsParams(grammar=grammar)
        return replace(request, arguments=(prompt, {**settings, "structured_outputs": outputs}))

    def generate_tokens(
        self,
        prompts: Sequence[list[int]],
        settings: Any,  # noqa: ANN401 - vLLM's own
        **options: Any,  # noqa: ANN401 - as above
    ) -> list[Any]:
        """Run vLLM on prompts of token ids with the adapter in use; return its outputs."""
        return self.model.generate(
            [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts],
            sampling_params=settings,
            lora_request=self.lora_request,
            **({"use_tqdm": False} | options),
        )

    def modify_gen_kwargs(
        self,
        gen_kwargs: dict[str, Any],
        *settings: Any,  # noqa: ANN401 - they are passed on
        **named: Any,  # noqa: ANN401 - as above
    ) -> tuple[dict[str, Any], list[str], int]:
        """Default to greedy answers; lm-eval would let vLLM sample if a task leaves it open."""
        defaults = {"do_sample": False, PENALTY: self.penalty}
        return super().modify_gen_kwargs(defaults | gen_kwargs, *settings, **named)

    def _model_generate(
        self,
        requests: list[list[int]],
        generate: bool = False,
        sampling_params: Any = None,  # noqa: ANN401 - vLLM's own
    ) -> list[Any]:
        if not generate:
            sampling_params = SamplingParams(
                temperature=0, prompt_logprobs=1, max_tokens=1, detokenize=False
            )
        outputs = self.generate_tokens(requests, sampling_params, use_tqdm=self._bar)
        # decoded without special tokens, as in the transformers engine
        for output in outputs if generate else ():
            answer = output.outputs[0]
            answer.text = self.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
        return outputs

    def _bar(self, prompts: Iterable[object] | None = None, **named: Any) -> Any:  # noqa: ANN401
        return _ProgressBar(self._report, **named) if prompts is None else prompts

    def _report(self, done: int, asked: int) -> None:
        self.report(Progress(self.stage, done, asked, "requests"))


class _ProgressBar(tqdm):  # pyright: ignore[reportMissingTypeArgument] - it iterates over nothing
    """An invisible bar that reports its progress."""

    def __init__(self, report: Callable[[int, int], None], **named: Any) -> None:  # noqa: ANN401
        self._report = report
        super().__init__(**named, file=io.StringIO())

    def update(self, n: float | None = 1) -> bool | None:
        """Add ``n`` and report the total."""
        shown = super().update(n)
        self._report(int(self.n), int(self.total))
        return shown
