"""Describe tasks to lm-eval, run a model on them, and read the logged samples."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from components.chat import dialects
from components.chat.dialects import Dialect
from components.evaluate import holdout_task, json_answers, metrics, task_metrics, text_answers
from components.evaluate.holdout_task import Document, EvaluatedSide
from components.evaluate.settings import Kind
from components.schema import AcceptableCall, Answer
from components.scorecard import Metric, Sample

if TYPE_CHECKING:
    from datasets import Dataset
    from lm_eval.api.model import LM
    from lm_eval.api.task import ConfigurableTask

FILTER = "none"  # lm-eval's name of no filter


def evaluate_holdout(
    lm: "LM", holdout: EvaluatedSide, max_new_tokens: int, end: str
) -> list[Sample]:
    """Run a model on the holdout and, for labels, score the likelihood of each label.

    ``end`` is what ends an answer. It is appended to each label: otherwise a label that
    is a prefix of another could never be the less likely one.

    Raises:
        ValueError: lm-eval returned other samples than the holdout's.
    """
    samples = write_answers(lm, holdout, max_new_tokens)
    if task_metrics.CHOICE not in holdout.answers.metrics:
        return samples
    rows = run_task(lm, choice_task(holdout, end))
    right = {cast("Document", row["doc"])["example_id"]: float(row["acc"]) for row in rows}
    return [
        replace(
            sample, scores={**sample.scores, task_metrics.CHOICE: right.get(sample.example_id, 0.0)}
        )
        for sample in samples
    ]


def write_answers(lm: "LM", holdout: EvaluatedSide, max_new_tokens: int) -> list[Sample]:
    """Generate a model's answers to the holdout and score them."""
    return read_samples(run_task(lm, written_task(holdout, max_new_tokens)), holdout)


def run_task(lm: "LM", config: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a model on a task with this lm-eval configuration; return the logged samples."""
    from lm_eval.api.task import ConfigurableTask

    return run_lm_eval(lm, config["task"], ConfigurableTask(config=config))


def run_lm_eval(lm: "LM", name: str, task: "ConfigurableTask") -> list[dict[str, Any]]:
    """Run a model on a task of lm-eval, without its caches; return the logged samples."""
    from lm_eval.evaluator import evaluate

    # lm-eval's decorator hides the signature from pyright.
    results: Any = evaluate(  # pyright: ignore[reportCallIssue]
        lm=lm,  # pyright: ignore[reportCallIssue]
        task_dict={"tasks": {name: task}},  # pyright: ignore[reportCallIssue]
        log_samples=True,
        bootstrap_iters=0,
    )
    return results["samples"][name]


def written_task(holdout: EvaluatedSide, max_new_tokens: int) -> dict[str, Any]:
    """Return lm-eval's configuration for generating answers (with the keys of its YAML files).

    An answer ends with the model's end token or after ``max_new_tokens``.
    """
    kind: Kind = holdout.answers.kind
    measured = holdout.answers.metrics

    def process_results(document: Document, outputs: Sequence[str]) -> dict[str, float]:
        scores = score_output(kind, document, outputs[0])
        return {name: value for name, value in scores.items() if value is not None}

    return {
        **common_config(holdout.name, holdout.documents, measured, holdout.version),
        "output_type": "generate_until",
        "doc_to_target": "reference",
        "process_results": process_results,
        "generation_kwargs": {"until": [], "max_gen_toks": max_new_tokens, "do_sample": False},
    }


def choice_task(holdout: EvaluatedSide, end: str) -> dict[str, Any]:
    """Return lm-eval's configuration for choosing the likeliest label, where one is right."""
    labels = holdout.answers.labels
    right = [Answer.from_json(document["answer"]).text.strip() for document in holdout.documents]
    rows = [
        {
            **document,
            "prompt": document["prompt"] + holdout.starts.get(document["example_id"], ""),
            "right": labels.index(label),
        }
        for document, label in zip(holdout.documents, right, strict=True)
        if label in labels
    ]
    return {
        **common_config(holdout.name, rows, {"acc": Metric("")}, holdout.version),
        "output_type": "multiple_choice",
        "doc_to_target": "right",
        "doc_to_choice": [label + end for label in labels],
        "target_delimiter": "",
    }


def common_config(
    name: str,
    rows: Sequence[Mapping[str, object]],
    measured: Mapping[str, Metric],
    version: str = "",
) -> dict[str, Any]:
    """Return what all configurations share: local documents with a ``prompt``, means as metrics."""

    def load(**_: object) -> "dict[str, Dataset]":
        from datasets import Dataset

        return {"test": Dataset.from_list([dict(row) for row in rows])}

    return {
        "task": name,
        "custom_dataset": load,
        "test_split": "test",
        "doc_to_text": "prompt",
        "num_fewshot": 0,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": metric.higher_is_better}
            for name, metric in measured.items()
        ],
        "metadata": {"version": version},
    }


def score_output(kind: Kind, document: Document, output: str) -> dict[str, float | None]:
    """Score one output by the metrics of its kind, without those that need likelihoods."""
    reference, form = Answer.from_json(document["answer"]), cast("Dialect", document["form"])
    if kind == "tool_calls":
        values = json.loads(document["acceptable"])
        acceptable = None if values is None else [AcceptableCall(**call) for call in values]
        return metrics.score_calls(output, reference, acceptable, form, document["tools"])
    offers_tools = bool(json.loads(document["tools"]))
    answer = dialects.read_answer(form, output, offers_tools=offers_tools)
    if not offers_tools:
        reference = dialects.read_answer(form, reference.text, offers_tools=False)
    text, right = map(text_answers.whole_text, (answer, reference))
    if kind == "classification":
        return {"label": float(text_answers.same_text(text, right))}
    # A thought that was logged in front of an answer is none of its words.
    text, right = map(dialects.without_thought, (text, right))
    if kind == "json":
        return json_answers.score_json(text, right, document.get(holdout_task.RESPONSE_SCHEMA, ""))
    return text_answers.score_text(text, right)


def read_samples(logged: Sequence[Mapping[str, Any]], holdout: EvaluatedSide) -> list[Sample]:
    """Convert lm-eval's logged samples; see ``require_all_samples``."""
    kind = holdout.answers.kind
    samples: list[Sample] = []
    for row in logged:
        if row["filter"] == FILTER:
            document: Document = row["doc"]
            (output,) = row["filtered_resps"]
            slices = holdout_task.slices_of(document, kind)
            samples.append(read_sample(row, holdout.answers.metrics, document, output, slices))
    prompts = {document["example_id"]: document["prompt"] for document in holdout.documents}
    return require_all_samples(samples, prompts)


def require_all_samples(samples: list[Sample], prompts: Mapping[str, str]) -> list[Sample]:
    """Return the samples if they are one for each of the prompts, which are by ``example_id``.

    Raises:
        ValueError: A request is missing, duplicated or has another prompt.
    """
    returned = {sample.example_id: sample.prompt for sample in samples}
    if len(samples) != len(prompts) or returned != prompts:
        raise ValueError(
            f"lm-eval returned {len(samples)} samples that are not the {len(prompts)} requests of "
            "the task with their exact prompts; nothing is measured"
        )
    return samples


def read_sample(
    row: Mapping[str, Any],
    names: Iterable[str],
    document: Mapping[str, Any],
    output: str,
    slices: Mapping[str, str],
) -> Sample:
    """Convert one of lm-eval's logged samples.

    ``names`` are the task's metrics. ``document`` has ``example_id``, ``cluster_id``, ``request``
    and ``reference``. Empty slices are left out.
    """
    return Sample(
        doc_id=row["doc_id"],
        example_id=str(document["example_id"]),
        cluster_id=str(document["cluster_id"]),
        doc_hash=str(row["doc_hash"]),
        prompt_hash=str(row["prompt_hash"]),
        request=str(document["request"]),
        prompt=str(row["arguments"][0][0]),
        output=output,
        reference=str(document["reference"]),
        scores={name: row.get(name) for name in names},
        slices={name: value for name, value in slices.items() if value},
    )
