"""The tasks of the package's own beside the holdout: what each measures, and how it is asked."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components import canaries, manifest, prompt, rendering
from components.evaluate import leaked, preferred, refusals, remembered
from components.evaluate.settings import BuiltIn, EvaluationSettings
from components.schema import Json
from components.scorecard import Metric, Sample

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

METRICS: dict[BuiltIn, dict[str, Metric]] = {
    "preferences": preferred.METRICS,
    "canaries": remembered.METRICS,
    "secrets": leaked.METRICS,
    "refusals": refusals.METRICS,
}

VERSIONS: dict[BuiltIn, str] = {
    "preferences": manifest.version(1, first="39191aa33d1e0cf9"),
    "canaries": manifest.version(1, first="a84b60d75131daa8"),
    "secrets": manifest.version(1, first="3a64c3283de21a0c"),
    "refusals": manifest.version(1, first="4b293c05f646ac10"),
}
"""The version of how a task is asked and scored: raise its number when its file under
``tests/golden`` changes. Scores of two versions are not comparable."""


def conditions(name: BuiltIn, snapshot: Path, template: str) -> dict[str, Json]:
    """Gather what must be equal for two scorecards of a task to be compared, but for the model."""
    return {
        "task": name,
        "task_version": VERSIONS[name],
        "prompt_format": prompt.FORMAT,
        rendering.TEMPLATE: template,
        **({"pairs": preferred.version(snapshot)} if name == "preferences" else {}),
        **({"canaries": canaries.VERSION} if name == "canaries" else {}),
        **({"rows": leaked.version(snapshot)} if name == "secrets" else {}),
    }


def problems(snapshot: Path, settings: EvaluationSettings) -> list[str]:
    """Say which tasks a snapshot can't measure, and why."""
    look = {"preferences": preferred.problem, "secrets": leaked.problem}
    found = [look[name](snapshot) for name in settings.built_in if name in look]
    return [one for one in found if one is not None]


def asking(
    name: BuiltIn, snapshot: Path, tokenizer: "PreTrainedTokenizerBase", length: int
) -> "Callable[[LM], list[Sample]]":
    """Make a task ready to be asked; ``length`` is the tokens that the model sees."""
    match name:
        case "preferences":
            asked = preferred.documents(snapshot, tokenizer, length)
            return partial(preferred.run, documents=asked)
        case "canaries":
            return partial(remembered.run, documents=remembered.documents(tokenizer))
        case "secrets":
            return partial(leaked.run, documents=leaked.documents(snapshot, tokenizer))
        case "refusals":
            return partial(refusals.run, documents=refusals.documents(tokenizer))
