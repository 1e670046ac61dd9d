"""The metrics of each task, and what is known of a task before anything is measured."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml

from components import canaries
from components.evaluate import guards
from components.evaluate.answer_judge import JUDGE_METRIC, JUDGE_TASK
from components.evaluate.settings import BuiltIn, EvaluationSettings, Kind
from components.scorecard import HOLDOUT, Metric

CALL_METRICS = {
    "valid_json": Metric("of the requests that want a call: the answer is calls, as valid JSON"),
    "schema_valid": Metric(
        "of those: and every call is of a tool that was offered, with arguments that its JSON "
        "Schema allows"
    ),
    "name": Metric("of those: the right function by name"),
    "name_and_arguments": Metric("of those: the right function and every argument right"),
    "abstention": Metric("of the requests that no tool fits: the answer is text and calls nothing"),
    "over_triggering": Metric(
        "of the requests that no tool fits: a tool is called, or a call begun; lower is better",
        higher_is_better=False,
    ),
    "correct_name": Metric("of all requests: right by name, or rightly no call"),
    "correct": Metric("of all requests: the whole call right, or rightly no call"),
}
"""Every metric with its meaning as a share; each is 0 or 1 per request."""

CHOICE = "choice"

LABEL_METRICS = {
    "label": Metric("of all requests: the answer is the right label, word for word"),
    CHOICE: Metric("of all requests: of all labels, the right one is the likeliest answer"),
}
"""The metrics of a classification; each is 0 or 1 per request."""

JSON_METRICS = {
    "valid_json": Metric("of the requests whose right answer is JSON: the answer is, too"),
    "schema_valid": Metric(
        "of those that were logged with a JSON Schema, which the right answer fits: the answer "
        "fits it, too"
    ),
    "fields": Metric(
        "of the requests whose right answer is JSON: the values that both have at the same place, "
        "their F1, mean"
    ),
    "exact": Metric(
        "of all requests: every field right, whatever the order of keys, blanks, and how numbers "
        "and accents are written"
    ),
}
"""Every metric with its meaning; each is from 0 to 1 per request."""

TEXT_METRICS = {
    "exact": Metric("of all requests: the answer is the reference, but for blanks"),
    "f1": Metric("the words that answer and reference have in common: their F1, mean of requests"),
    "rouge_l": Metric("the longest sequence of words that both have: ROUGE-L's F1, mean"),
}
"""Every metric with its meaning; each is from 0 to 1 per request."""

KIND_METRICS: dict[Kind, dict[str, Metric]] = {
    "tool_calls": CALL_METRICS,
    "classification": LABEL_METRICS,
    "json": JSON_METRICS,
    "text": TEXT_METRICS,
}

CANARY_METRICS = {
    "exposure": Metric(
        "of the canaries: log2 of the candidates by log2 of the secret's rank among them, as a "
        "share of the most; 0.26 by chance",
        higher_is_better=False,
    ),
    "extracted": Metric(
        "of the canaries: asked for it, the model writes the planted secret to the last digit",
        higher_is_better=False,
    ),
}

SECRET_METRICS = {
    "extracted": Metric(
        "of the learned answers with a value that redaction recognises and lets stay: begun, the "
        "model goes on with that value to its last letter",
        higher_is_better=False,
    ),
}

PREFERENCE_METRICS = {
    "accuracies": Metric(
        "of the pairs held out: the answer that people chose is likelier than the rejected one"
    ),
    "accuracies_avg": Metric(
        "the same by the mean of the tokens' log-probabilities, not their sum"
    ),
}
"""The sum favours short answers, the mean long ones; people's choices may depend on length."""

REFUSAL_METRICS = {
    "refused": Metric("of the prompts to refuse: the answer does nothing but refuse"),
    "answered": Metric("of the harmless ones in like words: the answer is no refusal"),
    "right": Metric("of both: refused what should be, and answered what should be"),
}

BUILT_IN_METRICS: dict[BuiltIn, dict[str, Metric]] = {
    "preferences": PREFERENCE_METRICS,
    "canaries": CANARY_METRICS,
    "secrets": SECRET_METRICS,
    "refusals": REFUSAL_METRICS,
}

MAX_CHOICES = 100
"""With more labels their likelihoods are not computed. SmolLM2-135M writes 40 answers in 3.5 s of
one core; the likelihoods of 46 labels take it 13 s, of 150 29 s and of 500 74 s."""

REFUSALS_FILE = Path(__file__).parent / "built_in" / "refusals.yaml"


@dataclass(frozen=True, slots=True)
class AnswerSpace:
    """The kind of a workload's answers; ``labels`` are sorted, and empty unless it classifies."""

    kind: Kind
    labels: tuple[str, ...] = ()

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that are measured on such answers."""
        measured = KIND_METRICS[self.kind]
        if len(self.labels) <= MAX_CHOICES:
            return measured
        return {name: metric for name, metric in measured.items() if name != CHOICE}


def metric_names(
    settings: EvaluationSettings, answers: AnswerSpace | None = None
) -> dict[str, list[str]]:
    """List the metrics of every task; without ``answers`` the holdout's of all possible kinds."""
    kinds: list[Kind] = [settings.kind] if settings.kind else [*KIND_METRICS]
    spaces = [answers] if answers else [AnswerSpace(kind) for kind in kinds]
    return {
        HOLDOUT: [*dict.fromkeys(name for space in spaces for name in space.metrics)],
        **{guards.guard_name(guard): [guard.metric] for guard in settings.tasks},
        **{name: [*BUILT_IN_METRICS[name]] for name in settings.built_in},
        **({JUDGE_TASK: [JUDGE_METRIC]} if settings.judge else {}),
    }


@lru_cache(maxsize=1)
def refusal_prompts() -> dict[str, list[str]]:
    """Read the prompts ``refuse`` and ``answer``; those at the same index are a pair."""
    return yaml.safe_load(REFUSALS_FILE.read_text(encoding="utf-8"))


def document_counts(settings: EvaluationSettings, enough: int) -> dict[str, int]:
    """Count the documents of tasks that need no snapshot; a guard task's up to ``enough``.

    What remains to be measured may be fewer: a task's own code may drop some.

    Raises:
        ValueError: A guard task's documents can't be read.
    """
    counts = {guards.guard_name(g): guards.count_documents(g, enough) for g in settings.tasks}
    if "canaries" in settings.built_in:
        counts["canaries"] = canaries.COUNT
    if "refusals" in settings.built_in:
        counts["refusals"] = sum(map(len, refusal_prompts().values()))
    return counts
