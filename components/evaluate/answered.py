"""Have a model answer a guard task through lm-eval, and read what lm-eval made of each document."""

import math
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.evaluate.guard import Guard
from components.scorecard import Sample

if TYPE_CHECKING:
    from lm_eval.api.model import LM


FEWSHOT_SEED = 1234
"""lm-eval's own: which solved examples stand before which document."""


def run(lm: "LM", guard: Guard) -> list[Sample]:
    """Have a model answer a task through lm-eval, none of whose caches is used.

    Raises:
        ValueError: lm-eval gave back other samples than one for each document.
    """
    from lm_eval.evaluator import evaluate

    name = str(guard.task.config.task)
    guard.task.set_fewshot_seed(FEWSHOT_SEED)
    # lm-eval's decorator hides the signature from pyright.
    results: Any = evaluate(  # pyright: ignore[reportCallIssue]
        lm=lm,  # pyright: ignore[reportCallIssue]
        task_dict={"tasks": {name: guard.task}},  # pyright: ignore[reportCallIssue]
        log_samples=True,
        bootstrap_iters=0,
    )
    rows = [row for row in results["samples"][name] if row["filter"] == guard.filter]
    asked = len(guard.task.eval_docs)
    if sorted(row["doc_id"] for row in rows) != list(range(asked)):
        raise ValueError(
            f"lm-eval gave back {len(rows)} samples for the {asked} documents of {name}, wants one "
            f"for each; nothing is measured"
        )
    return [_sample(row, name, guard) for row in rows]


def _sample(row: Mapping[str, Any], name: str, guard: Guard) -> Sample:
    prompt = str(row["arguments"][0][0])
    shots = str(guard.task.config.fewshot_delimiter) if guard.task.config.num_fewshot else ""
    example_id = f"{name}/{row['doc_id']}"
    return Sample(
        doc_id=row["doc_id"],
        example_id=example_id,
        cluster_id=example_id,
        doc_hash=str(row["doc_hash"]),
        prompt_hash=str(row["prompt_hash"]),
        request=prompt.rpartition(shots)[2] if shots else prompt,
        prompt=prompt,
        output=_output(row, guard),
        reference=_reference(row, guard),
        scores={guard.metric: _score(row.get(guard.metric))},
        slices={},
    )


def _output(row: Mapping[str, Any], guard: Guard) -> str:
    """Give the text that a model wrote, or the choice that it finds likeliest by the metric."""
    answers = row["filtered_resps"]
    if guard.task.OUTPUT_TYPE != "multiple_choice":
        return str(answers[0])
    choices = [str(choice) for choice in guard.task.doc_to_choice(row["doc"])]
    lengths = [len(one) if guard.metric == "acc_norm" else 1 for one in choices]
    likely = [float(answers[at][0]) / max(1, lengths[at]) for at in range(len(choices))]
    return choices[max(range(len(choices)), key=likely.__getitem__)]


def _reference(row: Mapping[str, Any], guard: Guard) -> str:
    target = row["target"]
    if guard.task.OUTPUT_TYPE == "multiple_choice" and isinstance(target, int):
        return str(guard.task.doc_to_choice(row["doc"])[target])
    return str(target)


def _score(value: object) -> float | None:
    """Take lm-eval's score of a document; what is no finite number was not measured."""
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        return None
    return float(value)
