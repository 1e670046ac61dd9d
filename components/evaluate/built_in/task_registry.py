"""The built-in tasks: metrics, versions, what a snapshot lacks for them, and how they are run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components import canaries
from components.chat import chat_templates, prompt
from components.evaluate.built_in import memorization, preference_accuracy, refusal_behaviour
from components.evaluate.settings import BuiltIn, EvaluationSettings
from components.schema import Json
from components.scorecard import Metric, Sample
from components.store import manifest

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

BUILT_IN_METRICS: dict[BuiltIn, dict[str, Metric]] = {
    "preferences": preference_accuracy.PREFERENCE_METRICS,
    "canaries": memorization.CANARY_METRICS,
    "secrets": memorization.SECRET_METRICS,
    "refusals": refusal_behaviour.REFUSAL_METRICS,
}

BUILT_IN_VERSIONS: dict[BuiltIn, str] = {
    "preferences": manifest.version(1, first="39191aa33d1e0cf9"),
    "canaries": manifest.version(1, first="a84b60d75131daa8"),
    "secrets": manifest.version(1, first="3a64c3283de21a0c"),
    "refusals": manifest.version(1, first="4b293c05f646ac10"),
}
"""The version of how a task is asked and scored: raise its number when its file under
``tests/golden`` changes. Scores of two versions are not comparable."""


def built_in_conditions(name: BuiltIn, snapshot: Path, template: str) -> dict[str, Json]:
    """Gather what must be equal for two scorecards of a task to be compared, but for the model."""
    return {
        "task": name,
        "task_version": BUILT_IN_VERSIONS[name],
        "prompt_format": prompt.FORMAT,
        chat_templates.TEMPLATE: template,
        **(
            {"pairs": preference_accuracy.preference_version(snapshot)}
            if name == "preferences"
            else {}
        ),
        **({"canaries": canaries.VERSION} if name == "canaries" else {}),
        **({"rows": memorization.secret_version(snapshot)} if name == "secrets" else {}),
    }


def built_in_problems(snapshot: Path, settings: EvaluationSettings) -> list[str]:
    """Say which tasks a snapshot can't measure, and why."""
    look = {
        "preferences": preference_accuracy.preference_problem,
        "secrets": memorization.secret_problem,
    }
    found = [look[name](snapshot) for name in settings.built_in if name in look]
    return [one for one in found if one is not None]


def prepare_built_in(
    name: BuiltIn, snapshot: Path, tokenizer: "PreTrainedTokenizerBase", length: int
) -> "Callable[[LM], list[Sample]]":
    """Make a task ready to be asked; ``length`` is the tokens that the model sees."""
    match name:
        case "preferences":
            asked = preference_accuracy.preference_documents(snapshot, tokenizer, length)
            return partial(preference_accuracy.run_preferences, documents=asked)
        case "canaries":
            return partial(
                memorization.run_canaries, documents=memorization.canary_documents(tokenizer)
            )
        case "secrets":
            return partial(
                memorization.run_secrets,
                documents=memorization.secret_documents(snapshot, tokenizer),
            )
        case "refusals":
            return partial(
                refusal_behaviour.run_refusals,
                documents=refusal_behaviour.refusal_documents(tokenizer),
            )
