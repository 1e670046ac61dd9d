"""Describe tasks to lm-eval, run a model on them, and read the logged samples."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from components.chat import dialects
from components.chat.dialects import Dialect
from components.evaluate import holdout_task, metrics
from components.evaluate.holdout_task import Document, EvaluatedSide
from components.evaluate.metrics import Kind
from components.schema import AcceptableCall, Answer
from components.scorecard import Sample

if TYPE_CHECKING:
    from datasets import Dataset
    from lm_eval.api.model import LM

FILTER = "none"  # lm-eval's name of no filter


def evaluate_holdout(
    lm: "LM", holdout: EvaluatedSide, max_new_tokens: int, end: str
) -> list[Sample]:
    """Run a model on the holdout and, for labels, score the likelihood of each label.

    Args:
        lm: The model.
        holdout: The requests.
        max_new_tokens: The most tokens of an answer.
        end: The text of the end token. It is appended to each label: otherwise a label that is a
            prefix of another could never be the less likely one.

    Raises:
        ValueError: lm-eval returned other samples than the holdout's.
    """
    samples = write_answers(lm, holdout, max_new_tokens)
    if holdout.answers.kind != "classification":
        return samples
    rows = run_task(lm, choice_task(holdout, end))
    right = {cast("Document", row["doc"])["example_id"]: float(row["acc"]) for row in rows}
    return [
        replace(sample, scores={**sample.scores, "choice": right.get(sample.example_id)})
        for sample in samples
    ]


def write_answers(lm: "LM", holdout: EvaluatedSide, max_new_tokens: int) -> list[Sample]:
    """Generate a model's answers to the holdout and score them."""
    return read_samples(run_task(lm, written_task(holdout, max_new_tokens)), holdout)


def run_task(lm: "LM", config: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a model on a task with this lm-eval configuration; return the logged samples."""
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


def written_task(holdout: EvaluatedSide, max_new_tokens: int) -> dict[str, Any]:
    """Return lm-eval's configuration for generating answers (with the keys of its YAML files).

    An answer ends with the model's end token or after ``max_new_tokens``.
    """
    return {
        **common_config(holdout.name, holdout.documents, holdout.version),
        "output_type": "generate_until",
        "doc_to_target": "reference",
        "process_results": _scoring_function(holdout.answers.kind),
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": metric.higher_is_better}
            for name, metric in metrics.KIND_METRICS[holdout.answers.kind].items()
        ],
        "generation_kwargs": {"until": [], "max_gen_toks": max_new_tokens, "do_sample": False},
    }


def choice_task(holdout: EvaluatedSide, end: str) -> dict[str, Any]:
    """Return lm-eval's configuration for choosing the likeliest label."""
    labels = holdout.answers.labels
    rows = [
        {**document, "right": labels.index(Answer.from_json(document["answer"]).text.strip())}
        for document in holdout.documents
    ]
    return {
        **common_config(holdout.name, rows, holdout.version),
        "output_type": "multiple_choice",
        "doc_to_target": "right",
        "doc_to_choice": [label + end for label in labels],
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def common_config(
    name: str, rows: Sequence[Mapping[str, object]], version: str = ""
) -> dict[str, Any]:
    """Return the configuration that all tasks share: local documents with a ``prompt``."""

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


def _scoring_function(kind: Kind) -> Callable[[Document, Sequence[str]], dict[str, float]]:
    def process_results(document: Document, outputs: Sequence[str]) -> dict[str, float]:
        scores = score_output(kind, document, outputs[0])
        return {name: value for name, value in scores.items() if value is not None}

    return process_results


def score_output(kind: Kind, document: Document, output: str) -> dict[str, float | None]:
    """Score one output by the metrics of its kind, without those that need likelihoods."""
    reference, form = Answer.from_json(document["answer"]), cast("Dialect", document["form"])
    if kind == "tool_calls":
        acceptable = _acceptable_calls(document["acceptable"])
        return metrics.score_calls(output, reference, acceptable, form, document["tools"])
    text = dialects.read_answer(form, output).text.strip()
    if kind == "classification":
        return {"label": float(text == reference.text.strip())}
    return metrics.score_text(text, reference.text)


def _acceptable_calls(text: str) -> list[AcceptableCall] | None:
    calls = json.loads(text)
    return None if calls is None else [AcceptableCall(**call) for call in calls]


def read_samples(logged: Sequence[Mapping[str, object]], holdout: EvaluatedSide) -> list[Sample]:
    """Convert lm-eval's logged samples, one per request of the holdout.

    Raises:
        ValueError: A request is missing, duplicated or has another prompt.
    """
    kind = holdout.answers.kind
    samples = [_read_sample(row, kind) for row in logged if row["filter"] == FILTER]
    prompts = {document["example_id"]: document["prompt"] for document in holdout.documents}
    require_all_samples(samples, prompts)
    return samples


def require_all_samples(samples: Sequence[Sample], prompts: Mapping[str, str]) -> None:
    """Check that the samples are one for each request, with its exact prompt.

    Args:
        samples: The samples that lm-eval returned.
        prompts: The prompts by ``example_id``.

    Raises:
        ValueError: A request is missing, duplicated or has another prompt.
    """
    returned = {sample.example_id: sample.prompt for sample in samples}
    if len(samples) != len(prompts) or returned != prompts:
        raise ValueError(
            f"lm-eval returned {len(samples)} samples that are not the {len(prompts)} requests of "
            "the task with their exact prompts; nothing is measured"
        )


def _read_sample(row: Mapping[str, object], kind: Kind) -> Sample:
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
        scores={name: cast("float | None", row.get(name)) for name in metrics.KIND_METRICS[kind]},
        slices=holdout_task.slices_of(document, kind),
    )
