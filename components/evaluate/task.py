"""The frozen holdout as an lm-eval task: generated, versioned, scored by our ``metric``."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pyarrow.parquet as pq

from components import manifest, prompt, rendering
from components.evaluate import metric
from components.native import Form
from components.schema import AcceptableCall, Answer, Message
from components.scorecard import Sample

if TYPE_CHECKING:
    from datasets import Dataset
    from lm_eval.api.model import LM
    from transformers import PreTrainedTokenizerBase

Document: TypeAlias = dict[str, str]
"""One holdout request: ``example_id cluster_id client_id request prompt form reference answer
acceptable``, all text.

``form`` is the one that calls have; ``answer`` and ``acceptable`` stay JSON text, since Arrow would
merge their nested types.
"""

FILE = "holdout.parquet"

NO_CALL = "no call"
"""The slice ``tool`` of requests that are rightly answered without a call."""

FILTER = "none"
"""What lm-eval calls scoring the output as it is."""

VERSION = hashlib.sha256(
    Path(__file__).read_bytes() + Path(metric.__file__).read_bytes()
).hexdigest()[:16]
"""The version of the scoring: scores made by other code are not comparable."""


@dataclass(frozen=True, slots=True)
class Holdout:
    """A snapshot's holdout under the name and version that its task has."""

    name: str
    version: str
    documents: tuple[Document, ...]


def name(workload: str) -> str:
    """Name the task of a workload's holdout."""
    return f"holdout_{workload}"


def read(snapshot: Path, tokenizer: "PreTrainedTokenizerBase") -> Holdout:
    """Read a snapshot's holdout, each request as the exact text that the model will read.

    Raises:
        ValueError: The holdout is empty, so that nothing could be measured.
    """
    record = manifest.read(snapshot)
    columns = ["example_id", "group", "client_id", "prompt", "messages", "tools", "answer"]
    rows = pq.read_table(snapshot / FILE, columns=[*columns, "acceptable"]).to_pylist()
    if not rows:
        raise ValueError(f"evaluating on {snapshot}: its holdout is empty, so nothing is measured")
    documents = tuple(_document(row, tokenizer) for row in rows)
    return Holdout(name(str(record["workload"])), str(record["holdout_version"]), documents)


def _document(row: Mapping[str, object], tokenizer: "PreTrainedTokenizerBase") -> Document:
    written = cast("list[Message]", row["prompt"])
    asked = rendering.render(
        tokenizer, json.loads(str(row["messages"])), json.loads(str(row["tools"]))
    )
    answer = str(row["answer"])
    return {
        "example_id": str(row["example_id"]),
        "cluster_id": str(row["group"]),
        "client_id": str(row["client_id"]),
        "request": next((m["content"] for m in reversed(written) if m["role"] == "user"), ""),
        "prompt": asked.to_text(tokenizer),
        "form": asked.form,
        "reference": prompt.render_answer(Answer.from_json(answer)),
        "answer": answer,
        "acceptable": str(row["acceptable"] or "null"),
    }


def run(lm: "LM", holdout: Holdout, max_new_tokens: int) -> list[Sample]:
    """Have a model answer the holdout through lm-eval.

    None of lm-eval's caches is used: they take one model's answer, or one data set, for another's.

    Raises:
        ValueError: lm-eval gave back other samples than the holdout's.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    # lm-eval's decorator hides the signature from pyright.
    results: Any = simple_evaluate(  # pyright: ignore[reportCallIssue]
        model=lm,  # pyright: ignore[reportCallIssue]
        tasks=[configure(holdout, max_new_tokens)],  # pyright: ignore[reportCallIssue]
        task_manager=TaskManager(include_defaults=False),  # pyright: ignore[reportCallIssue]
        log_samples=True,
        bootstrap_iters=0,
    )
    return samples(results["samples"][holdout.name], holdout)


def configure(holdout: Holdout, max_new_tokens: int) -> dict[str, object]:
    """Describe the task to lm-eval (the keys are those of its YAML files).

    An answer ends with the model's end token, or is cut off after ``max_new_tokens``.
    """
    return {
        "task": holdout.name,
        "custom_dataset": _dataset(holdout),
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "reference",
        "process_results": process_results,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in metric.METRICS
        ],
        "generation_kwargs": {"until": [], "max_gen_toks": max_new_tokens, "do_sample": False},
        "num_fewshot": 0,
        "metadata": {"version": holdout.version},
    }


def _dataset(holdout: Holdout) -> "Callable[..., dict[str, Dataset]]":
    def load(**_: object) -> "dict[str, Dataset]":
        from datasets import Dataset

        return {"test": Dataset.from_list(list(holdout.documents))}

    return load


def process_results(document: Document, outputs: Sequence[str]) -> dict[str, float]:
    """Score one output for lm-eval, naming only what was measured on this request."""
    scores = metric.score(
        outputs[0],
        Answer.from_json(document["answer"]),
        _acceptable(document["acceptable"]),
        cast("Form", document["form"]),
    )
    return {name: value for name, value in scores.items() if value is not None}


def _acceptable(text: str) -> list[AcceptableCall] | None:
    calls = json.loads(text)
    return None if calls is None else [AcceptableCall(**call) for call in calls]


def samples(logged: Sequence[Mapping[str, object]], holdout: Holdout) -> list[Sample]:
    """Read lm-eval's logged samples, one per request of the holdout.

    Raises:
        ValueError: A request is missing, occurs twice or was put to the model in other words.
    """
    found = [_sample(row) for row in logged if row["filter"] == FILTER]
    asked = {document["example_id"]: document["prompt"] for document in holdout.documents}
    if len(found) != len(holdout.documents) or {s.example_id: s.prompt for s in found} != asked:
        raise ValueError(
            f"lm-eval gave back {len(found)} samples that are not the {len(holdout.documents)} "
            "requests of the holdout in the words they were to be put in; nothing is measured"
        )
    return found


def _sample(row: Mapping[str, object]) -> Sample:
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
        scores={name: cast("float | None", row.get(name)) for name in metric.METRICS},
        slices=_slices(document),
    )


def _slices(document: Document) -> dict[str, str]:
    """Say which part of the traffic a request belongs to: what it wants called, who sent it."""
    names = sorted({call.name for call in Answer.from_json(document["answer"]).calls})
    return {"tool": ", ".join(names) or NO_CALL, "client": document["client_id"]}
