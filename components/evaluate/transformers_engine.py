"""The engine that runs anywhere, at any precision: transformers and PEFT, asked by ``answerer``.

Imported late, since it loads torch.
"""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from components import adapted
from components import base as bases
from components.evaluate import applied, speed, threads
from components.evaluate.answerer import Answerer
from components.evaluate.applied import NotAppliedError
from components.evaluate.blocked import Blocked
from components.evaluate.settings import EvaluationSettings
from components.schema import Progress

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from components.evaluate.reading import Model


class Transformers:
    """A base in this process's memory."""

    def __init__(self, base: Path, settings: EvaluationSettings) -> None:
        """Load it, at the precision of the settings."""
        self._model, self.tokenizer = bases.load(base, settings.precision, for_training=False)
        self.length = getattr(self._model.config, "max_position_embeddings", None) or sys.maxsize
        self._batch_size = settings.batch_size
        self._bare = applied.probe(self._model, self.tokenizer)

    @contextmanager
    def wearing(self, adapter: Path | None) -> "Generator[Worn]":
        """Put an adapter on, see that it is really applied, and take it off again.

        Raises:
            NotAppliedError: It does not fit the base, or changes nothing there.
        """
        if adapter is None:
            yield Worn(self._model, self.tokenizer, self._batch_size)
            return
        wrapped = _put_on(self._model, adapter)
        try:
            applied.require_applied(wrapped, adapter, self.tokenizer, self._bare)
            yield Worn(wrapped, self.tokenizer, self._batch_size)
        finally:
            adapted.take_off(wrapped)


@dataclass
class Worn:
    """The base with an adapter on, or without one."""

    model: "Model"
    tokenizer: "PreTrainedTokenizerBase"
    batch_size: int

    @contextmanager
    def answering(self, stage: str, report: Callable[[Progress], None]) -> "Generator[LM]":
        """Give what lm-eval asks, with as many threads as are fastest now."""
        with threads.chosen(self.model.device):
            yield cast(
                "LM",
                Answerer(  # pyright: ignore[reportAbstractUsage] - HFLM is not
                    self._blocks, self.tokenizer, self.batch_size, stage=stage, report=report
                ),
            )

    def alone(self, prompt: str) -> tuple[float, float]:
        """Answer one request by itself, and time it."""
        return speed.alone(self.model, self.tokenizer, prompt)

    @cached_property
    def _blocks(self) -> Blocked:
        """The weights in blocks, laid once for all tasks."""
        return Blocked(self.model)


def _put_on(model: "PreTrainedModel", adapter: Path) -> "PeftModel":
    try:
        return adapted.put_on(model, adapter)
    except (UserWarning, ValueError) as error:
        raise NotAppliedError(f"evaluating {adapter}: it does not fit the base: {error}") from error
