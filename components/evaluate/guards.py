"""Look over the guard tasks of a workload's file, before anything is loaded: name every mistake."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from components import manifest
from components.evaluate import definition
from components.evaluate.definition import Definition, DefinitionError
from components.evaluate.settings import BuiltIn, GuardTask
from components.schema import Json
from components.scorecard import HOLDOUT, VALIDATION

VERSION = manifest.version(1, first="70d168efabf484d8")
"""The version of how guard tasks are asked and scored: raise the number when
``tests/golden/guard_tasks.json`` changes. Scores of two versions are not comparable."""

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
"""The files that documents are read from; the JSON ones hold an object a line."""


def mistakes(tasks: Sequence[GuardTask]) -> list[str]:
    """Say what is wrong with any of the tasks, a sentence for each mistake; nothing if all is well.

    What only the documents can show, such as a column that is missing, ``guard.ask`` finds.
    """
    names: Counter[str] = Counter()
    found: list[str] = []
    for one in tasks:
        try:
            told = definition.find(one.task)
        except DefinitionError as error:
            found.append(str(error))
        else:
            names[told.name] += 1
            found += [f"{told.name}: {mistake}" for mistake in _misfits(one, told)]
        found += [f"{one.task}: {mistake}" for mistake in _file_problems(one)]
    return found + [f"{name} occurs {n} times, wants one" for name, n in names.items() if n > 1]


def name(one: GuardTask) -> str:
    """Name a task as its scorecards do; ``DefinitionError`` when there is none."""
    return definition.find(one.task).name


def _misfits(one: GuardTask, told: Definition) -> Iterable[str]:
    """Say where the definition and what is asked of it don't fit together."""
    if told.name in (HOLDOUT, VALIDATION):
        yield "is what the workload's own requests are called, so it wants another name"
    if told.name in get_args(BuiltIn):
        yield "is what a task under evaluate.built_in is called, so it wants another name"
    if told.metrics is not None and one.metric not in told.metrics:
        yield f"has no metric {one.metric}, only {', '.join(told.metrics)}"
    if one.filter is None and len(told.filters) > 1:
        yield f"has the filters {', '.join(told.filters)}: name one under filter"
    if one.filter is not None and one.filter not in told.filters:
        yield f"has no filter {one.filter}, only {', '.join(told.filters)}"
    if one.num_fewshot and one.examples is None and not told.has_own_examples:
        yield f"num_fewshot is {one.num_fewshot}, so it wants a file of examples"
    if one.examples is not None and not one.num_fewshot:
        yield "has examples, but num_fewshot is 0"
    if told.body.get("output_type") == "loglikelihood_rolling":
        yield "measures perplexity, which is no mean of the documents' scores"
    if told.body.get("unsafe_code"):
        yield "runs code that the model writes, which is never done here"


def _file_problems(one: GuardTask) -> list[str]:
    files = {"data": one.data, "examples": one.examples}
    found = {field: path and _file_problem(path) for field, path in files.items()}
    return [f"{field}: {problem}" for field, problem in found.items() if problem]


def _file_problem(path: Path) -> str | None:
    if not path.is_file():
        return f"no file is at {path}"
    if not path.name.endswith(ENDINGS):
        return f"{path} wants one of the endings {', '.join(ENDINGS)}"
    return f"{path} is empty" if path.stat().st_size == 0 else None


def conditions(one: GuardTask) -> dict[str, Json]:
    """Gather what must be equal for two scorecards of a task to be compared: by content."""
    told = definition.find(one.task)
    return {
        "task": told.name,
        "task_version": told.version,
        "definition": manifest.digest([manifest.file_digest(path) for path in told.files]),
        "data": manifest.file_digest(one.data),
        "examples": manifest.file_digest(one.examples) if one.examples else None,
        "num_fewshot": one.num_fewshot,
        "limit": one.limit,
        "metric": one.metric,
        "filter": chosen_filter(one, told),
        "chat_template": None,
        "asking_version": VERSION,
    }


def chosen_filter(one: GuardTask, told: Definition) -> str:
    """Give the filter that is asked for, or the only one."""
    return one.filter or told.filters[0]
