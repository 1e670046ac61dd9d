"""What computes the answers: one load of the base, which wears adapters by turns.

The harness asks every engine the same tasks in the same words, through lm-eval. An engine stands in
the conditions, so scores of two are never compared.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from components.schema import Progress

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

    from components.evaluate.settings import EngineName


class EngineError(ValueError):
    """An engine that is not installed, or can't do what is asked of it."""


class Worn(Protocol):
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

    def wearing(self, adapter: Path | None) -> AbstractContextManager[Worn]:
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
