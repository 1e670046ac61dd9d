"""Guard tasks of a workload file, checked before anything is loaded; lm-eval's task definitions."""

import difflib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias, cast, get_args

import yaml

from components.evaluate.settings import BuiltIn, GuardTask
from components.schema import Json
from components.scorecard import HOLDOUT, VALIDATION
from components.store import manifest

TaskBody: TypeAlias = dict[str, object]

DEFINITION_SUFFIXES = (".yaml", ".yml")

NO_FILTER = "none"
"""What lm-eval calls scoring the output as it is."""

_HEADS = re.compile(rb"^(task|group|class|tag):[ \t]*[\"']?([^\"'\s#]*)", re.MULTILINE)


class TaskDefinitionError(ValueError):
    """A task that does not exist, or whose file is none."""


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """What a task's YAML says, with the files that say it: its own, included ones, functions'."""

    name: str
    path: Path
    body: TaskBody
    files: tuple[Path, ...]

    @property
    def metrics(self) -> list[str] | None:
        """The metrics that it declares; ``None`` if it leaves them to lm-eval."""
        listed = self.body.get("metric_list")
        if not isinstance(listed, list):
            return None
        return [str(one["metric"]).rpartition(".")[2] for one in cast("list[TaskBody]", listed)]

    @property
    def filters(self) -> list[str]:
        """What it calls its ways to read an answer."""
        listed = self.body.get("filter_list")
        if not isinstance(listed, list):
            return [NO_FILTER]
        return [str(one["name"]) for one in cast("list[TaskBody]", listed)]

    @property
    def version(self) -> str:
        """The version that its author gave it; empty if none."""
        told = self.body.get("metadata")
        return str(cast("TaskBody", told).get("version", "")) if isinstance(told, dict) else ""

    @property
    def has_own_examples(self) -> bool:
        """Whether the solved documents for few-shot prompts stand in the definition itself."""
        told = self.body.get("fewshot_config")
        return isinstance(told, dict) and bool(cast("TaskBody", told).get("samples"))


def find_definition(named: str) -> TaskDefinition:
    """Find a built-in task by name, or read the YAML file at a path.

    Raises:
        DefinitionError: There is none, or it is not one task that YAML describes.
    """
    path = Path(named) if named.endswith(DEFINITION_SUFFIXES) else _built_in_definition(named)
    return _read_definition(path)


def _built_in_definition(named: str) -> Path:
    tasks, others = _task_index()
    if named in tasks:
        return tasks[named]
    if named in others:
        raise TaskDefinitionError(f"{named} is {others[named]}: name single tasks instead")
    close = difflib.get_close_matches(named, tasks, n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise TaskDefinitionError(f"lm-eval has no task {named}{hint}")


@lru_cache(maxsize=1)
def _task_index() -> tuple[dict[str, Path], dict[str, str]]:
    """List lm-eval's single tasks by name, and what the names are that stand for something else.

    Of two tasks of one name lm-eval takes the first in the order of paths, and so does this.
    """
    tasks: dict[str, Path] = {}
    others: dict[str, str] = {}
    for path in sorted(_tasks_folder().rglob("*.yaml"), key=Path.as_posix):
        heads: dict[str, str] = {}
        for kind, name in _HEADS.findall(path.read_bytes()):
            heads.setdefault(kind.decode(), name.decode())
        if "group" in heads:
            others.setdefault(heads["group"], "a group of tasks")
        elif "class" in heads:
            others.setdefault(heads.get("task", ""), "a task in Python, which finds its own data")
        elif heads.get("task"):
            tasks.setdefault(heads["task"], path)
    return tasks, others


def _tasks_folder() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "tasks"


def _read_definition(path: Path) -> TaskDefinition:
    files: list[Path] = []
    body = _load_yaml(path, files)
    name = body.get("task")
    if "group" in body or "class" in body or not isinstance(name, str):
        raise TaskDefinitionError(
            f"{path} describes no single task: it wants a `task:` with a name"
        )
    return TaskDefinition(name, path, body, tuple(dict.fromkeys(files)))


def _load_yaml(path: Path, files: list[Path]) -> TaskBody:
    """Read a YAML file over those that it includes, and note every file that was read."""
    if path in files:
        raise TaskDefinitionError(f"{path} includes itself")
    files.append(path)
    try:
        body = yaml.load(path.read_bytes(), Loader=_yaml_loader(path.parent, files))
    except OSError as error:
        raise TaskDefinitionError(f"{path} can't be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise TaskDefinitionError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(body, dict):
        raise TaskDefinitionError(f"{path} holds {type(body).__name__}, wants a mapping")
    own = cast("TaskBody", body)
    included = own.pop("include", None) or []
    merged: TaskBody = {}
    for one in included if isinstance(included, list) else [included]:
        merged |= _load_yaml((path.parent / str(one)).resolve(), files)
    return merged | own


def _yaml_loader(folder: Path, files: list[Path]) -> type[yaml.SafeLoader]:
    """Make a loader that reads ``!function module.name`` as text and notes the module's file."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> str:
        assert isinstance(loader, Loader) and isinstance(node, yaml.ScalarNode)
        named = str(loader.construct_scalar(node))
        module = folder / (named.rpartition(".")[0].replace(".", "/") + ".py")
        if module.is_file():
            files.append(module)
        return named

    Loader.add_constructor("!function", function)
    return Loader


GUARD_VERSION = manifest.version(1, first="70d168efabf484d8")
"""The version of how guard tasks are asked and scored: raise the number when
``tests/golden/guard_tasks.json`` changes. Scores of two versions are not comparable."""

DOCUMENT_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
"""The files that documents are read from; the JSON ones hold an object a line."""


def guard_mistakes(tasks: Sequence[GuardTask]) -> list[str]:
    """Say what is wrong with any of the tasks, a sentence for each mistake; nothing if all is well.

    What only the documents can show, such as a column that is missing, ``guard.ask`` finds.
    """
    names: Counter[str] = Counter()
    found: list[str] = []
    for one in tasks:
        try:
            told = find_definition(one.task)
        except TaskDefinitionError as error:
            found.append(str(error))
        else:
            names[told.name] += 1
            found += [f"{told.name}: {mistake}" for mistake in _misfits(one, told)]
        found += [f"{one.task}: {mistake}" for mistake in _file_problems(one)]
    return found + [f"{name} occurs {n} times, wants one" for name, n in names.items() if n > 1]


def guard_name(one: GuardTask) -> str:
    """Name a task as its scorecards do; ``DefinitionError`` when there is none."""
    return find_definition(one.task).name


def _misfits(one: GuardTask, told: TaskDefinition) -> Iterable[str]:
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
    if not path.name.endswith(DOCUMENT_SUFFIXES):
        return f"{path} wants one of the endings {', '.join(DOCUMENT_SUFFIXES)}"
    return f"{path} is empty" if path.stat().st_size == 0 else None


def guard_conditions(one: GuardTask) -> dict[str, Json]:
    """Gather what must be equal for two scorecards of a task to be compared: by content."""
    told = find_definition(one.task)
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
        "asking_version": GUARD_VERSION,
    }


def chosen_filter(one: GuardTask, told: TaskDefinition) -> str:
    """Give the filter that is asked for, or the only one."""
    return one.filter or told.filters[0]
