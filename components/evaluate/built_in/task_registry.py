"""The built-in tasks: metrics, versions, conditions, required snapshot content, and runners."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from components import canaries
from components.chat import chat_templates
from components.evaluate.built_in import memorization, preference_accuracy, refusal_behaviour
from components.evaluate.settings import BuiltIn, EvaluationSettings
from components.schema import Json
from components.scorecard import Sample
from components.store import manifest

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

BUILT_IN_VERSIONS: dict[BuiltIn, str] = {
    "preferences": manifest.version(1, first="39191aa33d1e0cf9"),
    "canaries": manifest.version(1, first="a84b60d75131daa8"),
    "secrets": manifest.version(1, first="3a64c3283de21a0c"),
    "refusals": manifest.version(1, first="4b293c05f646ac10"),
}
"""The version of a task's prompts and scoring: raise its number when its file under
``tests/golden`` changes. Scores of two versions are not comparable."""


def built_in_conditions(name: BuiltIn, snapshot: Path, base: Path) -> dict[str, Json]:
    """Return the conditions that must be equal for two scorecards of a task to be compared."""
    return {
        "task": name,
        "task_version": BUILT_IN_VERSIONS[name],
        **chat_templates.conditions(base),
        **(
            {"pairs": preference_accuracy.preference_version(snapshot)}
            if name == "preferences"
            else {}
        ),
        **({"canaries": canaries.VERSION} if name == "canaries" else {}),
        **({"rows": memorization.secret_version(snapshot)} if name == "secrets" else {}),
    }


def built_in_problems(snapshot: Path, settings: EvaluationSettings) -> list[str]:
    """List the tasks that a snapshot can't measure, with the reason."""
    checks = {
        "preferences": preference_accuracy.preference_problem,
        "secrets": memorization.secret_problem,
    }
    problems = [checks[name](snapshot) for name in settings.built_in if name in checks]
    return [problem for problem in problems if problem is not None]


def prepare_built_in(
    name: BuiltIn, snapshot: Path, tokenizer: "PreTrainedTokenizerBase", length: int
) -> "Callable[[LM], list[Sample]]":
    """Return a function that runs a model on a task; ``length`` is its context window in tokens."""
    match name:
        case "preferences":
            documents = preference_accuracy.preference_documents(snapshot, tokenizer, length)
            return partial(preference_accuracy.run_preferences, documents=documents)
        case "canaries":
            documents = memorization.canary_documents(tokenizer)
            return partial(memorization.run_canaries, documents=documents)
        case "secrets":
            documents = memorization.secret_documents(snapshot, tokenizer)
            return partial(memorization.run_secrets, documents=documents)
        case "refusals":
            documents = refusal_behaviour.refusal_documents(tokenizer)
            return partial(refusal_behaviour.run_refusals, documents=documents)
