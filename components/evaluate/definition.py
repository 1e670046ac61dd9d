"""Find lm-eval's tasks and read what their YAML says, without loading lm-eval.

lm-eval itself passes over a file that it can't read, takes the first of two tasks of one name and
carries on without a metric that it does not know; here each of these is an error.
"""

import difflib
import importlib.util
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias, cast

import yaml

Body: TypeAlias = dict[str, object]

ENDINGS = (".yaml", ".yml")

NO_FILTER = "none"
"""What lm-eval calls scoring the output as it is."""

_HEADS = re.compile(rb"^(task|group|class|tag):[ \t]*[\"']?([^\"'\s#]*)", re.MULTILINE)


class DefinitionError(ValueError):
    """A task that does not exist, or whose file is none."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a task's YAML says, with the files that say it: its own, included ones, functions'."""

    name: str
    path: Path
    body: Body
    files: tuple[Path, ...]

    @property
    def metrics(self) -> list[str] | None:
        """The metrics that it declares; ``None`` if it leaves them to lm-eval."""
        listed = self.body.get("metric_list")
        if not isinstance(listed, list):
            return None
        return [str(one["metric"]).rpartition(".")[2] for one in cast("list[Body]", listed)]

    @property
    def filters(self) -> list[str]:
        """What it calls its ways to read an answer."""
        listed = self.body.get("filter_list")
        if not isinstance(listed, list):
            return [NO_FILTER]
        return [str(one["name"]) for one in cast("list[Body]", listed)]

    @property
    def version(self) -> str:
        """The version that its author gave it; empty if none."""
        told = self.body.get("metadata")
        return str(cast("Body", told).get("version", "")) if isinstance(told, dict) else ""

    @property
    def has_own_examples(self) -> bool:
        """Whether the solved documents for few-shot prompts stand in the definition itself."""
        told = self.body.get("fewshot_config")
        return isinstance(told, dict) and bool(cast("Body", told).get("samples"))


def find(named: str) -> Definition:
    """Find a built-in task by name, or read the YAML file at a path.

    Raises:
        DefinitionError: There is none, or it is not one task that YAML describes.
    """
    path = Path(named) if named.endswith(ENDINGS) else _built_in(named)
    return _read(path)


def _built_in(named: str) -> Path:
    tasks, others = _index()
    if named in tasks:
        return tasks[named]
    if named in others:
        raise DefinitionError(f"{named} is {others[named]}: name single tasks instead")
    close = difflib.get_close_matches(named, tasks, n=3)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise DefinitionError(f"lm-eval has no task {named}{hint}")


@lru_cache(maxsize=1)
def _index() -> tuple[dict[str, Path], dict[str, str]]:
    """List lm-eval's single tasks by name, and what the names are that stand for something else.

    Of two tasks of one name lm-eval takes the first in the order of paths, and so does this.
    """
    tasks: dict[str, Path] = {}
    others: dict[str, str] = {}
    for path in sorted(_root().rglob("*.yaml"), key=Path.as_posix):
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


def _root() -> Path:
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "tasks"


def _read(path: Path) -> Definition:
    files: list[Path] = []
    body = _load(path, files)
    name = body.get("task")
    if "group" in body or "class" in body or not isinstance(name, str):
        raise DefinitionError(f"{path} describes no single task: it wants a `task:` with a name")
    return Definition(name, path, body, tuple(dict.fromkeys(files)))


def _load(path: Path, files: list[Path]) -> Body:
    """Read a YAML file over those that it includes, and note every file that was read."""
    if path in files:
        raise DefinitionError(f"{path} includes itself")
    files.append(path)
    try:
        body = yaml.load(path.read_bytes(), Loader=_loader(path.parent, files))
    except OSError as error:
        raise DefinitionError(f"{path} can't be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise DefinitionError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(body, dict):
        raise DefinitionError(f"{path} holds {type(body).__name__}, wants a mapping")
    own = cast("Body", body)
    included = own.pop("include", None) or []
    merged: Body = {}
    for one in included if isinstance(included, list) else [included]:
        merged |= _load((path.parent / str(one)).resolve(), files)
    return merged | own


def _loader(folder: Path, files: list[Path]) -> type[yaml.SafeLoader]:
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
