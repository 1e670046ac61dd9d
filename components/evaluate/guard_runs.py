"""Prepare and run guard tasks: lm-eval's own tasks on documents of this machine."""

import hashlib
import json
import math
import numbers
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pyarrow.parquet as pq
from jinja2 import TemplateError

from components.evaluate import guards, lm_eval_tasks
from components.evaluate.settings import GuardTask
from components.schema import Json
from components.scorecard import Metric, Sample
from components.store import manifest, unpacked_file

if TYPE_CHECKING:
    from datasets import Dataset
    from lm_eval.api.model import LM
    from lm_eval.api.task import ConfigurableTask


GuardDocument: TypeAlias = dict[str, Json]


def read_documents(path: Path) -> list[GuardDocument]:
    """Read one document per row or line, without duplicates.

    A paired comparison of two models requires that each document occurs once.

    Raises:
        ValueError: A line is not a JSON object, or there is no document.
    """
    rows = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else _read_lines(path)
    unique = {_canonical_json(row): row for row in rows}
    if not unique:
        raise ValueError(f"{path} has no documents")
    return list(unique.values())


def _draw_documents(documents: Sequence[GuardDocument], limit: int | None) -> list[GuardDocument]:
    # By the lowest content hashes: pseudo-random, repeatable, and a higher limit only adds.
    if limit is None or limit >= len(documents):
        return list(documents)
    hashes = [hashlib.sha256(_canonical_json(row).encode()).digest() for row in documents]
    last = sorted(hashes)[limit - 1]
    return [row for row, digest in zip(documents, hashes, strict=True) if digest <= last]


def _documents_not_in(
    documents: Sequence[GuardDocument], known: Sequence[GuardDocument]
) -> list[GuardDocument]:
    seen = set(map(_canonical_json, known))
    return [row for row in documents if _canonical_json(row) not in seen]


def _canonical_json(row: GuardDocument) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)


def _read_lines(path: Path) -> list[GuardDocument]:
    try:
        return [_document(number, row) for number, row in unpacked_file.read_json(path)]
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from error


def _document(number: int, row: Json) -> GuardDocument:
    if isinstance(row, dict):
        return row
    raise ValueError(f"line {number}: expected a JSON object, found {str(row)[:60]}")


METRIC_MEANINGS = {
    "acc": "the right choice is the likeliest",
    "acc_norm": "the right choice is the likeliest for its length",
    "exact_match": "the answer is the right one, word for word",
}

_TEMPLATE_ERRORS = (
    TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a task's own functions and templates raise for an unexpected document."""


class GuardError(ValueError):
    """Raised for invalid guard tasks; ``mistakes`` has a sentence for each reason."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = list(mistakes)
        super().__init__("; ".join(mistakes))


@dataclass(frozen=True, slots=True)
class PreparedGuard:
    """A task that is ready to run, with its one metric and the column of its clusters, if any."""

    task: "ConfigurableTask"
    metric: str
    filter: str
    meaning: Metric
    cluster: str | None = None


def prepare_guards(tasks: Sequence[GuardTask]) -> dict[str, PreparedGuard]:
    """Build all tasks by name, and check each of their documents.

    Raises:
        GuardError: With every mistake of every task.
    """
    mistakes = guards.guard_mistakes(tasks)
    ready: dict[str, PreparedGuard] = {}
    for guard in tasks if not mistakes else ():
        try:
            ready[guards.guard_name(guard)] = build_guard(guard)
        except GuardError as error:
            mistakes += error.mistakes
    if mistakes:
        raise GuardError(mistakes)
    return ready


def build_guard(guard: GuardTask) -> PreparedGuard:
    """Build lm-eval's task from its definition and our documents, and check each document.

    Raises:
        GuardError: The documents don't fit the task, or its metric can't be computed or compared.
    """
    from lm_eval.api.task import ConfigurableTask

    definition = guards.find_definition(guard.task)
    name = definition.name
    try:
        task = ConfigurableTask(config=_task_config(guard, definition))
    except _TEMPLATE_ERRORS as error:
        misfit = f"{name}: {guard.data} does not fit the task: {_error_text(error)}"
        raise GuardError([misfit]) from error
    mistakes = [f"{name}: {mistake}" for mistake in _document_mistakes(task, guard.cluster)]
    if (task.config.generation_kwargs or {}).get("do_sample"):
        mistakes.append(f"{name}: samples its answers at random, so no score is repeatable")
    if problem := _metric_problem(task, guard.metric):
        mistakes.append(f"{name}: {problem}")
    if mistakes:
        raise GuardError(mistakes)
    higher = bool(task.higher_is_better()[guard.metric])
    meaning = METRIC_MEANINGS.get(guard.metric, f"the mean of lm-eval's {guard.metric}")
    metric = Metric(f"of the documents of {name}: {meaning}", higher_is_better=higher)
    chosen = guards.chosen_filter(guard, definition)
    return PreparedGuard(task, guard.metric, chosen, metric, guard.cluster)


def _task_config(guard: GuardTask, definition: guards.TaskDefinition) -> dict[str, Any]:
    from datasets import Dataset
    from lm_eval.tasks._yaml_loader import load_yaml

    body: dict[str, Any] = load_yaml(definition.path, resolve_func=True)
    body = {key: value for key, value in body.items() if key not in ("tag", "task_list", "group")}
    process, fewshot = body.pop("process_docs", None), body.get("fewshot_config")
    documents = read_documents(guard.data)
    asked = Dataset.from_list(_draw_documents(documents, guard.limit))
    splits = {"test": _process_once(asked, process)}
    if guard.examples is not None:
        examples = _documents_not_in(read_documents(guard.examples), documents)
        if len(examples) < guard.num_fewshot:
            raise ValueError(
                f"{guard.examples} has {len(examples)} documents that are not asked, and "
                f"num_fewshot is {guard.num_fewshot}"
            )
        if isinstance(fewshot, dict):
            process = fewshot.pop("process_docs", process)
            body["fewshot_config"] = {
                k: v for k, v in fewshot.items() if k not in ("split", "samples")
            }
        splits["examples"] = _process_once(Dataset.from_list(examples), process)
    if callable(scoring := body.get("process_results")):
        own = cast("Scoring", scoring)
        body["process_results"] = _only_scores(own, guard.metric, definition.name, splits)

    def load(**_: object) -> "dict[str, Dataset]":
        return splits

    dataset = dict.fromkeys(("dataset_path", "dataset_name", "dataset_kwargs"))
    return body | {
        **dataset,
        "custom_dataset": load,
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
        "fewshot_split": "examples" if guard.examples is not None else None,
        "num_fewshot": guard.num_fewshot,
    }


DOCUMENTS_SEED = 0  # lm-eval's default for Python's generator


def _process_once(
    documents: "Dataset", process: "Callable[[Dataset], Dataset] | None"
) -> "Dataset":
    """Return a task's own form of documents, each once.

    lm-eval processes them whenever it reads them: where a task shuffles choices (GPQA), answers
    would be scored by other choices than were asked, and each model asked in another order.
    """
    if process is None:
        return documents
    state = random.getstate()
    random.seed(DOCUMENTS_SEED)
    try:
        processed = process(documents)
    finally:
        random.setstate(state)
    rows = cast("Iterable[GuardDocument]", processed)
    unique = {_canonical_json(row): number for number, row in enumerate(rows)}
    return processed.select(sorted(unique.values()))


Scoring: TypeAlias = Callable[[Any, Any], Mapping[str, object]]
"""Scores a model's results on a document, by metric."""


def _only_scores(
    scoring: Scoring, metric: str, name: str, splits: "Mapping[str, Dataset]"
) -> Scoring:
    """Return a task's own scoring without what is no score, of which lm-eval takes the mean, too.

    An error names the task and the document.
    """

    def process_results(document: object, results: object) -> dict[str, object]:
        try:
            score = scoring(document, results).get(metric)
        except _TEMPLATE_ERRORS as error:
            number = list(cast("Iterable[object]", splits["test"])).index(document)
            raise GuardError(
                [f"{name}: scoring document {number}: {_error_text(error)}"]
            ) from error
        return {} if _finite_score(score) is None else {metric: score}

    return process_results


def _metric_problem(task: "ConfigurableTask", metric: str) -> str | None:
    from lm_eval.api.metrics import mean

    means = task.aggregation()
    if metric not in means:
        return f"has no metric {metric}, only {', '.join(means)}"
    if means[metric] is not mean:
        return f"{metric} is not a mean of the documents' scores"
    if task.config.process_results is None and task._metric_fn_list[metric] is None:  # pyright: ignore[reportPrivateUsage] - there is no public way
        return f"lm-eval can't compute {metric} here: a package that it requires is not installed"
    return None


def _document_mistakes(task: "ConfigurableTask", cluster: str | None) -> list[str]:
    for number, document in enumerate(cast("Iterable[dict[str, Any]]", task.eval_docs)):
        try:
            problem = _document_problem(task, document) or _cluster_problem(document, cluster)
        except _TEMPLATE_ERRORS as error:
            empty = [name for name, value in document.items() if value is None]
            problem = (f"has no {', '.join(empty)}: " if empty else "") + _error_text(error)
        if problem is not None:
            return [f"document {number}: {problem}"]
    return []


def _document_problem(task: "ConfigurableTask", document: dict[str, Any]) -> str | None:
    text, target = task.doc_to_text(document), task.doc_to_target(document)
    if (text, target) != (task.doc_to_text(document), task.doc_to_target(document)):
        return "its prompt is drawn at random, so no two models would be asked the same"
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    choices = task.doc_to_choice(document)
    right = text if isinstance(text, int) else target
    for answer in right if isinstance(right, list) else [right]:
        if answer not in (range(len(choices)) if isinstance(answer, int) else choices):
            return f"its right answer {answer!r} is not one of its {len(choices)} choices"
    return None


def _cluster_problem(document: Mapping[str, Any], cluster: str | None) -> str | None:
    if cluster is None or document.get(cluster) is not None:
        return None
    return f"it has no {cluster}, which is its cluster"


def _error_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


FEWSHOT_SEED = 1234  # lm-eval's default; it decides which examples precede which document


def run_guard(lm: "LM", guard: PreparedGuard) -> list[Sample]:
    """Run a model on a task through lm-eval, without lm-eval's caches.

    Raises:
        ValueError: lm-eval did not return one sample per document.
    """
    name = str(guard.task.config.task)
    guard.task.set_fewshot_seed(FEWSHOT_SEED)
    logged = lm_eval_tasks.run_lm_eval(lm, name, guard.task)
    rows = [row for row in logged if row["filter"] == guard.filter]
    count = len(guard.task.eval_docs)
    if sorted(row["doc_id"] for row in rows) != list(range(count)):
        raise ValueError(
            f"lm-eval returned {len(rows)} samples for the {count} documents of {name}, expected "
            "one for each; nothing is measured"
        )
    return [_guard_sample(row, name, guard) for row in rows]


def _guard_sample(row: Mapping[str, Any], name: str, guard: PreparedGuard) -> Sample:
    prompt = str(row["arguments"][0][0])
    shots = str(guard.task.config.fewshot_delimiter) if guard.task.config.num_fewshot else ""
    shared = None if guard.cluster is None else manifest.digest(row["doc"][guard.cluster])
    document = {
        "example_id": f"{name}/{row['doc_id']}",
        "cluster_id": f"{name}/{shared or row['doc_id']}",
        "request": prompt.rpartition(shots)[2] if shots else prompt,
        "reference": _guard_reference(row, guard),
    }
    finite = {**row, guard.metric: _finite_score(row.get(guard.metric))}
    return lm_eval_tasks.read_sample(
        finite, [guard.metric], document, _guard_output(row, guard), {}
    )


def _guard_output(row: Mapping[str, Any], guard: PreparedGuard) -> str:
    answers = row["filtered_resps"]
    if guard.task.OUTPUT_TYPE != "multiple_choice":
        return str(answers[0])
    choices = [str(choice) for choice in guard.task.doc_to_choice(row["doc"])]
    lengths = [len(choice) if guard.metric == "acc_norm" else 1 for choice in choices]
    scores = [float(answers[at][0]) / max(1, lengths[at]) for at in range(len(choices))]
    return choices[max(range(len(choices)), key=scores.__getitem__)]


def _guard_reference(row: Mapping[str, Any], guard: PreparedGuard) -> str:
    target = row["target"]
    if guard.task.OUTPUT_TYPE == "multiple_choice" and isinstance(target, int):
        return str(guard.task.doc_to_choice(row["doc"])[target])
    return str(target)


def _finite_score(value: object) -> float | None:
    # A score that is not a finite number was not measured.
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        return None
    return float(value)
