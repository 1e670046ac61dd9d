"""Say in a sentence each what is wrong in settings that people write."""

import re
from collections.abc import Container, Iterable, Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from components.schema import WORKLOAD_ID, WORKLOAD_ID_SENTENCE, Json

NUMBERS = ("greater_than", "less_than", "int_", "float_", "finite_number")
"""How the types of pydantic's errors in numbers begin."""

SIMILAR = 0.75  # the ratio from which a name may stand for another

_Path: TypeAlias = tuple[int | str, ...]


def describe_mistake(error: ErrorDetails, model: type[BaseModel] | None = None) -> str:
    """Return one of pydantic's errors as ``train.r: what is wrong (found ...)``.

    ``model`` is what was validated; its settings are those that an unknown one may stand for.
    """
    place = _place(error)
    if error["type"] == "extra_forbidden":
        known = () if model is None else _settings_beside(model, error["loc"])
        return f"{place}: no such setting{_meant(str(error['loc'][-1]), [*known])}"
    if error["type"] == "missing":
        return f"{place}: is missing"
    if error["type"] == "value_error":
        return f"{place}: {error.get('ctx', {})['error']}"
    if error["type"] == "union_tag_invalid":
        context: dict[str, str] = error.get("ctx", {})
        expected, tag = context["expected_tags"], context["tag"]
        return f"{place}: expected one of {expected} (found {tag!r})"
    if error["type"] == "string_pattern_mismatch" and error.get("ctx") == {"pattern": WORKLOAD_ID}:
        return f"{place}: {WORKLOAD_ID_SENTENCE} (found {error['input']!r})"
    return f"{place}: {error['msg']} (found {error['input']!r}{_percentage(error)})"


def describe_mistakes(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return a sentence for each setting that is wrong; what it may be instead is in one."""
    merged: list[ErrorDetails] = []
    for mistake in error.errors():
        if merged and len(mistake["loc"]) > 1 and _place(merged[-1]) == _place(mistake):
            mistake["msg"] = f"{merged.pop()['msg']}; {mistake['msg']}"
        merged.append(mistake)
    return [describe_mistake(mistake, model) for mistake in merged]


def every_mistake(
    error: ValidationError, model: type[BaseModel], raw: Json, context: object = None
) -> list[str]:
    """Return ``describe_mistakes``, and what pydantic looks for only where those are mended.

    That is what must agree between settings. It is looked for with what is wrong left out, and
    listed unless the right setting might make it agree: it names that, or is of another section
    than what is left out, and that is more than a number.
    """
    mistakes, raw = describe_mistakes(error, model), deepcopy(raw)
    left_out, names, changed = set[_Path](), dict[str, float](), set[int | str]()
    while wrong := {
        path: each["type"] for each in error.errors() if (path := _removable(raw, each, left_out))
    }:
        for path in sorted(wrong, key=_last_first, reverse=True):
            left_out.add(path)
            hints = (*path[1:], _remove(raw, path))
            ratio = SIMILAR if wrong[path] == "extra_forbidden" else 1.0
            names |= {hint: ratio for hint in hints if isinstance(hint, str)}
            changed |= set() if wrong[path].startswith(NUMBERS) else {path[0]}
        try:
            model.model_validate(raw, context=context)
        except ValidationError as later:
            error = later
        else:
            break
        for mistake in describe_mistakes(error, model):
            words = re.findall(r"\w+", mistake)
            is_named = any(
                get_close_matches(name, words, n=1, cutoff=ratio) for name, ratio in names.items()
            )
            section = re.split(r"[.:]", mistake)[0]
            if mistake not in mistakes and not is_named and changed <= {section}:
                mistakes.append(mistake)
    return mistakes


def _removable(raw: Json, error: ErrorDetails, left_out: Container[_Path]) -> _Path | None:
    """Return the setting that is wrong; ``None`` for a whole section, which others depend on."""
    place, path = error["loc"], list[int | str]()
    if error["type"] == "missing" and place not in left_out:
        return None
    within: Any = raw
    for part in place:  # some are names of members of a union
        if _has(within, part):
            within = within[part]
            path.append(part)
    return tuple(path) if len(path) > 1 else None


def _has(value: Json, part: int | str) -> bool:
    if isinstance(value, list):
        return part in range(len(value))
    return isinstance(value, dict) and part in value


def _remove(raw: Json, path: _Path) -> Json:
    within: Any = raw
    for part in path[:-1]:
        within = within[part]
    return within.pop(path[-1])


def _last_first(path: _Path) -> list[tuple[bool, int | str]]:
    return [(isinstance(part, int), part) for part in path]


def _place(error: ErrorDetails) -> str:
    """Return the setting's name; pydantic names the member of a union as in ``literal['any']``."""
    return ".".join(str(part) for part in error["loc"] if "[" not in str(part))


def _percentage(error: ErrorDetails) -> str:
    """Return what a percentage is as a share, where one was written for it."""
    number = re.fullmatch(r"(\d+(?:\.\d+)?)( ?%)?", str(error["input"]))
    if number is None or float(number[1]) > 100:
        return ""
    bounds = [error.get("ctx", {}).get(name) for name in ("le", "lt")]
    is_share = any(bound is not None and bound <= 1 < float(number[1]) for bound in bounds)
    return f"; {number[1]} % is {float(number[1]) / 100:g}" if number[2] or is_share else ""


def _meant(unknown: str, known: Sequence[str]) -> str:
    if similar := get_close_matches(unknown, known, n=1, cutoff=SIMILAR):
        return f"; did you mean {similar[0]}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _settings_beside(model: type[BaseModel], place: Sequence[int | str]) -> Iterable[str]:
    """Return the names of the settings in the section that a place of an error is in."""
    models = [model]
    for part in place[:-1]:
        fields = [each.model_fields[str(part)] for each in models if part in each.model_fields]
        models = [inner for field in fields for inner in _models_in(field.annotation)] or models
    return [name for each in models for name in each.model_fields]


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
