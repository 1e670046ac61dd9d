"""The engine protocol, greedy settings, and the timing of progress."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psutil

from components.evaluate.constraint import AnswerConstraint
from components.models import device
from components.schema import Progress

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase


_INERT = re.compile(
    "_from_model|transformers_version|(bos|eos|pad)_token_id|use_cache|output_|"
    "do_sample|temperature|top_|min_p|max_"
)
"""Matches default generation settings of a model that don't change its greedy answers: special
tokens, sampling, and lengths."""


def require_greedy(settings: Mapping[str, object]) -> None:
    """Refuse sampling; ``settings`` are as normalized by lm-eval.

    Raises:
        ValueError: Sampling is on.
    """
    if settings["do_sample"]:
        raise ValueError("a holdout is answered greedily, so that its scores are repeatable")


def swaying_settings(defaults: Iterable[str]) -> list[str]:
    """List the settings that may change a greedy answer, such as a repetition penalty."""
    return sorted(name for name in defaults if _INERT.match(name) is None)


@dataclass(frozen=True, slots=True)
class TimeMark:
    """Wall time and CPU time, in seconds."""

    wall: float
    cpu: float


@dataclass(slots=True)
class Stopwatch:
    """Forwards progress and records its times; progress 0 begins a new pass over the requests."""

    report: Callable[[Progress], None]
    passes: list[list[TimeMark]] = field(default_factory=list[list[TimeMark]])
    workers: list[psutil.Process] = field(default_factory=device.child_processes)

    def __call__(self, progress: Progress) -> None:
        """Record the time, and forward the progress."""
        if progress.done == 0 or not self.passes:
            self.passes.append([])
        self.passes[-1].append(TimeMark(time.perf_counter(), device.cpu_seconds(self.workers)))
        self.report(progress)

    @property
    def answering(self) -> TimeMark:
        """The wall time and the CPU time of the first pass; zeros before its second progress."""
        if not self.passes:
            return TimeMark(0.0, 0.0)
        first, last = self.passes[0][0], self.passes[0][-1]
        return TimeMark(last.wall - first.wall, last.cpu - first.cpu)


class EngineError(ValueError):
    """Raised when an engine is not installed, or does not support the base."""


class LoadedAdapter(Protocol):
    """The base with an adapter attached, or without one."""

    def answering(
        self,
        stage: str,
        report: Callable[[Progress], None],
        constraint: AnswerConstraint | None = None,
        *,
        is_chat: bool = False,
    ) -> "AbstractContextManager[LM]":
        """Return a model for lm-eval, whose progress is reported under ``stage``.

        It keeps the answers that it generates within the ``constraint``. ``is_chat``: the prompts
        are a chat template's, so the tokenizer adds no token that begins a text.
        """
        ...

    def alone(self, prompt: str) -> tuple[float, float]:
        """Answer one request; return the seconds to its first token, then the tokens a second."""
        ...


class Engine(Protocol):
    """A loaded base; ``length`` limits prompt and answer together, in tokens."""

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The base's tokenizer."""
        ...

    @property
    def length(self) -> int:
        """The length of the base's context window, in tokens."""
        ...

    def use_adapter(self, adapter: Path | None) -> AbstractContextManager[LoadedAdapter]:
        """Attach an adapter, check that it has an effect, and detach it at the end.

        Raises:
            AdapterNotAppliedError: It does not fit the base, or has no effect.
        """
        ...
