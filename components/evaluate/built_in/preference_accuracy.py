"""Task `preferences`: is a chosen answer likelier to the model than the rejected one?"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from components.chat import chat_templates, dialects, prompt
from components.chat.answer_start import end_of_answers
from components.evaluate import holdout_task, lm_eval_tasks
from components.evaluate.task_metrics import PREFERENCE_METRICS
from components.schema import Json, Message
from components.scorecard import Sample
from components.store import manifest, parquet_files

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

PREFERENCE_FILE = "holdout_preferences.parquet"

PREFERENCE_COLUMNS = (
    *("preference_id", "request", "chosen", "rejected", "source"),
    *("group", "client_id", "language"),
)
"""The columns of prompts and slices; other weights don't change the task."""

PreferenceDocument: TypeAlias = dict[str, str | int]


def preference_rows(snapshot: Path) -> list[dict[str, Any]]:
    """Read a snapshot's held-out pairs; empty for older snapshots."""
    path = snapshot / PREFERENCE_FILE
    if not path.exists():
        return []
    return parquet_files.rows(path, holdout_task.with_clusters(path, PREFERENCE_COLUMNS))


def preference_problem(snapshot: Path) -> str | None:
    """Return why a snapshot can't measure this; ``None`` if it can."""
    if preference_rows(snapshot):
        return None
    return (
        "preferences: the snapshot holds no pair out, since nobody compared or corrected an answer "
        "to a request of the holdout; leave it out of evaluate.built_in until somebody has"
    )


def preference_version(snapshot: Path) -> str:
    """Digest the pairs that are asked: scores on other pairs are not comparable."""
    rows = preference_rows(snapshot)
    was_translated = any(
        not json.loads(row["request"])["tools"] and dialects.resembles_call(row[name][0]["content"])
        for row in rows
        for name in ("chosen", "rejected")
    )
    return manifest.digest([rows, "as written"] if was_translated else rows)


def preference_documents(
    snapshot: Path, tokenizer: "PreTrainedTokenizerBase", length: int
) -> list[PreferenceDocument]:
    """Read the held-out pairs with their exact prompt and answer texts.

    Pairs with an answer longer than the context window of ``length`` tokens are left out.

    Raises:
        ValueError: No pair is left.
    """
    built = [_document(row, tokenizer) for row in preference_rows(snapshot)]
    documents = [
        document
        for document in built
        if max(int(document["chosen_tokens"]), int(document["rejected_tokens"])) <= length
    ]
    if not documents:
        raise ValueError(f"evaluating on {snapshot}: no pair is held out, so nothing is measured")
    return documents


def _document(row: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase") -> PreferenceDocument:
    request: dict[str, list[dict[str, Json]]] = json.loads(row["request"])
    rendered = chat_templates.render(tokenizer, request["messages"], request["tools"])
    text, end = rendered.before_answer(tokenizer), end_of_answers(tokenizer)
    answers: dict[str, str] = {}
    for name in ("chosen", "rejected"):
        (message,) = cast("list[Message]", row[name])
        offers_tools = bool(request["tools"])
        written = dialects.translate(rendered.form, message["content"], offers_tools=offers_tools)
        answers[name] = written + end
    users = [prompt.text_of(m) for m in request["messages"] if m.get("role") == "user"]
    return {
        "preference_id": row["preference_id"],
        "cluster_id": row.get("cluster") or row["group"] or row["preference_id"],
        "client_id": row["client_id"] or "",
        "language": holdout_task.language_of(row),
        "source": row["source"],
        "request": users[-1] if users else "",
        "prompt": text,
        **answers,
        **{
            f"{name}_tokens": _count_tokens(tokenizer, text, answer)
            for name, answer in answers.items()
        },
    }


def _count_tokens(tokenizer: "PreTrainedTokenizerBase", text: str, answer: str) -> int:
    """Count the tokens that lm-eval scores: the answer's, and the prompt's trailing whitespace."""
    whole, prefix = (
        len(tokenizer(part, add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]
        for part in (text + answer, text.rstrip())
    )
    return whole - prefix


def run_preferences(lm: "LM", documents: Sequence[PreferenceDocument]) -> list[Sample]:
    """Score the likelihood of both answers of each pair."""

    def answers(document: PreferenceDocument) -> list[str]:
        return [str(document["chosen"]), str(document["rejected"])]

    config = {
        **lm_eval_tasks.common_config("preferences", documents, PREFERENCE_METRICS),
        "output_type": "multiple_choice",
        "doc_to_target": 0,
        "doc_to_choice": answers,
        "target_delimiter": "",
        "process_results": _score,
    }
    samples = [_sample(row) for row in lm_eval_tasks.run_task(lm, config)]
    prompts = {str(document["preference_id"]): str(document["prompt"]) for document in documents}
    return lm_eval_tasks.require_all_samples(samples, prompts)


def _score(
    document: PreferenceDocument, likelihoods: Sequence[tuple[float, bool]]
) -> dict[str, float]:
    # Equally likely answers count as wrong.
    (chosen, _), (rejected, _) = likelihoods
    by_token = chosen / int(document["chosen_tokens"]), rejected / int(document["rejected_tokens"])
    return {
        "accuracies": float(chosen > rejected),
        "accuracies_avg": float(by_token[0] > by_token[1]),
    }


def _sample(row: Mapping[str, Any]) -> Sample:
    document: PreferenceDocument = row["doc"]
    named = document | {"example_id": document["preference_id"], "reference": document["chosen"]}
    output = str(document["chosen" if row["accuracies"] else "rejected"])
    # ``source`` is how people expressed the preference.
    columns = {"client": "client_id", "language": "language", "source": "source"}
    slices = {name: str(document[column]) for name, column in columns.items()}
    return lm_eval_tasks.read_sample(row, PREFERENCE_METRICS, named, output, slices)
