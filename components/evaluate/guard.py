"""Make one of lm-eval's own tasks ready to be asked, on documents that lie here.

The documents are handed over as they were read: the cache of ``datasets`` takes a rewritten file
for the old one. A document that does not fit the task is an error here, where lm-eval would score
it as answered wrongly.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from components.evaluate import definition, documents, guards
from components.evaluate.settings import GuardTask
from components.scorecard import Metric

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask

MEANINGS = {
    "acc": "the right choice is the likeliest",
    "acc_norm": "the right choice is the likeliest for its length",
    "exact_match": "the answer is the right one, word for word",
}

_CLUMSY = (
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
"""What a task's own functions and templates raise when a document is not as they expect."""


class GuardError(ValueError):
    """Guard tasks that can't be asked; ``mistakes`` holds a sentence for each reason."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = list(mistakes)
        super().__init__("; ".join(mistakes))


@dataclass(frozen=True, slots=True)
class Guard:
    """A task that is ready to be asked, with what its one metric means."""

    task: "ConfigurableTask"
    metric: str
    filter: str
    told: Metric


def prepare(tasks: Sequence[GuardTask]) -> dict[str, Guard]:
    """Make every task ready, by name, having looked at each of its documents.

    Raises:
        GuardError: With every mistake of every task.
    """
    mistakes = guards.mistakes(tasks)
    ready: dict[str, Guard] = {}
    for one in tasks if not mistakes else ():
        try:
            ready[guards.name(one)] = build(one)
        except GuardError as error:
            mistakes += error.mistakes
    if mistakes:
        raise GuardError(mistakes)
    return ready


def build(one: GuardTask) -> Guard:
    """Make lm-eval's task from its definition and our documents, and look at each of them.

    Raises:
        GuardError: It can't be asked of these documents, or not scored.
    """
    from lm_eval.api.task import ConfigurableTask

    told = definition.find(one.task)
    try:
        task = ConfigurableTask(config=_configure(one, told))
    except _CLUMSY as error:
        misfit = f"{told.name}: {one.data} does not fit the task: {_say(error)}"
        raise GuardError([misfit]) from error
    mistakes = [f"{told.name}: {mistake}" for mistake in _document_mistakes(task)]
    if (task.config.generation_kwargs or {}).get("do_sample"):
        mistakes.append(f"{told.name}: draws its answers at random, so no score can be repeated")
    if problem := _metric_problem(task, one.metric):
        mistakes.append(f"{told.name}: {problem}")
    if mistakes:
        raise GuardError(mistakes)
    higher = bool(task.higher_is_better()[one.metric])
    meaning = MEANINGS.get(one.metric, f"the mean of lm-eval's {one.metric}")
    metric = Metric(f"of the documents of {told.name}: {meaning}", higher_is_better=higher)
    return Guard(task, one.metric, guards.chosen_filter(one, told), metric)


def _configure(one: GuardTask, told: definition.Definition) -> dict[str, Any]:
    """Give lm-eval the task's definition with our documents in place of its own."""
    from datasets import Dataset
    from lm_eval.tasks._yaml_loader import load_yaml

    asked = documents.read(one.data)
    splits = {"test": Dataset.from_list(documents.draw(asked, one.limit))}
    if one.examples is not None:
        examples = documents.others(documents.read(one.examples), asked)
        if len(examples) < one.num_fewshot:
            raise ValueError(
                f"{one.examples} has {len(examples)} documents that are not asked, and num_fewshot "
                f"wants {one.num_fewshot}"
            )
        splits["examples"] = Dataset.from_list(examples)

    def load(**_: object) -> dict[str, Dataset]:
        return splits

    body: dict[str, Any] = load_yaml(told.path, resolve_func=True)
    body = {key: value for key, value in body.items() if key not in ("tag", "task_list", "group")}
    if one.examples is not None and isinstance(body.get("fewshot_config"), dict):
        body["fewshot_config"] = {
            key: value
            for key, value in body["fewshot_config"].items()
            if key not in ("split", "samples")
        }
    return body | {
        "custom_dataset": load,
        "dataset_path": None,
        "dataset_name": None,
        "dataset_kwargs": None,
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
        "fewshot_split": "examples" if one.examples is not None else None,
        "num_fewshot": one.num_fewshot,
    }


def _metric_problem(task: "ConfigurableTask", metric: str) -> str | None:
    from lm_eval.api.metrics import mean

    means = task.aggregation()
    if metric not in means:
        return f"has no metric {metric}, only {', '.join(means)}"
    if means[metric] is not mean:
        return f"{metric} is no mean of the documents' scores"
    if task.config.process_results is None and task._metric_fn_list[metric] is None:  # pyright: ignore[reportPrivateUsage] - nothing public tells
        return f"lm-eval can't compute {metric} here: what it needs is not installed"
    return None


def _document_mistakes(task: "ConfigurableTask") -> list[str]:
    """Say of the first document that can't be asked or scored why."""
    for number, document in enumerate(cast("Iterable[dict[str, Any]]", task.eval_docs)):
        try:
            problem = _document_problem(task, document)
        except _CLUMSY as error:
            empty = [name for name, value in document.items() if value is None]
            problem = f"has no {', '.join(empty)}: {_say(error)}" if empty else _say(error)
        if problem is not None:
            return [f"document {number}: {problem}"]
    return []


def _document_problem(task: "ConfigurableTask", document: dict[str, Any]) -> str | None:
    text, target = task.doc_to_text(document), task.doc_to_target(document)
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    choices = task.doc_to_choice(document)
    right = text if isinstance(text, int) else target
    for one in right if isinstance(right, list) else [right]:
        known = 0 <= one < len(choices) if isinstance(one, int) else one in choices
        if not known:
            return f"its right answer {one!r} is none of its {len(choices)} choices"
    return None


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
