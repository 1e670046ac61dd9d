"""Score tool calls, and find which metrics a request's answer is measured by."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from components.chat import dialects, tool_schema
from components.chat.dialects import Dialect
from components.evaluate import json_answers, text_answers
from components.evaluate.settings import Kind
from components.evaluate.task_metrics import CALL_METRICS, KIND_METRICS
from components.schema import AcceptableCall, Answer, Call, Json

Reference = TypeVar("Reference")

OPTIONAL: Json = ""  # among an argument's acceptable values: the argument may be omitted

PUNCTUATION = re.compile(r"[ ,./\-_*^]")


def score_calls(
    text: str,
    reference: Answer,
    acceptable: Sequence[AcceptableCall] | None,
    form: Dialect = "written",
    tools: str = "[]",
) -> dict[str, float | None]:
    """Score a model's ``text`` by ``CALL_METRICS``; ``None`` where a metric does not apply.

    ``text`` has no end token. ``acceptable`` are the values of each call of the reference, if
    known; without them the calls must equal the reference's. ``form`` is the base's syntax of
    calls, ``tools`` are the offered OpenAI tools as JSON text. Where the right answer has text
    with braces, such as code, those of another are no call that was begun. Where no tool is
    offered, a call is text, which is right only where the right answer has the like.
    """
    resembles = not reference.calls and dialects.resembles_call(reference.text)
    is_text = resembles and not json.loads(tools)
    answer = dialects.read_answer(form, text, offers_tools=not is_text)
    may_have_braces = "{" in reference.text
    problem = dialects.answer_problem(form, text, may_have_braces=may_have_braces)
    broken = problem is not None and not is_text
    if not reference.calls:
        abstained = float(bool(answer.text) and not broken and not answer.calls)
        return {
            **dict.fromkeys(CALL_METRICS),
            "abstention": abstained,
            "over_triggering": float(bool(answer.calls) or broken),
            "correct_name": abstained,
            "correct": abstained,
        }
    valid = bool(answer.calls) and not broken
    name = float(valid and _call_names(answer.calls) == _call_names(reference.calls))
    if acceptable is None:
        matches = _can_pair_up(answer.calls, reference.calls, _same_call)
    else:
        matches = _can_pair_up(answer.calls, acceptable, fits_call)
    whole = float(bool(name) and matches)
    return {
        **dict.fromkeys(CALL_METRICS),
        "valid_json": float(valid),
        "schema_valid": float(
            valid and all(tool_schema.is_offered(call, tools) for call in answer.calls)
        ),
        "name": name,
        "name_and_arguments": whole,
        "correct_name": name,
        "correct": whole,
    }


def fits_call(call: Call, acceptable: AcceptableCall) -> bool:
    """Return whether a call has the right name and an acceptable value for every argument."""
    return call.name == acceptable.name and _arguments_fit(call.arguments, acceptable.arguments)


def _call_names(calls: Sequence[Call]) -> list[str]:
    return sorted(call.name for call in calls)


def _can_pair_up(
    calls: Sequence[Call], references: Sequence[Reference], match: Callable[[Call, Reference], bool]
) -> bool:
    if not calls or len(calls) != len(references):
        return not calls and not references
    from scipy import optimize  # noqa: PLC0415 - seconds

    # the most pairs that match (Kuhn 1955)
    matches = [[match(call, reference) for reference in references] for call in calls]
    pairs = zip(*optimize.linear_sum_assignment(matches, maximize=True), strict=True)
    return all(matches[call][reference] for call, reference in pairs)


def _same_call(call: Call, reference: Call) -> bool:
    return call.name == reference.name and _same_value(call.arguments, reference.arguments)


def _arguments_fit(arguments: Mapping[str, Json], acceptable: Mapping[str, Sequence[Json]]) -> bool:
    return arguments.keys() <= acceptable.keys() and all(
        any(_is_acceptable(arguments[name], value) for value in _written_values(values))
        if name in arguments
        else OPTIONAL in values
        for name, values in acceptable.items()
    )


def _written_values(values: Sequence[Json]) -> Sequence[Json]:
    # What may be omitted may also be an empty text, but only if it is a text at all.
    is_text = all(isinstance(value, str) for value in values)
    return values if is_text else [value for value in values if value != OPTIONAL]


def _is_acceptable(value: Json, acceptable: Json) -> bool:
    # In an object each field lists acceptable values again.
    match value, acceptable:
        case dict(), dict():
            return _arguments_fit(
                value, {n: v if isinstance(v, list) else [v] for n, v in acceptable.items()}
            )
        case list(), list():
            return len(value) == len(acceptable) and all(map(_is_acceptable, value, acceptable))
        case str(), str():
            return (
                text_answers.same_text(value, acceptable)
                or _normalized(value) == _normalized(acceptable) != ""
            )
        case _:
            return _same_value(value, acceptable)


def _same_value(value: Json, reference: Json) -> bool:
    # 1 equals 1.0, but true does not equal 1, as it does in Python
    match value, reference:
        case dict(), dict():
            return value.keys() == reference.keys() and all(
                _same_value(value[k], reference[k]) for k in value
            )
        case list(), list():
            return len(value) == len(reference) and all(map(_same_value, value, reference))
        case str(), str():
            return text_answers.same_text(value, reference)
        case _:
            return isinstance(value, bool) == isinstance(reference, bool) and value == reference


def _normalized(text: str) -> str:
    # as BFCL: "April 1, 2024" equals "april 1 2024"
    return PUNCTUATION.sub("", text_answers.composed(text)).lower().replace("'", '"')


def is_measured(kind: Kind, name: str, reference: Answer, schema: str = "") -> bool:
    """Return whether a metric is measured on a request with this reference answer.

    ``schema`` is the JSON Schema that the request came with, if any.
    """
    if kind == "json":
        text = dialects.without_thought(reference.text)
        return json_answers.is_measured(name, text, schema)
    if kind != "tool_calls":
        return name in KIND_METRICS[kind]
    return score_calls("", reference, None).get(name) is not None
