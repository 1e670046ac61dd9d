"""Read the one YAML file that describes a workload, or list every mistake in it."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from flows import workload_files
from flows.workload import Workload


class ConfigError(ValueError):
    """A workload file that can't be used; ``mistakes`` holds a sentence for each reason."""

    def __init__(self, path: Path, mistakes: list[str]) -> None:
        self.path = path
        self.mistakes = mistakes
        super().__init__("\n".join([f"{path}: {len(mistakes)} mistake(s)", *mistakes]))


def read(path: Path) -> Workload:
    """Read a workload file; its relative paths are taken from the file's own folder.

    Raises:
        ConfigError: With every mistake found, not only the first.
    """
    try:
        raw: object = yaml.safe_load(workload_files.read_text(path))
    except OSError as error:
        raise ConfigError(path, [f"can't be read: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(path, [f"is not YAML: {error}"]) from error
    if not isinstance(raw, dict):
        raise ConfigError(path, [f"holds {type(raw).__name__}, wants a mapping of settings"])
    try:
        return Workload.model_validate(raw, context=path.resolve().parent)
    except ValidationError as error:
        raise ConfigError(path, [_sentence(found) for found in error.errors()]) from error


def _sentence(error: object) -> str:
    """Word one pydantic error as ``train.r: what is wrong (found ...)``."""
    assert isinstance(error, dict)
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{place}: no such setting"
    if error["type"] == "missing":
        return f"{place}: is missing"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    return f"{place}: {error['msg']} (found {error['input']!r})"
