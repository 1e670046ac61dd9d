"""What an engine is, what each can load, how long it answers, and the error when it cannot."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import psutil

from components.models import device
from components.schema import Progress

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

    from components.evaluate.settings import EngineName


_INERT = re.compile(
    "_from_model|transformers_version|(bos|eos|pad)_token_id|use_cache|output_|"
    "do_sample|temperature|top_|min_p|max_"
)
"""Begin the names of generation settings that a model may be shipped with and that leave its
greedy answers as they are: tokens that are handled, sampling, and lengths."""


def require_greedy(settings: Mapping[str, object]) -> None:
    """Refuse to sample; ``settings`` are as lm-eval normalizes them.

    Raises:
        ValueError: Answers are to be sampled.
    """
    if settings["do_sample"]:
        raise ValueError("a holdout is answered greedily, so that its scores are repeatable")


def swaying_settings(shipped: Iterable[str]) -> list[str]:
    """Name the settings that may sway a greedy answer, such as a repetition penalty."""
    return sorted(name for name in shipped if _INERT.match(name) is None)


VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What its ``max_lora_rank`` can be."""

VLLM_HEAD = "lm_head"
"""The output layer. vLLM leaves its LoRA out where it scores a prompt's tokens (vllm#51594, open),
and so would likelihoods."""


@dataclass(frozen=True, slots=True)
class LoraRoom:
    """What an adapter wants room for: its rank, and the names of the modules that it is on."""

    rank: int
    modules: tuple[str, ...]


def vllm_objections(config: Mapping[str, object]) -> list[str]:
    """Say why vLLM can't put an adapter on; nothing where it can.

    Args:
        config: PEFT's, as ``adapter_config.json`` has it.
    """
    return [*_vllm_objections(config)]


def _vllm_objections(config: Mapping[str, object]) -> Iterable[str]:
    method = str(config.get("peft_type", "LORA"))
    if method != "LORA":
        yield f"it is of PEFT's method {method}, and vLLM takes LORA"
    if config.get("use_dora"):
        yield "use_dora: vLLM takes no DoRA"
    if saved := _names(config.get("modules_to_save")):
        yield f"modules_to_save ({', '.join(saved)}): vLLM takes none that are trained whole"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        yield "bias: vLLM takes no trained biases"
    if VLLM_HEAD in _names(config.get("target_modules")):
        yield f"target_modules: vLLM leaves {VLLM_HEAD}'s LoRA out of the likelihoods of a prompt"
    if (found := _highest_rank(config)) > VLLM_RANKS[-1]:
        yield f"its rank is {found}, and vLLM takes {VLLM_RANKS[-1]} at most"


def lora_room_of(config: Mapping[str, object]) -> LoraRoom:
    """Say what an adapter wants room for; its ``target_modules`` are names."""
    return LoraRoom(_highest_rank(config), _names(config["target_modules"]))


def max_lora_rank(ranks: Iterable[int]) -> int:
    """Give the least ``max_lora_rank`` that has room for adapters of these ranks."""
    most = max(ranks)
    return next(one for one in VLLM_RANKS if one >= most)


def _highest_rank(config: Mapping[str, object]) -> int:
    """Give the highest rank of an adapter's modules."""
    patterns = cast("Mapping[str, int]", config.get("rank_pattern") or {})
    return max(cast("int", config.get("r", 0)), *patterns.values(), 0)


def _names(listed: object) -> tuple[str, ...]:
    """Read a list of names; a pattern, or nothing, names none."""
    return tuple(cast("list[str]", listed)) if isinstance(listed, list | tuple) else ()


@dataclass(frozen=True, slots=True)
class TimeMark:
    """A moment: of the clock, and of the CPU time that was used up to it; in seconds."""

    wall: float
    cpu: float


@dataclass(slots=True)
class Stopwatch:
    """Passes progress on, and keeps when it came; a new pass over the requests begins at zero."""

    report: Callable[[Progress], None]
    passes: list[list[TimeMark]] = field(default_factory=list[list[TimeMark]])
    workers: list[psutil.Process] = field(default_factory=device.child_processes)

    def __call__(self, progress: Progress) -> None:
        """Pass a line of progress on."""
        if progress.done == 0 or not self.passes:
            self.passes.append([])
        self.passes[-1].append(TimeMark(time.perf_counter(), device.cpu_seconds(self.workers)))
        self.report(progress)

    @property
    def answering(self) -> TimeMark:
        """The wall time and the CPU time of the first pass; zeros before its second line."""
        if not self.passes:
            return TimeMark(0.0, 0.0)
        first, last = self.passes[0][0], self.passes[0][-1]
        return TimeMark(last.wall - first.wall, last.cpu - first.cpu)


class EngineError(ValueError):
    """An engine that is not installed, or can't do what is asked of it."""


class LoadedAdapter(Protocol):
    """The base with an adapter on, or without one."""

    def answering(
        self, stage: str, report: Callable[[Progress], None]
    ) -> "AbstractContextManager[LM]":
        """Give what lm-eval asks.

        ``report`` hears of ``stage`` before the first request, and as they are done.
        """
        ...

    def alone(self, prompt: str) -> tuple[float, float]:
        """Answer one request by itself, and time it.

        Returns:
            The seconds to the answer's first token, and the tokens a second after it.
        """
        ...


class Engine(Protocol):
    """A base that is loaded; ``length`` bounds prompt and answer together, in tokens."""

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base's tokenizer."""
        ...

    @property
    def length(self) -> int:
        """The most tokens that the base sees."""
        ...

    def wearing(self, adapter: Path | None) -> AbstractContextManager[LoadedAdapter]:
        """Put an adapter on, see that it is really applied, and take it off again.

        Raises:
            NotAppliedError: It does not fit the base, or changes nothing there.
        """
        ...


def require_installed(engine: "EngineName") -> dict[str, str]:
    """Refuse an engine that is not installed; give the versions of what only it is made of.

    Raises:
        EngineError: It is not.
    """
    if engine != "vllm":
        return {}
    try:
        return {"vllm": version("vllm")}
    except PackageNotFoundError as error:
        raise EngineError(
            "evaluating with engine: vllm: the package vllm is not installed where this runs; "
            "infra/README.md says how, or evaluate with engine: transformers"
        ) from error
