"""The tasks of the package's own beside the holdout: what each measures, and how it is asked."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components import manifest
from components.evaluate import preferred
from components.evaluate.settings import BuiltIn, EvaluationSettings
from components.schema import Json
from components.scorecard import Metric, Sample

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

METRICS: dict[BuiltIn, dict[str, Metric]] = {"preferences": preferred.METRICS}

MODULES: dict[BuiltIn, tuple[str, ...]] = {"preferences": ("posing", "preferred")}
"""What a task is made by: scores made by other code are not comparable."""


def conditions(name: BuiltIn, snapshot: Path, template: str) -> dict[str, Json]:
    """Gather what must be equal for two scorecards of a task to be compared, but for the model."""
    files = [manifest.file_digest(Path(__file__).with_name(f"{one}.py")) for one in MODULES[name]]
    return {
        "task": name,
        "task_version": manifest.digest(files),
        **preferred.conditions(snapshot, template),
    }


def problems(snapshot: Path, settings: EvaluationSettings) -> list[str]:
    """Say which tasks a snapshot can't measure, and why."""
    found = [preferred.problem(snapshot)] if "preferences" in settings.built_in else []
    return [one for one in found if one is not None]


def asking(
    name: BuiltIn, snapshot: Path, tokenizer: "PreTrainedTokenizerBase", length: int
) -> "Callable[[LM], list[Sample]]":
    """Make a task ready to be asked; ``length`` is the tokens that the model sees."""
    return partial(preferred.run, documents=preferred.documents(snapshot, tokenizer, length))
