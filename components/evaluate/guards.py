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
from components.store import manifest, parquet_files, unpacked_file

TaskBody: TypeAlias = dict[str, object]

DEFINITION_SUFFIXES = (".yaml", ".yml")

NO_FILTER = "none"  # lm-eval's name of no filter

GUARD_VERSION = manifest.version(1, first="70d168efabf484d8")
"""The version of guard tasks' prompts and scoring: raise the number when
``tests/golden/guard_tasks.json`` changes. Scores of two versions are not comparable."""

DOCUMENTS_VERSION = 1
"""The version of how the documents are made that a task processes itself (``process_docs``); before
it they were made anew at each reading."""

DOCUMENT_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
"""The formats of documents; JSON files have one object per line."""

_HEADS = re.compile(rb"^(task|group|class|tag):[ \t]*[\"']?([^\"'\s#]*)", re.MULTILINE)


class TaskDefinitionError(ValueError):
    """Raised when a task is unknown or its file is not a task."""


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """A task's YAML and its files: its own, included ones, and those of its functions."""

    name: str
    path: Path
    body: TaskBody
    files: tuple[Path, ...]

    @property
    def metrics(self) -> list[str] | None:
        """The declared metrics; ``None`` for lm-eval's default ones."""
        listed = self.body.get("metric_list")
        if not isinstance(listed, list):
            return None
        return [str(item["metric"]).rpartition(".")[2] for item in cast("list[TaskBody]", listed)]

    @property
    def filters(self) -> list[str]:
        """The names of its filters, which extract an answer from an output."""
        listed = self.body.get("filter_list")
        if not isinstance(listed, list):
            return [NO_FILTER]
        return [str(item["name"]) for item in cast("list[TaskBody]", listed)]

    @property
    def version(self) -> str:
        """Its ``metadata.version``; empty if missing."""
        metadata = self.body.get("metadata")
        if not isinstance(metadata, dict):
            return ""
        return str(cast("TaskBody", metadata).get("version", ""))

    @property
    def has_own_examples(self) -> bool:
        """Whether the definition itself contains the few-shot examples."""
        config = self.body.get("fewshot_config")
        return isinstance(config, dict) and bool(cast("TaskBody", config).get("samples"))


def find_definition(task: str) -> TaskDefinition:
    """Find a built-in task by name, or read the YAML file at a path.

    Raises:
        TaskDefinitionError: The task is unknown, or is not a single task in YAML.
    """
    path = Path(task) if task.endswith(DEFINITION_SUFFIXES) else _built_in_definition(task)
    return _read_definition(path)


def _built_in_definition(name: str) -> Path:
    tasks, others = _task_index()
    if name in tasks:
        return tasks[name]
    if name in others:
        raise TaskDefinitionError(f"{name} is {others[name]}: name single tasks instead")
    close = difflib.get_close_matches(name, tasks, n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise TaskDefinitionError(f"lm-eval has no task {name}{hint}")


@lru_cache(maxsize=1)
def _task_index() -> tuple[dict[str, Path], dict[str, str]]:
    """Index lm-eval's single tasks by name; return their paths, and what other names stand for."""
    # If a name occurs twice, lm-eval takes the first in the order of paths, and so does this.
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
            f"{path} does not describe a single task: expected a `task:` with a name"
        )
    return TaskDefinition(name, path, body, tuple(dict.fromkeys(files)))


def _load_yaml(path: Path, files: list[Path]) -> TaskBody:
    # merged over its includes; each file read is appended to ``files``
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
        raise TaskDefinitionError(f"{path} holds {type(body).__name__}, expected a mapping")
    own = cast("TaskBody", body)
    included = own.pop("include", None) or []
    merged: TaskBody = {}
    for file in included if isinstance(included, list) else [included]:
        merged |= _load_yaml((path.parent / str(file)).resolve(), files)
    return merged | own


def _yaml_loader(folder: Path, files: list[Path]) -> type[yaml.SafeLoader]:
    """Make a loader that reads ``!function module.name`` as text and records the module's file."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> str:
        assert isinstance(loader, Loader) and isinstance(node, yaml.ScalarNode)
        name = str(loader.construct_scalar(node))
        module = folder / (name.rpartition(".")[0].replace(".", "/") + ".py")
        if module.is_file():
            files.append(module)
        return name

    Loader.add_constructor("!function", function)
    return Loader


def guard_mistakes(tasks: Sequence[GuardTask]) -> list[str]:
    """List the mistakes in the tasks' settings, a sentence each; empty if all are valid.

    ``guard_runs.build_guard`` finds those in the documents, such as a missing column.
    """
    names: Counter[str] = Counter()
    mistakes: list[str] = []
    for guard in tasks:
        try:
            definition = find_definition(guard.task)
        except TaskDefinitionError as error:
            mistakes.append(str(error))
        else:
            names[definition.name] += 1
            mistakes += [f"{definition.name}: {problem}" for problem in _misfits(guard, definition)]
        mistakes += [f"{guard.task}: {problem}" for problem in _file_problems(guard)]
    repeated = [f"{name} occurs {n} times, expected once" for name, n in names.items() if n > 1]
    return mistakes + repeated


def guard_name(guard: GuardTask) -> str:
    """Return a task's name in scorecards; raises ``TaskDefinitionError`` if it is unknown."""
    return find_definition(guard.task).name


def _misfits(guard: GuardTask, definition: TaskDefinition) -> Iterable[str]:
    if definition.name in (HOLDOUT, VALIDATION):
        yield "is what the workload's own requests are called, so it needs another name"
    if definition.name in get_args(BuiltIn):
        yield "is what a task under evaluate.built_in is called, so it needs another name"
    if definition.metrics is not None and guard.metric not in definition.metrics:
        yield f"has no metric {guard.metric}, only {', '.join(definition.metrics)}"
    if guard.filter is None and len(definition.filters) > 1:
        yield f"has the filters {', '.join(definition.filters)}: name one under filter"
    if guard.filter is not None and guard.filter not in definition.filters:
        yield f"has no filter {guard.filter}, only {', '.join(definition.filters)}"
    if guard.num_fewshot and guard.examples is None and not definition.has_own_examples:
        yield f"num_fewshot is {guard.num_fewshot}, so a file of examples is required"
    if guard.examples is not None and not guard.num_fewshot:
        yield "has examples, but num_fewshot is 0"
    if definition.body.get("output_type") == "loglikelihood_rolling":
        yield "measures perplexity, which is not a mean of the documents' scores"
    if definition.body.get("unsafe_code"):
        yield "runs code that the model writes, which is not supported"


def _file_problems(guard: GuardTask) -> list[str]:
    files = {"data": guard.data, "examples": guard.examples}
    problems = {field: path and _file_problem(path) for field, path in files.items()}
    return [f"{field}: {problem}" for field, problem in problems.items() if problem]


def _file_problem(path: Path) -> str | None:
    if not path.is_file():
        return f"no file is at {path}"
    if not path.name.endswith(DOCUMENT_SUFFIXES):
        return f"{path}: expected a name that ends with one of {', '.join(DOCUMENT_SUFFIXES)}"
    return f"{path} is empty" if path.stat().st_size == 0 else None


def count_documents(guard: GuardTask, enough: int) -> int:
    """Count a task's documents, at most ``enough`` of them; the task's own code may drop some.

    Raises:
        ValueError: The file can't be read.
    """
    enough = min(enough, guard.limit or enough)
    try:
        if guard.data.suffix == ".parquet":
            return min(enough, parquet_files.count(guard.data))
        different: set[bytes] = set()
        for line in unpacked_file.read_lines(guard.data):
            if text := line.strip():
                different.add(text)
            if len(different) == enough:
                break
    except (OSError, ValueError) as error:
        raise ValueError(f"{guard.data} can't be read: {error}") from error
    return len(different)


def guard_conditions(guard: GuardTask) -> dict[str, Json]:
    """Return the conditions that must be equal for two scorecards of a task to be compared."""
    definition = find_definition(guard.task)
    return {
        "task": definition.name,
        "task_version": definition.version,
        "definition": manifest.digest([manifest.file_digest(path) for path in definition.files]),
        "data": manifest.file_digest(guard.data),
        "examples": manifest.file_digest(guard.examples) if guard.examples else None,
        "num_fewshot": guard.num_fewshot,
        "limit": guard.limit,
        "metric": guard.metric,
        "filter": chosen_filter(guard, definition),
        "chat_template": None,
        "asking_version": GUARD_VERSION,
        **({"documents": DOCUMENTS_VERSION} if "process_docs" in definition.body else {}),
        **({"cluster": guard.cluster} if guard.cluster is not None else {}),
    }


def chosen_filter(guard: GuardTask, definition: TaskDefinition) -> str:
    """Return the configured filter, or the only one."""
    return guard.filter or definition.filters[0]
