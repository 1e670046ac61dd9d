"""Score calls of tools against their reference: each metric is 0, 1 or not measured.

A metric that does not apply to a request is ``None`` there. How an argument may be written follows
the Berkeley Function Calling Leaderboard (``bfcl_eval/eval_checker/ast_eval/ast_checker.py``).
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from components import native, parameters
from components.native import Form
from components.schema import AcceptableCall, Answer, Call, Json
from components.scorecard import Metric

if TYPE_CHECKING:
    from jsonschema_rs import Validator

Wanted = TypeVar("Wanted")

METRICS = {
    "valid_json": Metric("of the requests that want a call: the answer is calls, as valid JSON"),
    "schema_valid": Metric(
        "of those: and every call is of a tool that was offered, with arguments that its JSON "
        "Schema allows"
    ),
    "name": Metric("of those: the right function by name"),
    "name_and_arguments": Metric("of those: the right function and every argument right"),
    "abstention": Metric("of the requests that no tool fits: the answer is text and calls nothing"),
    "over_triggering": Metric(
        "of those: a tool is called, or a call begun, nevertheless; lower is better",
        higher_is_better=False,
    ),
    "correct_name": Metric("of all requests: right by name, or rightly no call"),
    "correct": Metric("of all requests: the whole call right, or rightly no call"),
}
"""Every metric with what it is the share of; each is 0 or 1 on one request."""

MAY_BE_LEFT_OUT: Json = ""
"""Among an argument's acceptable values, this one says that the argument may be left out."""

PUNCTUATION = re.compile(r"[ ,./\-_*^]")


def score(
    text: str,
    reference: Answer,
    acceptable: Sequence[AcceptableCall] | None,
    form: Form = "written",
    tools: str = "[]",
) -> dict[str, float | None]:
    """Score a model's ``text``; ``METRICS`` says what each metric is.

    Args:
        text: What the model wrote, its end token removed.
        reference: The right answer.
        acceptable: The values that each call of the reference may take, where they are known;
            without them the calls must equal the reference's.
        form: The one that the base writes calls in.
        tools: The OpenAI tools that were offered, as JSON text.
    """
    answer = native.read_answer(form, text)
    broken = native.answer_problem(form, text) is not None
    if not reference.calls:
        abstained = float(bool(answer.text) and not broken and not answer.calls)
        return {
            "valid_json": None,
            "schema_valid": None,
            "name": None,
            "name_and_arguments": None,
            "abstention": abstained,
            "over_triggering": float(bool(answer.calls) or broken),
            "correct_name": abstained,
            "correct": abstained,
        }
    valid = bool(answer.calls) and not broken
    name = float(valid and _names(answer.calls) == _names(reference.calls))
    whole = float(bool(name) and calls_match(answer.calls, reference.calls, acceptable))
    return {
        "valid_json": float(valid),
        "schema_valid": float(valid and all(_is_allowed(call, tools) for call in answer.calls)),
        "name": name,
        "name_and_arguments": whole,
        "abstention": None,
        "over_triggering": None,
        "correct_name": name,
        "correct": whole,
    }


def _is_allowed(call: Call, tools: str) -> bool:
    """Tell whether a call is of a tool that was offered, with arguments that its schema allows."""
    names, validators = _offered(tools)
    if call.name not in names:
        return False
    validator = validators.get(call.name)
    return validator is None or parameters.problem(validator, call.arguments) is None


@lru_cache(maxsize=512)
def _offered(tools: str) -> tuple[frozenset[str], Mapping[str, "Validator"]]:
    offered = [tool["function"] for tool in json.loads(tools)]
    names = frozenset(function["name"] for function in offered)
    return names, parameters.validators({"function": function} for function in offered)


def calls_match(
    calls: Sequence[Call],
    reference: Sequence[Call],
    acceptable: Sequence[AcceptableCall] | None,
) -> bool:
    """Tell whether the calls are the wanted ones, one for one, in any order."""
    if acceptable is not None:
        return _pair_up(calls, acceptable, fits)
    return _pair_up(calls, reference, _same_call)


def fits(call: Call, wanted: AcceptableCall) -> bool:
    """Tell whether a call has the wanted name and an acceptable value for every argument."""
    return call.name == wanted.name and _arguments_fit(call.arguments, wanted.arguments)


def _names(calls: Sequence[Call]) -> list[str]:
    return sorted(call.name for call in calls)


def _pair_up(
    calls: Sequence[Call], wanted: Sequence[Wanted], match: Callable[[Call, Wanted], bool]
) -> bool:
    if len(calls) != len(wanted):
        return False
    return not calls or any(
        match(calls[0], one) and _pair_up(calls[1:], [*wanted[:i], *wanted[i + 1 :]], match)
        for i, one in enumerate(wanted)
    )


def _same_call(call: Call, wanted: Call) -> bool:
    return call.name == wanted.name and _same(call.arguments, wanted.arguments)


def _arguments_fit(given: Mapping[str, Json], wanted: Mapping[str, Sequence[Json]]) -> bool:
    return given.keys() <= wanted.keys() and all(
        any(_acceptable(given[name], value) for value in values)
        if name in given
        else MAY_BE_LEFT_OUT in values
        for name, values in wanted.items()
    )


def _acceptable(value: Json, wanted: Json) -> bool:
    """Compare with one acceptable value; in an object each field lists acceptable values again."""
    match value, wanted:
        case dict(), dict():
            return _arguments_fit(
                value, {n: v if isinstance(v, list) else [v] for n, v in wanted.items()}
            )
        case list(), list():
            return len(value) == len(wanted) and all(map(_acceptable, value, wanted))
        case str(), str():
            return value == wanted or _loosely(value) == _loosely(wanted) != ""
        case _:
            return _same(value, wanted)


def _same(value: Json, wanted: Json) -> bool:
    """Compare JSON values: 1 is 1.0, but true is not 1 (Python thinks it is)."""
    match value, wanted:
        case dict(), dict():
            return value.keys() == wanted.keys() and all(_same(value[k], wanted[k]) for k in value)
        case list(), list():
            return len(value) == len(wanted) and all(map(_same, value, wanted))
        case _:
            return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _loosely(text: str) -> str:
    """Drop blanks, punctuation and case, as BFCL does: "April 1, 2024" is "april 1 2024"."""
    return PUNCTUATION.sub("", text).lower().replace("'", '"')
