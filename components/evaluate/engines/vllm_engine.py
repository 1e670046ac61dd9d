"""The engine on vLLM, through lm-eval's own vLLM model, adapters named by request."""
# pyright: reportMissingImports=false, reportCallIssue=false, reportAttributeAccessIssue=false
# vLLM is not there where this is checked, and lm-eval's class decorator hides its model's own type.

import io
import json
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
import torch  # noqa: TID253 - this module is itself imported late
from lm_eval.models.utils import normalize_gen_kwargs  # noqa: TID253 - as above
from lm_eval.models.vllm_causallms import VLLM  # noqa: TID253 - as above
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase  # noqa: TID253 - as above
from vllm import SamplingParams, TokensPrompt
from vllm.lora.request import LoRARequest

from components.evaluate.engines import adapter_checks, protocol
from components.evaluate.engines.adapter_checks import AdapterNotAppliedError
from components.evaluate.engines.protocol import EngineError
from components.evaluate.engines.speed import MOST_TOKENS
from components.evaluate.settings import EvaluationSettings
from components.models import base as bases
from components.schema import Progress
from components.store.manifest import AdapterManifest

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

MOST_MEMORY = 1 / 4
"""Of the memory that is free: what keys and values may take on a CPU. On CUDA vLLM decides."""

PENALTY = "repetition_penalty"
"""The one setting that models are shipped with, that sways greedy answers and that vLLM knows."""


@contextmanager
def load_vllm(
    base: Path, settings: EvaluationSettings, adapters: Sequence[Path]
) -> "Generator[VllmEngine]":
    """Load a base with room for adapters; see ``engine_loading.loaded``.

    Raises:
        EngineError: The base was shipped with settings that vLLM does not know.
        NotAppliedError: An adapter is none that vLLM can put on.
    """
    wanted, penalty = (
        [_room_for_adapter(adapter, base) for adapter in adapters],
        _repetition_penalty(base),
    )
    with tempfile.TemporaryDirectory(prefix="vllm-base-") as folder:
        weights = base
        if bases.is_quantized(settings.precision):
            weights = Path(folder)
            bases.write_dequantized(base, settings.precision, weights)
        yield VllmEngine(_make_model(base, weights, settings, wanted, penalty), adapters)


def _room_for_adapter(adapter: Path, base: Path) -> protocol.LoraRoom:
    """Say what vLLM has to have room for, having looked at an adapter's files."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["target_modules"] = adapter_checks.adapter_modules(adapter)
    if found := protocol.vllm_objections(config):
        raise AdapterNotAppliedError(
            f"evaluating {adapter} in vLLM: {'; '.join(found)}; evaluate it with engine: "
            "transformers"
        )
    adapter_checks.require_fitting(adapter, base)
    return protocol.lora_room_of(config)


def _repetition_penalty(base: Path) -> float:
    """Read the repetition penalty that a base was shipped with; 1 is none."""
    try:
        shipped = GenerationConfig.from_pretrained(base, local_files_only=True).to_diff_dict()
    except OSError:  # it has no such file
        return 1.0
    if unknown := [name for name in protocol.swaying_settings(shipped) if name != PENALTY]:
        raise EngineError(
            f"evaluating {base} in vLLM: its generation_config.json has {', '.join(unknown)}, "
            "which sways greedy answers there and not in vLLM; evaluate with engine: transformers"
        )
    return shipped.get(PENALTY, 1.0)


def _make_model(
    base: Path,
    weights: Path,
    settings: EvaluationSettings,
    wanted: Sequence[protocol.LoraRoom],
    penalty: float,
) -> "VllmModel":
    on_cpu: dict[str, Any] = {
        "enforce_eager": True,  # compiling takes longer than an evaluation
        "distributed_executor_backend": "uni",
        "kv_cache_memory_bytes": int(MOST_MEMORY * psutil.virtual_memory().available),
    }
    asked = VllmModel(  # pyright: ignore[reportAbstractUsage] - VLLM is not
        pretrained=str(weights),
        tokenizer=str(base),
        dtype=str(bases.compute_dtype(settings.precision, for_training=False)).removeprefix(
            "torch."
        ),
        batch_size="auto",
        max_num_seqs=settings.batch_size,
        **(_lora_options(wanted) if wanted else {}),
        **({} if torch.cuda.is_available() else on_cpu),
    )
    asked.penalty = penalty
    return asked


def _lora_options(wanted: Sequence[protocol.LoraRoom]) -> dict[str, Any]:
    """Make room for adapters on these modules only.

    vLLM's CPU build fails at scoring a prompt where ``lm_head`` could have one, too.
    """
    return {
        "enable_lora": True,
        "max_lora_rank": protocol.max_lora_rank(one.rank for one in wanted),
        "lora_target_modules": sorted({name for one in wanted for name in one.modules}),
    }


class VllmEngine:
    """A base in vLLM, and what it wears now."""

    def __init__(self, asked: "VllmModel", adapters: Sequence[Path]) -> None:
        """Take an engine that is loaded, with room for these adapters."""
        self._asked = asked
        self._numbers = {adapter: number for number, adapter in enumerate(adapters, start=1)}
        self.tokenizer: PreTrainedTokenizerBase = asked.tokenizer
        self.length: int = asked.max_length
        self._bare = self._probe()
        self._noise = (self._probe() - self._bare).abs().max()

    @contextmanager
    def wearing(self, adapter: Path | None) -> "Generator[VllmEngine]":
        """Name an adapter in every request, having seen that this changes what is answered.

        Raises:
            NotAppliedError: vLLM refuses it, or it changes nothing.
        """
        if adapter is None:
            yield self
            return
        name = AdapterManifest.read(adapter).key
        worn = LoRARequest(name, self._numbers[adapter], str(adapter))
        try:
            self._asked.model.llm_engine.add_lora(worn)
        except ValueError as error:
            raise AdapterNotAppliedError(
                f"evaluating {adapter}: vLLM refuses it: {error}"
            ) from error
        self._asked.lora_request = worn
        try:
            if (self._probe() - self._bare).abs().max() <= self._noise:
                raise AdapterNotAppliedError(
                    f"evaluating {adapter}: with it on, vLLM finds the words of a text as likely "
                    "as without it; its weights are too small for this precision"
                )
            yield self
        finally:
            self._asked.lora_request = None

    @contextmanager
    def answering(self, stage: str, report: Callable[[Progress], None]) -> "Generator[VllmModel]":
        """Give what lm-eval asks."""
        self._asked.stage, self._asked.report = stage, report
        yield self._asked

    def alone(self, prompt: str) -> tuple[float, float]:
        """Answer one request by itself, and time it; nothing of its prompt is known before."""
        room = self.length - MOST_TOKENS - 1
        tokens = self.tokenizer(prompt, add_special_tokens=False)["input_ids"][-room:]
        first, all_of_them = (self._time(tokens, count) for count in (1, MOST_TOKENS + 1))
        return first, MOST_TOKENS / (all_of_them - first)

    def _time(self, prompt: list[int], count: int) -> float:
        """Write so many tokens, past an end token, too; give the seconds that it took."""
        self._asked.model.reset_prefix_cache()
        settings = SamplingParams(
            temperature=0, max_tokens=count, ignore_eos=True, detokenize=False
        )
        started = time.perf_counter()
        self._asked.ask([prompt], settings)
        return time.perf_counter() - started

    def _probe(self) -> torch.Tensor:
        """Give the log-probabilities of ``applied.PROBE``'s tokens but the first, ``[tokens]``."""
        tokens = self.tokenizer(adapter_checks.PROBE_TEXT)["input_ids"]
        settings = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        (said,) = self._asked.ask([tokens], settings)
        told = zip(said.prompt_logprobs[1:], tokens[1:], strict=True)
        return torch.tensor([of[token].logprob for of, token in told])


class VllmModel(VLLM):
    """What lm-eval asks: its own model of vLLM, which says how far it is.

    ``lora_request`` is the adapter that it wears, ``penalty`` the base's repetition penalty.
    """

    stage: str
    report: Callable[[Progress], None]
    penalty: float

    def loglikelihood(
        self, requests: "list[Instance]", disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Score continuations; ``report`` takes the place of lm-eval's own bar."""
        self._say(0, len(requests))
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = True) -> list[str]:
        """Answer prompts; ``report`` takes the place of lm-eval's own bar.

        Raises:
            ValueError: Answers are to be sampled.
        """
        for one in requests:
            _, settings = cast("tuple[str, dict[str, Any]]", one.args)
            protocol.require_greedy(normalize_gen_kwargs(settings, self.max_gen_toks))
        self._say(0, len(requests))
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def ask(self, prompts: Sequence[list[int]], settings: Any, **named: Any) -> list[Any]:  # noqa: ANN401 - vLLM's own
        """Put prompts to vLLM, by their tokens, in what is worn now; give its outputs."""
        return self.model.generate(
            [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts],
            sampling_params=settings,
            lora_request=self.lora_request,
            **({"use_tqdm": False} | named),
        )

    def modify_gen_kwargs(
        self,
        gen_kwargs: dict[str, Any],
        *settings: Any,  # noqa: ANN401 - they are passed on
        **named: Any,  # noqa: ANN401 - as above
    ) -> tuple[dict[str, Any], list[str], int]:
        """Say how an answer is written; lm-eval lets vLLM sample where a task says nothing."""
        said = {"do_sample": False, PENALTY: self.penalty} | gen_kwargs
        return super().modify_gen_kwargs(said, *settings, **named)

    def _model_generate(
        self,
        requests: list[list[int]],
        generate: bool = False,
        sampling_params: Any = None,  # noqa: ANN401 - vLLM's own
    ) -> list[Any]:
        """Have requests answered or scored, as ``VLLM`` does, and count them.

        An answer's text is that of its tokens without the special ones, as everywhere else.
        """
        if not generate:
            sampling_params = SamplingParams(
                temperature=0, prompt_logprobs=1, max_tokens=1, detokenize=False
            )
        outputs = self.ask(requests, sampling_params, use_tqdm=self._bar)
        for output in outputs if generate else ():
            answer = output.outputs[0]
            answer.text = self.tokenizer.decode(answer.token_ids, skip_special_tokens=True)
        return outputs

    def _bar(self, prompts: Iterable[object] | None = None, **named: Any) -> Any:  # noqa: ANN401
        """Give vLLM what it counts answers with; what it only wants to count prompts with, not."""
        return _ProgressBar(self._say, **named) if prompts is None else prompts

    def _say(self, done: int, asked: int) -> None:
        self.report(Progress(self.stage, done, asked, "requests"))


class _ProgressBar(tqdm):  # pyright: ignore[reportMissingTypeArgument] - it counts, and goes over nothing
    """A bar that nobody sees, and that says how far it is."""

    def __init__(self, say: Callable[[int, int], None], **named: Any) -> None:  # noqa: ANN401
        self._say = say
        super().__init__(**named, file=io.StringIO())

    def update(self, n: float | None = 1) -> bool | None:
        """Count what is done."""
        shown = super().update(n)
        self._say(int(self.n), int(self.total))
        return shown
