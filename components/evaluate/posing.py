"""Put the holdout to a model through lm-eval, scored by the metrics of its kind.

None of lm-eval's caches is used: they take one model's answer, or one data set, for another's.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from components import native
from components.evaluate import kinds, metric, task, texts
from components.evaluate.kinds import Kind
from components.evaluate.task import Document, Holdout
from components.native import Form
from components.schema import AcceptableCall, Answer
from components.scorecard import Sample

if TYPE_CHECKING:
    from datasets import Dataset
    from lm_eval.api.model import LM

FILTER = "none"
"""What lm-eval calls scoring the output as it is."""


def run(lm: "LM", holdout: Holdout, max_new_tokens: int, end: str) -> list[Sample]:
    """Have a model answer the holdout and, where the answers are labels, weigh each of them.

    Args:
        lm: The model.
        holdout: What it is asked.
        max_new_tokens: Where an answer is cut off.
        end: The text of the token that ends an answer. It is part of what is weighed: otherwise a
            label that begins another could never be the less likely one.

    Raises:
        ValueError: lm-eval gave back other samples than the holdout's.
    """
    said = written(lm, holdout, max_new_tokens)
    if holdout.answers.kind != "classification":
        return said
    rows = ask(lm, choice_task(holdout, end))
    right = {cast("Document", row["doc"])["example_id"]: float(row["acc"]) for row in rows}
    return [
        replace(one, scores={**one.scores, "choice": right.get(one.example_id)}) for one in said
    ]


def written(lm: "LM", holdout: Holdout, max_new_tokens: int) -> list[Sample]:
    """Have a model answer the holdout; see ``run``."""
    return samples(ask(lm, written_task(holdout, max_new_tokens)), holdout)


def ask(lm: "LM", config: dict[str, Any]) -> list[dict[str, Any]]:
    """Have a model answer a task that is described to lm-eval; give what it logged."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate

    name = config["task"]
    # lm-eval's decorator hides the signature from pyright.
    results: Any = evaluate(  # pyright: ignore[reportCallIssue]
        lm=lm,  # pyright: ignore[reportCallIssue]
        task_dict={"tasks": {name: ConfigurableTask(config=config)}},  # pyright: ignore[reportCallIssue]
        log_samples=True,
        bootstrap_iters=0,
    )
    return results["samples"][name]


def written_task(holdout: Holdout, max_new_tokens: int) -> dict[str, Any]:
    """Describe to lm-eval the task of writing answers (the keys are those of its YAML files).

    An answer ends with the model's end token, or is cut off after ``max_new_tokens``.
    """
    return {
        **common(holdout.name, holdout.documents, holdout.version),
        "output_type": "generate_until",
        "doc_to_target": "reference",
        "process_results": _scoring(holdout.answers.kind),
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": one.higher_is_better}
            for name, one in kinds.METRICS[holdout.answers.kind].items()
        ],
        "generation_kwargs": {"until": [], "max_gen_toks": max_new_tokens, "do_sample": False},
    }


def choice_task(holdout: Holdout, end: str) -> dict[str, Any]:
    """Describe to lm-eval the task of finding the right label the likeliest answer of all."""
    labels = holdout.answers.labels
    rows = [
        {**one, "right": labels.index(Answer.from_json(one["answer"]).text.strip())}
        for one in holdout.documents
    ]
    return {
        **common(holdout.name, rows, holdout.version),
        "output_type": "multiple_choice",
        "doc_to_target": "right",
        "doc_to_choice": [label + end for label in labels],
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def common(name: str, rows: Sequence[Mapping[str, object]], version: str = "") -> dict[str, Any]:
    """Describe to lm-eval what every task has: documents that are here, asked by their prompt."""

    def load(**_: object) -> "dict[str, Dataset]":
        from datasets import Dataset

        return {"test": Dataset.from_list([dict(row) for row in rows])}

    return {
        "task": name,
        "custom_dataset": load,
        "test_split": "test",
        "doc_to_text": "prompt",
        "num_fewshot": 0,
        "metadata": {"version": version},
    }


def _scoring(kind: Kind) -> Callable[[Document, Sequence[str]], dict[str, float]]:
    def process_results(document: Document, outputs: Sequence[str]) -> dict[str, float]:
        scores = score(kind, document, outputs[0])
        return {name: value for name, value in scores.items() if value is not None}

    return process_results


def score(kind: Kind, document: Document, output: str) -> dict[str, float | None]:
    """Score one output by the metrics of its kind; what only likelihoods tell is left open."""
    reference, form = Answer.from_json(document["answer"]), cast("Form", document["form"])
    if kind == "tool_calls":
        acceptable = _acceptable(document["acceptable"])
        return metric.score(output, reference, acceptable, form, document["tools"])
    said = native.read_answer(form, output).text.strip()
    if kind == "classification":
        return {"label": float(said == reference.text.strip())}
    return texts.score(said, reference.text)


def _acceptable(text: str) -> list[AcceptableCall] | None:
    calls = json.loads(text)
    return None if calls is None else [AcceptableCall(**call) for call in calls]


def samples(logged: Sequence[Mapping[str, object]], holdout: Holdout) -> list[Sample]:
    """Read lm-eval's logged samples, one per request of the holdout.

    Raises:
        ValueError: A request is missing, occurs twice or was put to the model in other words.
    """
    kind = holdout.answers.kind
    found = [_sample(row, kind) for row in logged if row["filter"] == FILTER]
    asked = {document["example_id"]: document["prompt"] for document in holdout.documents}
    require_all(found, asked)
    return found


def require_all(found: Sequence[Sample], asked: Mapping[str, str]) -> None:
    """Refuse samples that are not one for each request, by its id, in the words that it was asked.

    Raises:
        ValueError: A request is missing, occurs twice or was put to the model in other words.
    """
    if len(found) != len(asked) or {one.example_id: one.prompt for one in found} != asked:
        raise ValueError(
            f"lm-eval gave back {len(found)} samples that are not the {len(asked)} requests of the "
            "task in the words they were to be put in; nothing is measured"
        )


def _sample(row: Mapping[str, object], kind: Kind) -> Sample:
    document = cast("Document", row["doc"])
    (prompt_text, _), *_ = cast("list[tuple[str, object]]", row["arguments"])
    (output,) = cast("list[str]", row["filtered_resps"])
    return Sample(
        doc_id=cast("int", row["doc_id"]),
        example_id=document["example_id"],
        cluster_id=document["cluster_id"],
        doc_hash=str(row["doc_hash"]),
        prompt_hash=str(row["prompt_hash"]),
        request=document["request"],
        prompt=prompt_text,
        output=output,
        reference=document["reference"],
        scores={name: cast("float | None", row.get(name)) for name in kinds.METRICS[kind]},
        slices=task.slices(document, kind),
    )
