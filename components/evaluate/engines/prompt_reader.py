"""The port to what reads prompts as a tree; on CUDA lm-eval's own model reads them in rows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from components.models.constrained import ConstrainedAnswer, Vocabulary

MODULES = {"cpu": "components.extensions.cpu.prefix_engine"}
"""What has a ``PrefixEngine`` for a type of device."""


class TreeReader(Protocol):
    """A model that reads prompts as a tree."""

    def fits(self) -> bool:
        """Test whether the model computes the same on a tree as on rows."""
        ...

    def answer(
        self,
        requests: Sequence[tuple[Sequence[int], str | None]],
        is_over: Callable[[Sequence[int]], bool],
        most: int,
        *,
        vocabulary: "Vocabulary | None",
        batch_size: int,
        report: Callable[[int], None],
    ) -> "list[ConstrainedAnswer]":
        """Answer prompts, each with the grammar of its answer, greedily by ``most`` tokens."""
        ...

    def score(
        self,
        requests: Sequence[tuple[Sequence[int], Sequence[int]]],
        *,
        window: int,
        batch_size: int,
        report: Callable[[int], None],
    ) -> list[tuple[float, bool]]:
        """Score the continuations of contexts, as ``transformers_engine`` in padded batches."""
        ...


class PromptEngine(Protocol):
    """What a base's adapters share: the thread count, and whether it can read trees."""

    def threads(self) -> AbstractContextManager[int]:
        """Compute with the number of threads that is fastest now."""
        ...

    def reader(self, model: "PreTrainedModel | PeftModel") -> TreeReader:
        """Return what reads prompts with this model."""
        ...

    def fits(self, reader: TreeReader) -> bool:
        """Return whether the base computes the same on a tree as on rows; tested once."""
        ...


def for_device(device: str) -> PromptEngine | None:
    """Return the engine for a device type; ``None`` where prompts are read in rows."""
    module = MODULES.get(device)
    return import_module(module).PrefixEngine() if module else None
