"""Pick how transformers' answers are computed on a CPU; on CUDA lm-eval's own model computes them.

Only this module imports ``components.evaluate.prefix_cache``: without that package, this module and
what calls it, answers on a CPU take longer.
Imported late, since it loads torch.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeAlias

import torch  # noqa: TID253 - this module is itself imported late

from components.evaluate.prefix_cache import forward
from components.evaluate.prefix_cache.generate import GenerationLimits, greedy, likelihoods
from components.evaluate.prefix_cache.weights import Blocked, Threads

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    Model: TypeAlias = PreTrainedModel | PeftModel

TOKENS_AT_ONCE = 24
"""Read in one pass for each request that is answered at once: 384 tokens are read fastest (128: 9 %
slower, 1024: 24 %, on SmolLM2-135M): more of them hide more of each other."""

SLOTS = 2
"""Answers that are written at once for each request that is answered at once. A step of 32 takes
1.5 times one of 16 (SmolLM2-135M), and a slot takes less memory than a request of ``HFLM``: it
holds keys and values alone, and no logits of a whole prompt."""


class PrefixEngine:
    """What a base answers with, and whatever adapter is on it."""

    def __init__(self) -> None:
        self._threads = Threads()
        self._fits: bool | None = None

    def threads(self) -> AbstractContextManager[int]:
        """Compute with as many threads as are fastest now."""
        return self._threads.chosen()

    def fits(self, reader: "PrefixReader") -> bool:
        """Tell whether the base reads a tree as it reads rows, whatever adapter is on it.

        It is tried once, by the reader's model.
        """
        if self._fits is None:
            self._fits = reader.fits()
        return self._fits


class PrefixReader:
    """One model, of which prompts are read as a tree; its weights are laid in blocks once."""

    def __init__(self, model: "Model") -> None:
        self.model, self._blocks = model, Blocked(model)

    def fits(self) -> bool:
        """Tell whether the model reads a tree as it reads rows, by trying."""
        return forward.can_pack(self.model, self._blocks)

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        is_over: Callable[[Sequence[int]], bool],
        most: int,
        *,
        batch_size: int,
        report: Callable[[int], None],
    ) -> list[list[int]]:
        """Answer prompts greedily, see ``generate.greedy``."""
        with self._blocks:
            return greedy(
                self.model,
                prompts,
                GenerationLimits(is_over, most),
                slots=batch_size * SLOTS,
                room=batch_size * TOKENS_AT_ONCE,
                report=report,
            )

    def score(
        self,
        requests: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        window: int,
        batch_size: int,
        report: Callable[[int], None],
    ) -> list[tuple[float, bool]]:
        """Score continuations, see ``choices.likelihoods``."""
        with self._blocks:
            return likelihoods(
                self.model,
                requests,
                window=window,
                room=batch_size * TOKENS_AT_ONCE,
                report=report,
            )


def for_device(device: torch.device) -> PrefixEngine | None:
    """Return the engine for a base on a device; ``None`` for all but CPUs."""
    return PrefixEngine() if device.type == "cpu" else None
