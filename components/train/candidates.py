"""The ``search:`` section of a workload file, and its candidates: every combination to try."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from components.schema import Config
from components.train.recipe import Recipe

BASE_KNOB = "base"  # the only thing to try that is not a setting of a recipe

TEACHER_KNOB = "teacher_model_name_or_path"

ANSWER_OBJECTIVES = ("sft", "distillation", "orpo")
"""Objectives that learn to answer, and so can be compared on answers."""


class SearchBudget(Config):
    """What all candidates may use together, in tokens or in minutes."""

    tokens: int | None = Field(default=None, ge=1)
    """Tokens to train on, prompts and answers, each time they are seen: the same on any machine."""

    minutes: float | None = Field(default=None, gt=0)
    """Minutes of training, summed over all candidates, whether they run in parallel or not."""

    @model_validator(mode="after")
    def _is_one(self) -> "SearchBudget":
        if (self.tokens is None) == (self.minutes is None):
            raise ValueError("expected either tokens or minutes")
        return self


class SearchSettings(Config):
    """Which candidates a turn trains, and what they may cost together."""

    over: dict[str, list[object]] = Field(min_length=1)
    """Values to try of settings of ``train``, and of ``base``: every combination is a candidate;
    other settings are as in the rest of the file."""

    budget: SearchBudget
    """The search's limit: with less, every candidate's training is shorter, schedule and all.
    No candidate sees an example more often than its ``num_train_epochs``."""

    eta: int = Field(default=3, ge=2)
    """Each rung promotes one in ``eta`` candidates, which train ``eta`` times as far: higher prunes
    earlier and so tries more for the same budget, lower is less rash."""


@dataclass(frozen=True, slots=True)
class SearchCandidate:
    """A base and a recipe; ``name`` lists the values that distinguish it from the others."""

    name: str
    base: Path
    recipe: Recipe


def resolve_paths(search: SearchSettings, folder: Path) -> SearchSettings:
    """Resolve the paths of bases and teachers relative to a folder."""
    over = dict(search.over)
    if BASE_KNOB in over:
        over[BASE_KNOB] = [str((folder / str(base)).resolve()) for base in over[BASE_KNOB]]
    if "objective" in over:
        over["objective"] = [_resolve_teacher(objective, folder) for objective in over["objective"]]
    return search.model_copy(update={"over": over})


def _resolve_teacher(objective: object, folder: Path) -> object:
    if not isinstance(objective, dict) or TEACHER_KNOB not in objective:
        return objective
    return objective | {TEACHER_KNOB: str((folder / str(objective[TEACHER_KNOB])).resolve())}


def expand_candidates(base: Path, recipe: Recipe, search: SearchSettings) -> list[SearchCandidate]:
    """List the candidates in the order of their values in the file.

    Args:
        base: The base if the search tries none.
        recipe: The settings that the search does not try.
        search: The values to try.

    Raises:
        ValueError: A setting is unknown, a value is invalid, or there are fewer than two candidates
            or some that can't be compared.
    """
    _require_known(search)
    candidates = [
        _candidate(base, recipe, dict(zip(search.over, values, strict=True)))
        for values in product(*search.over.values())
    ]
    if len(candidates) < 2:
        raise ValueError("over: gives one candidate, expected at least two values of something")
    for number, candidate in enumerate(candidates):
        same = (candidate.base, candidate.recipe.learned)
        if any(same == (other.base, other.recipe.learned) for other in candidates[:number]):
            raise ValueError(f"over: the candidate {candidate.name} is there twice")
    for candidate in candidates:
        _require_comparable(candidate, recipe)
    return candidates


def _candidate(base: Path, recipe: Recipe, choice: Mapping[str, object]) -> SearchCandidate:
    name = ", ".join(f"{key} {_short(value)}" for key, value in choice.items())
    knobs = {key: value for key, value in choice.items() if key != BASE_KNOB}
    try:
        changed = Recipe.model_validate(recipe.model_dump() | knobs)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["over", *(str(part) for part in first["loc"])])
        raise ValueError(f"{place}: {first['msg']} (of the candidate {name})") from error
    return SearchCandidate(name, Path(str(choice.get(BASE_KNOB, base))), changed)


def _short(value: object) -> str:
    return Path(value).name if isinstance(value, str) else str(value)


def _require_known(search: SearchSettings) -> None:
    known = {BASE_KNOB, *Recipe.model_fields} - {"seed"}
    for key, values in search.over.items():
        if key not in known:
            why = "every candidate has the same" if key == "seed" else "is no setting of train"
            raise ValueError(f"over.{key}: {why}")
        if not values:
            raise ValueError(f"over.{key}: lists nothing to try")


def _require_comparable(candidate: SearchCandidate, recipe: Recipe) -> None:
    precision, kind = candidate.recipe.precision, candidate.recipe.objective.kind
    if precision != recipe.precision:
        raise ValueError(
            f"holds the base of {candidate.name} in {precision}, but the winner would be evaluated "
            f"and served in train's {recipe.precision}: expected the same for all"
        )
    if candidate.recipe.warm_start:
        raise ValueError("starts every candidate from its base: leave warm_start out")
    if kind not in ANSWER_OBJECTIVES:
        raise ValueError(
            f"compares how likely candidates find right answers, which objective {kind} does "
            f"not aim at: expected one of {', '.join(ANSWER_OBJECTIVES)}"
        )
