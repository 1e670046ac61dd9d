"""Answers on a CPU from a prefix cache; on CUDA lm-eval's own model computes them.

Imported late, since it loads torch.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeAlias

from components.extensions.cpu.prefix_cache import forward
from components.extensions.cpu.prefix_cache.generate import (
    ConstrainedRow,
    GenerationLimits,
    greedy,
    likelihoods,
)
from components.extensions.cpu.prefix_cache.weights import Blocked
from components.models.constrained import ConstrainedAnswer, Vocabulary
from components.models.threads import Threads

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from components.evaluate.engines.prompt_reader import TreeReader

    Model: TypeAlias = PreTrainedModel | PeftModel

TOKENS_AT_ONCE = 24
"""Tokens per forward pass, for each request of a batch: with a batch of 16, 384 tokens are fastest
(128: 9 % slower, 1024: 24 %, on SmolLM2-135M), since a larger pass masks more of its pairs."""

SLOTS = 2
"""Slots for each request of a batch. A step of 32 takes 1.5 times as long as one of 16
(SmolLM2-135M), and a slot takes less memory than a request of ``HFLM``: only keys and values, no
logits of a whole prompt."""


class PrefixEngine:
    """The state that a base's adapters share: the thread count, and whether it can read trees."""

    def __init__(self) -> None:
        self._threads = Threads()
        self._fits: bool | None = None

    def threads(self) -> AbstractContextManager[int]:
        """Compute with the number of threads that is fastest now."""
        return self._threads.chosen()

    def reader(self, model: "Model") -> "PrefixReader":
        """Return what reads prompts with this model."""
        return PrefixReader(model)

    def fits(self, reader: "TreeReader") -> bool:
        """Return whether the base computes the same on a tree as on rows; tested once."""
        if self._fits is None:
            self._fits = reader.fits()
        return self._fits


class PrefixReader:
    """A model that reads prompts as a tree; its weights are copied into blocks once."""

    def __init__(self, model: "Model") -> None:
        self.model, self._blocks = model, Blocked(model)

    def fits(self) -> bool:
        """Test whether the model computes the same on a tree as on rows."""
        return forward.can_pack(self.model, self._blocks)

    def answer(
        self,
        requests: Sequence[ConstrainedRow],
        is_over: Callable[[Sequence[int]], bool],
        most: int,
        *,
        vocabulary: Vocabulary | None,
        batch_size: int,
        report: Callable[[int], None],
    ) -> list[ConstrainedAnswer]:
        """Answer prompts greedily; see ``generate.greedy``."""
        with self._blocks:
            return greedy(
                self.model,
                requests,
                GenerationLimits(is_over, most),
                slots=batch_size * SLOTS,
                room=batch_size * TOKENS_AT_ONCE,
                report=report,
                vocabulary=vocabulary,
            )

    def score(
        self,
        requests: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        window: int,
        batch_size: int,
        report: Callable[[int], None],
    ) -> list[tuple[float, bool]]:
        """Score continuations; see ``generate.likelihoods``."""
        room = batch_size * TOKENS_AT_ONCE
        with self._blocks:
            return likelihoods(self.model, requests, window=window, room=room, report=report)
