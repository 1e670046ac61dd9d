"""The engine that runs anywhere, at any precision: transformers and PEFT, asked by ``answerer``.

Imported late, since it loads torch.
"""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from components import adapted
from components import base as bases
from components.evaluate import applied, reading, speed
from components.evaluate.answerer import Answerer
from components.evaluate.applied import NotAppliedError
from components.evaluate.blocked import Blocked
from components.evaluate.settings import EvaluationSettings
from components.evaluate.threads import Threads
from components.schema import Progress

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from peft import PeftModel
    from transformers import PreTrainedModel

    from components.evaluate.reading import Model


class Transformers:
    """A base in this process's memory."""

    def __init__(self, base: Path, settings: EvaluationSettings) -> None:
        """Load it, at the precision of the settings."""
        self.model, self.tokenizer = bases.load(base, settings.precision, for_training=False)
        self.length = getattr(self.model.config, "max_position_embeddings", None) or sys.maxsize
        self.batch_size, self.threads = settings.batch_size, Threads()
        self._bare = applied.probe(self.model, self.tokenizer)
        self._packs: bool | None = None

    def packs(self, blocks: Blocked) -> bool:
        """Tell whether the base reads a tree as it reads rows, whatever it wears; tried once."""
        if self._packs is None:
            self._packs = reading.can_pack(blocks.model, blocks)
        return self._packs

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

    def __init__(self, engine: Transformers, model: "Model") -> None:
        """Take what the engine holds; its weights are laid in blocks once for all tasks."""
        self._engine, self._model, self._blocks = engine, model, Blocked(model)

    @contextmanager
    def answering(self, stage: str, report: Callable[[Progress], None]) -> "Generator[LM]":
        """Give what lm-eval asks, with as many threads as are fastest now."""
        engine = self._engine
        with engine.threads.chosen(self._model.device):
            answerer = Answerer(  # pyright: ignore[reportAbstractUsage] - HFLM is not
                self._blocks,
                engine.tokenizer,
                engine.batch_size,
                packs=engine.packs(self._blocks),
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
