"""Pick the engine that the settings name and load a base in it."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.evaluate.engines import Engine

if TYPE_CHECKING:
    from components.evaluate.settings import EvaluationSettings


@contextmanager
def loaded(
    base: Path, settings: "EvaluationSettings", adapters: Sequence[Path]
) -> Generator[Engine]:
    """Load a base for an evaluation, in the engine that its settings name.

    Args:
        base: The base's folder.
        settings: How models are asked.
        adapters: All that will be put on it.

    Raises:
        EngineError: The engine is not installed, or can't do what is asked of it.
        NotAppliedError: An adapter is none that the engine can put on.
    """
    if settings.engine == "vllm":
        from components.evaluate import vllm_engine  # noqa: PLC0415 - loads vLLM

        with vllm_engine.loaded(base, settings, adapters) as engine:
            yield engine
    else:
        from components.evaluate.transformers_engine import Transformers  # noqa: PLC0415 - torch

        yield Transformers(base, settings)
