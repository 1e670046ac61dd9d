"""Preference accuracy: does a model find what people chose likelier than what they rejected?

It is asked of the pairs whose requests are held out, in the words that the holdout is asked in. The
score is the share of pairs with a higher log-probability for the chosen answer: what TRL logs as
``accuracies``, here of the model alone, without a reference (RewardBench's "reference-free":
Lambert et al. 2024, arXiv:2403.13787, sec. 4).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pyarrow.parquet as pq

from components import manifest, native, prompt, rendering
from components.evaluate import posing, task
from components.schema import Json, Message
from components.scorecard import Metric, Sample

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

FILE = "holdout_preferences.parquet"

METRICS = {
    "accuracies": Metric(
        "of the pairs held out: the answer that people chose is likelier than the rejected one"
    ),
    "accuracies_avg": Metric(
        "the same by the mean of the tokens' log-probabilities, not their sum"
    ),
}
"""The sum favours short answers, the mean long ones; people's own choices may be about length."""

COLUMNS = (
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

Document: TypeAlias = dict[str, str | int]


def rows(snapshot: Path) -> list[dict[str, Any]]:
    """Read the pairs that a snapshot holds out; older snapshots hold none out."""
    path = snapshot / FILE
    if not path.exists():
        return []
    return pq.read_table(path, columns=task.with_clusters(path, COLUMNS)).to_pylist()


def problem(snapshot: Path) -> str | None:
    """Say why a snapshot can't measure this; ``None`` if it can."""
    if rows(snapshot):
        return None
    return (
        "preferences: the snapshot holds no pair out, since nobody compared or corrected an answer "
        "to a request of the holdout; leave it out of evaluate.built_in until somebody has"
    )


def version(snapshot: Path) -> str:
    """Name the pairs by all that is asked of them: scores of others are not comparable."""
    return manifest.digest(rows(snapshot))


def documents(snapshot: Path, tokenizer: "PreTrainedTokenizerBase", length: int) -> list[Document]:
    """Read the pairs as the exact texts that the model will read.

    Pairs of which an answer alone is longer than what the model sees are left out.

    Args:
        snapshot: A finished snapshot folder.
        tokenizer: The base's.
        length: The tokens that the model sees.

    Raises:
        ValueError: There is none, so that nothing could be measured.
    """
    made = [_document(row, tokenizer) for row in rows(snapshot)]
    found = [
        one for one in made if max(int(one["chosen_tokens"]), int(one["rejected_tokens"])) <= length
    ]
    if not found:
        raise ValueError(f"evaluating on {snapshot}: no pair is held out, so nothing is measured")
    return found


def _document(row: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase") -> Document:
    given: dict[str, list[dict[str, Json]]] = json.loads(row["request"])
    asked = rendering.render(tokenizer, given["messages"], given["tools"])
    text, end = asked.to_text(tokenizer), str(tokenizer.eos_token or "")
    said: dict[str, str] = {}
    for name in ("chosen", "rejected"):
        (message,) = cast("list[Message]", row[name])
        said[name] = native.translate(asked.form, message["content"]) + end
    users = [prompt.text_of(one) for one in given["messages"] if one.get("role") == "user"]
    return {
        "preference_id": row["preference_id"],
        "cluster_id": row.get("cluster") or row["group"] or row["preference_id"],
        "client_id": row["client_id"] or "",
        "language": task.language_of(row),
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


def run(lm: "LM", documents: Sequence[Document]) -> list[Sample]:
    """Have a model weigh both answers of each pair."""
    asked = {str(one["preference_id"]): one for one in documents}
    found = [_sample(row) for row in posing.ask(lm, described(documents))]
    posing.require_all(found, {name: str(one["prompt"]) for name, one in asked.items()})
    return found


def described(documents: Sequence[Document]) -> dict[str, Any]:
    """Describe the task to lm-eval (the keys are those of its YAML files)."""

    def answers(document: Document) -> list[str]:
        return [str(document["chosen"]), str(document["rejected"])]

    return {
        **posing.common("preferences", documents),
        "output_type": "multiple_choice",
        "doc_to_target": 0,
        "doc_to_choice": answers,
        "target_delimiter": "",
        "process_results": score,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS
        ],
    }


def score(document: Document, weighed: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Score one pair; equally likely answers show no preference, so they count as wrong."""
    (chosen, _), (rejected, _) = weighed
    by_token = chosen / int(document["chosen_tokens"]), rejected / int(document["rejected_tokens"])
    return {
        "accuracies": float(chosen > rejected),
        "accuracies_avg": float(by_token[0] > by_token[1]),
    }


def _sample(row: Mapping[str, Any]) -> Sample:
    document = cast("Document", row["doc"])
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
        scores={name: row.get(name) for name in METRICS},
        slices={name: value for name, value in slices.items() if value},
    )


SLICES = {"client": "client_id", "language": "language", "source": "source"}
"""Where a pair has its slices; ``source`` is how people said what they prefer."""
