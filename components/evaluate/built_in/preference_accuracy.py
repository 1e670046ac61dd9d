"""Task `preferences`: is a chosen answer likelier to the model than the rejected one?"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pyarrow.parquet as pq

from components.chat import chat_templates, dialects, prompt
from components.evaluate import holdout_task, lm_eval_tasks
from components.schema import Json, Message
from components.scorecard import Metric, Sample
from components.store import manifest

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

PREFERENCE_FILE = "holdout_preferences.parquet"

PREFERENCE_METRICS = {
    "accuracies": Metric(
        "of the pairs held out: the answer that people chose is likelier than the rejected one"
    ),
    "accuracies_avg": Metric(
        "the same by the mean of the tokens' log-probabilities, not their sum"
    ),
}
"""The sum favours short answers, the mean long ones; people's own choices may be about length."""

PREFERENCE_COLUMNS = (
    "preference_id",
    "request",
    "chosen",
    "rejected",
    "source",
    "group",
    "client_id",
    "language",
)
"""What a pair is asked and sliced by: another weight makes no other task."""

PreferenceDocument: TypeAlias = dict[str, str | int]


def preference_rows(snapshot: Path) -> list[dict[str, Any]]:
    """Read the pairs that a snapshot holds out; older snapshots hold none out."""
    path = snapshot / PREFERENCE_FILE
    if not path.exists():
        return []
    return pq.read_table(
        path, columns=holdout_task.with_clusters(path, PREFERENCE_COLUMNS)
    ).to_pylist()


def preference_problem(snapshot: Path) -> str | None:
    """Say why a snapshot can't measure this; ``None`` if it can."""
    if preference_rows(snapshot):
        return None
    return (
        "preferences: the snapshot holds no pair out, since nobody compared or corrected an answer "
        "to a request of the holdout; leave it out of evaluate.built_in until somebody has"
    )


def preference_version(snapshot: Path) -> str:
    """Name the pairs by all that is asked of them: scores of others are not comparable."""
    return manifest.digest(preference_rows(snapshot))


def preference_documents(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", length: int
) -> list[PreferenceDocument]:
    """Read the pairs as the exact texts that the model will read.

    Pairs of which an answer alone is longer than what the model sees are left out.

    Args:
        snapshot: A finished snapshot folder.
        tokenizer: The base's.
        length: The tokens that the model sees.

    Raises:
        ValueError: There is none, so that nothing could be measured.
    """
    made = [_document(row, tokenizer) for row in preference_rows(snapshot)]
    found = [
        one for one in made if max(int(one["chosen_tokens"]), int(one["rejected_tokens"])) <= length
    ]
    if not found:
        raise ValueError(f"evaluating on {snapshot}: no pair is held out, so nothing is measured")
    return found


def _document(row: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase") -> PreferenceDocument:
    given: dict[str, list[dict[str, Json]]] = json.loads(row["request"])
    asked = chat_templates.render(tokenizer, given["messages"], given["tools"])
    text, end = asked.to_text(tokenizer), str(tokenizer.eos_token or "")
    said: dict[str, str] = {}
    for name in ("chosen", "rejected"):
        (message,) = cast("list[Message]", row[name])
        said[name] = dialects.translate(asked.form, message["content"]) + end
    users = [prompt.text_of(one) for one in given["messages"] if one.get("role") == "user"]
    return {
        "preference_id": row["preference_id"],
        "cluster_id": row.get("cluster") or row["group"] or row["preference_id"],
        "client_id": row["client_id"] or "",
        "language": holdout_task.language_of(row),
        "source": row["source"],
        "request": users[-1] if users else "",
        "prompt": text,
        **said,
        **{f"{name}_tokens": _tokens(tokenizer, text, answer) for name, answer in said.items()},
    }


def _tokens(tokenizer: "PreTrainedTokenizerBase", text: str, answer: str) -> int:
    """Count the tokens that lm-eval scores: the answer's, and the blank's that a prompt ends in."""
    whole, before = (
        len(tokenizer(one, add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]
        for one in (text + answer, text.rstrip())
    )
    return whole - before


def run_preferences(lm: "LM", documents: Sequence[PreferenceDocument]) -> list[Sample]:
    """Have a model weigh both answers of each pair."""
    asked = {str(one["preference_id"]): one for one in documents}
    found = [_sample(row) for row in lm_eval_tasks.run_task(lm, preference_task(documents))]
    lm_eval_tasks.require_all_samples(
        found, {name: str(one["prompt"]) for name, one in asked.items()}
    )
    return found


def preference_task(documents: Sequence[PreferenceDocument]) -> dict[str, Any]:
    """Describe the task to lm-eval (the keys are those of its YAML files)."""

    def answers(document: PreferenceDocument) -> list[str]:
        return [str(document["chosen"]), str(document["rejected"])]

    return {
        **lm_eval_tasks.common_config("preferences", documents),
        "output_type": "multiple_choice",
        "doc_to_target": 0,
        "doc_to_choice": answers,
        "target_delimiter": "",
        "process_results": score_preference,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in PREFERENCE_METRICS
        ],
    }


def score_preference(
    document: PreferenceDocument, weighed: Sequence[tuple[float, bool]]
) -> dict[str, float]:
    """Score one pair; equally likely answers show no preference, so they count as wrong."""
    (chosen, _), (rejected, _) = weighed
    by_token = chosen / int(document["chosen_tokens"]), rejected / int(document["rejected_tokens"])
    return {
        "accuracies": float(chosen > rejected),
        "accuracies_avg": float(by_token[0] > by_token[1]),
    }


def _sample(row: Mapping[str, Any]) -> Sample:
    document = cast("PreferenceDocument", row["doc"])
    prefers = "chosen" if row["accuracies"] else "rejected"
    slices = {name: str(document[key]) for name, key in SLICES.items()}
    return Sample(
        doc_id=row["doc_id"],
        example_id=str(document["preference_id"]),
        cluster_id=str(document["cluster_id"]),
        doc_hash=str(row["doc_hash"]),
        prompt_hash=str(row["prompt_hash"]),
        request=str(document["request"]),
        prompt=str(row["arguments"][0][0]),
        output=str(document[prefers]),
        reference=str(document["chosen"]),
        scores={name: row.get(name) for name in PREFERENCE_METRICS},
        slices={name: value for name, value in slices.items() if value},
    )


SLICES = {"client": "client_id", "language": "language", "source": "source"}
"""Where a pair has its slices; ``source`` is how people said what they prefer."""
