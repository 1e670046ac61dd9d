"""The candidates of a search: every combination of the values to try."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pydantic import ValidationError

from components.train.recipe import Recipe
from components.train.search.settings import SearchSettings

BASE_KNOB = "base"  # the one thing that can be tried and is no setting of a recipe

TEACHER_KNOB = "teacher_model_name_or_path"

ANSWER_OBJECTIVES = ("sft", "distillation", "orpo")
"""Objectives that learn to answer, and so can be compared on answers."""


@dataclass(frozen=True, slots=True)
class SearchCandidate:
    """A base and a recipe; ``name`` says in what it differs from the others."""

    name: str
    base: Path
    recipe: Recipe


def resolve_paths(search: SearchSettings, folder: Path) -> SearchSettings:
    """Take the bases and teachers that are to be tried from a folder."""
    over = dict(search.over)
    if BASE_KNOB in over:
        over[BASE_KNOB] = [str((folder / str(one)).resolve()) for one in over[BASE_KNOB]]
    if "objective" in over:
        over["objective"] = [_resolve_teacher(one, folder) for one in over["objective"]]
    return search.model_copy(update={"over": over})


def _resolve_teacher(objective: object, folder: Path) -> object:
    if not isinstance(objective, dict) or TEACHER_KNOB not in objective:
        return objective
    return objective | {TEACHER_KNOB: str((folder / str(objective[TEACHER_KNOB])).resolve())}


def expand_candidates(base: Path, recipe: Recipe, search: SearchSettings) -> list[SearchCandidate]:
    """List the candidates, in the order in which their values are written.

    Args:
        base: The base where the search tries none.
        recipe: What the search leaves as it is.
        search: What it tries.

    Raises:
        ValueError: A setting doesn't exist, a value can't be, or there is nothing to choose from.
    """
    _refuse_unknown(search)
    found = [
        _candidate(base, recipe, dict(zip(search.over, values, strict=True)))
        for values in product(*search.over.values())
    ]
    if len(found) < 2:
        raise ValueError("over: gives one candidate, wants at least two values of something")
    _refuse_twice(found)
    _refuse_incomparable(found, recipe)
    return found


def _candidate(base: Path, recipe: Recipe, choice: Mapping[str, object]) -> SearchCandidate:
    name = ", ".join(f"{key} {_short(value)}" for key, value in choice.items())
    knobs = {key: value for key, value in choice.items() if key != BASE_KNOB}
    try:
        made = Recipe.model_validate(recipe.model_dump() | knobs)
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(["over", *(str(part) for part in found["loc"])])
        raise ValueError(f"{place}: {found['msg']} (of the candidate {name})") from error
    return SearchCandidate(name, Path(str(choice.get(BASE_KNOB, base))), made)


def _short(value: object) -> str:
    """Write a value in a few words: of a path its last part."""
    return Path(value).name if isinstance(value, str) else str(value)


def _refuse_unknown(search: SearchSettings) -> None:
    known = {BASE_KNOB, *Recipe.model_fields} - {"seed"}
    for key, values in search.over.items():
        if key not in known:
            why = "every candidate has the same" if key == "seed" else "is no setting of train"
            raise ValueError(f"over.{key}: {why}")
        if not values:
            raise ValueError(f"over.{key}: lists nothing to try")


def _refuse_incomparable(candidates: list[SearchCandidate], recipe: Recipe) -> None:
    for one in candidates:
        if one.recipe.precision != recipe.precision:
            raise ValueError(
                f"holds the base of {one.name} in {one.recipe.precision}, and the winner would be "
                f"evaluated and served in train's {recipe.precision}: wants the same for all"
            )
        if one.recipe.warm_start:
            raise ValueError("starts every candidate from its base: leave warm_start out")
        kind = one.recipe.objective.kind
        if kind not in ANSWER_OBJECTIVES:
            raise ValueError(
                f"compares how likely candidates find right answers, which objective {kind} does "
                f"not aim at: wants {', '.join(ANSWER_OBJECTIVES)}"
            )


def _refuse_twice(candidates: list[SearchCandidate]) -> None:
    seen: list[tuple[Path, Recipe]] = []
    for one in candidates:
        if (one.base, one.recipe) in seen:
            raise ValueError(f"over: the candidate {one.name} is there twice")
        seen.append((one.base, one.recipe))
