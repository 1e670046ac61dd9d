"""The engine that runs anywhere, at any precision: transformers and PEFT, asked by ``answerer``.

Imported late, since it loads torch.
"""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

from components import adapted
from components import base as bases
from components.evaluate import applied, prefix_engine, speed
from components.evaluate.answerer import Answerer
from components.evaluate.applied import NotAppliedError
from components.evaluate.prefix_engine import PrefixReader
from components.evaluate.settings import EvaluationSettings
from components.schema import Progress

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from peft import PeftModel
    from transformers import PreTrainedModel


class Transformers:
    """A base in this process's memory."""

    def __init__(self, base: Path, settings: EvaluationSettings) -> None:
        """Load it, at the precision of the settings."""
        self.model, self.tokenizer = bases.load(base, settings.precision, for_training=False)
        self.length = getattr(self.model.config, "max_position_embeddings", None) or sys.maxsize
        self.batch_size = settings.batch_size
        self.prefixes = prefix_engine.for_device(self.model.device)
        self._bare = applied.probe(self.model, self.tokenizer)

    @contextmanager
    def wearing(self, adapter: Path | None) -> "Generator[Worn]":
        """Put an adapter on, see that it is really applied, and take it off again.

        Raises:
            NotAppliedError: It does not fit the base, or changes nothing there.
        """
        if adapter is None:
            yield Worn(self, self.model)
            return
        wrapped = _put_on(self.model, adapter)
        try:
            applied.require_applied(wrapped, adapter, self.tokenizer, self._bare)
            yield Worn(self, wrapped)
        finally:
            adapted.take_off(wrapped)


class Worn:
    """The base with an adapter on, or without one."""

    def __init__(self, engine: Transformers, model: "PreTrainedModel | PeftModel") -> None:
        """Take what the engine holds; what is made of its weights serves all tasks."""
        self._engine, self._model = engine, model
        self._reader = PrefixReader(model) if engine.prefixes else None

    @contextmanager
    def answering(self, stage: str, report: Callable[[Progress], None]) -> "Generator[LM]":
        """Give what lm-eval asks."""
        engine, prefixes, reader = self._engine, self._engine.prefixes, self._reader
        with prefixes.threads() if prefixes else nullcontext():
            answerer = Answerer(  # pyright: ignore[reportAbstractUsage] - HFLM is not
                self._model,
                engine.tokenizer,
                engine.batch_size,
                reader=reader if prefixes and reader and prefixes.fits(reader) else None,
                stage=stage,
                report=report,
            )
            yield cast("LM", answerer)

    def alone(self, prompt: str) -> tuple[float, float]:
        """Answer one request by itself, and time it."""
        return speed.alone(self._model, self._engine.tokenizer, prompt)


def _put_on(model: "PreTrainedModel", adapter: Path) -> "PeftModel":
    try:
        return adapted.put_on(model, adapter)
    except (UserWarning, ValueError) as error:
        raise NotAppliedError(f"evaluating {adapter}: it does not fit the base: {error}") from error
