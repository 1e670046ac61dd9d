"""Tasks `canaries` and `secrets`: what a model memorized of its training rows."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from components import canaries
from components.canaries import Canary
from components.chat import chat_templates, dialects
from components.evaluate import holdout_task, lm_eval_tasks
from components.evaluate.task_metrics import CANARY_METRICS, SECRET_METRICS
from components.schema import Answer
from components.scorecard import Sample
from components.store import manifest, parquet_files

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase


CanaryDocument: TypeAlias = dict[str, Any]

SECRET_COLUMNS = (
    *("example_id", "messages", "tools", "completion", "secrets"),
    *("group", "client_id", "language", "answer"),
)

MAX_SECRETS = 256
"""The most rows asked, drawn by their ids: enough for the gate, few enough to take minutes."""

SecretDocument: TypeAlias = dict[str, str]


def canary_documents(tokenizer: "PreTrainedTokenizerBase") -> list[CanaryDocument]:
    """Return each canary's exact prompt text, up to the secret."""
    return [_canary_document(canary, tokenizer) for canary in canaries.draw()]


def _canary_document(canary: Canary, tokenizer: "PreTrainedTokenizerBase") -> CanaryDocument:
    rendered = chat_templates.render(tokenizer, [{"role": "user", "content": canary.question}], [])
    return {
        "name": canary.name,
        "request": canary.question,
        "prompt": rendered.before_answer(tokenizer) + canary.beginning,
        "secret": canary.secret,
        "candidates": [f" {secret}" for secret in (canary.secret, *canary.others)],
    }


def run_canaries(lm: "LM", documents: Sequence[CanaryDocument]) -> list[Sample]:
    """Score the likelihood of each planted secret, the first candidate, and of the others."""
    config = {
        **lm_eval_tasks.common_config("canaries", documents, CANARY_METRICS),
        "output_type": "multiple_choice",
        "doc_to_target": 0,
        "doc_to_choice": "candidates",
        "target_delimiter": "",
        "process_results": _score_canary,
    }
    samples = [_canary_sample(row) for row in lm_eval_tasks.run_task(lm, config)]
    prompts = {document["name"]: document["prompt"] for document in documents}
    return lm_eval_tasks.require_all_samples(samples, prompts)


def _score_canary(_: CanaryDocument, likelihoods: Sequence[tuple[float, bool]]) -> dict[str, float]:
    (planted, is_greedy), *others = likelihoods
    rank = rank_of_planted(planted, [likelihood for likelihood, _ in others])
    most = math.log2(len(likelihoods))
    return {"exposure": (most - math.log2(rank)) / most, "extracted": float(is_greedy)}


def rank_of_planted(planted: float, others: Sequence[float]) -> float:
    """Return the rank of the planted secret, 1 for the likeliest; a tie adds half a rank."""
    return 1 + sum(o > planted for o in others) + sum(o == planted for o in others) / 2


def _canary_sample(row: Mapping[str, Any]) -> Sample:
    document: CanaryDocument = row["doc"]
    name, secret = document["name"], document["secret"]
    named = document | {"example_id": name, "cluster_id": name, "reference": secret}
    likelihoods = [float(response[0]) for response in row["filtered_resps"]]
    output = f"rank {rank_of_planted(likelihoods[0], likelihoods[1:]):g} of {len(likelihoods)}"
    return lm_eval_tasks.read_sample(row, CANARY_METRICS, named, output, {})


def secret_rows(snapshot: Path) -> list[dict[str, Any]]:
    """Read the rows to ask; empty for older snapshots, which have no column ``secrets``."""
    path = snapshot / holdout_task.TRAIN_FILE
    if "secrets" not in parquet_files.columns(path):
        return []
    columns = holdout_task.with_clusters(path, SECRET_COLUMNS)
    rows = [row for row in parquet_files.rows(path, columns) if row["secrets"]]
    by_id = {str(row["example_id"]): row for row in rows}
    drawn = sorted(by_id, key=lambda name: hashlib.sha256(name.encode()).digest())[:MAX_SECRETS]
    return [by_id[name] for name in sorted(drawn)]


def secret_problem(snapshot: Path) -> str | None:
    """Return why a snapshot can't measure this; ``None`` if it can."""
    if secret_rows(snapshot):
        return None
    return (
        "secrets: no answer to learn holds a value that redaction recognises and lets stay; leave "
        "it out of evaluate.built_in"
    )


def secret_version(snapshot: Path) -> str:
    """Digest the rows that are asked: scores on other rows are not comparable."""
    rows = secret_rows(snapshot)
    was_translated = [
        not _offers_tools(row) and dialects.resembles_call(_learned(row)) for row in rows
    ]
    asked = [{name: value for name, value in row.items() if name != "answer"} for row in rows]
    return manifest.digest([asked, "as learned"] if any(was_translated) else asked)


def _offers_tools(row: Mapping[str, Any]) -> bool:
    # As in training: logs may leave out what was offered.
    return bool(json.loads(row["tools"]) or Answer.from_json(row["answer"]).calls)


def _learned(row: Mapping[str, Any]) -> str:
    return row["completion"][0]["content"]


def secret_documents(snapshot: Path, tokenizer: "PreTrainedTokenizerBase") -> list[SecretDocument]:
    """Return each row's exact prompt text, with its answer up to the value.

    Raises:
        ValueError: Every value is also in its prompt, so nothing could be measured.
    """
    built = [_secret_document(row, tokenizer) for row in secret_rows(snapshot)]
    documents = [document for document in built if document is not None]
    if not documents:
        raise ValueError(
            f"evaluating on {snapshot}: every value that stayed in an answer is also in its "
            "prompt, where it can be copied; leave secrets out of evaluate.built_in"
        )
    return documents


def _secret_document(
    row: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase"
) -> SecretDocument | None:
    messages, tools = json.loads(row["messages"]), json.loads(row["tools"])
    rendered = chat_templates.render(tokenizer, messages, tools)
    text = rendered.before_answer(tokenizer)
    answer = dialects.translate(rendered.form, _learned(row), offers_tools=_offers_tools(row))
    secret = next((s for s in row["secrets"] if s in answer and s not in text), None)
    if secret is None:
        return None
    return {
        "example_id": row["example_id"],
        "cluster_id": holdout_task.cluster_of(row),
        "client_id": row["client_id"] or "",
        "language": holdout_task.language_of(row),
        "prompt": text + answer[: answer.index(secret)],
        "secret": secret,
    }


def run_secrets(lm: "LM", documents: Sequence[SecretDocument]) -> list[Sample]:
    """Score the likelihood of the values as continuations."""
    config = {
        **lm_eval_tasks.common_config("secrets", documents, SECRET_METRICS),
        "output_type": "loglikelihood",
        "doc_to_target": "secret",
        "process_results": _score_secret,
    }
    samples = [_secret_sample(row) for row in lm_eval_tasks.run_task(lm, config)]
    prompts = {document["example_id"]: document["prompt"] for document in documents}
    return lm_eval_tasks.require_all_samples(samples, prompts)


def _score_secret(_: SecretDocument, likelihoods: Sequence[tuple[float, bool]]) -> dict[str, float]:
    # 1 if each token of the value is the likeliest, so a greedy answer is the value
    ((_likelihood, is_greedy),) = likelihoods
    return {"extracted": float(is_greedy)}


def _secret_sample(row: Mapping[str, Any]) -> Sample:
    document: SecretDocument = row["doc"]
    named = document | {"request": document["prompt"], "reference": document["secret"]}
    output = document["secret"] if row["extracted"] else ""
    slices = {"client": document["client_id"], "language": document["language"]}
    return lm_eval_tasks.read_sample(row, SECRET_METRICS, named, output, slices)
