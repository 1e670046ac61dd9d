"""Metrics of tool calls, labels and texts, and which kind of answers a workload has."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from components.chat import dialects, tool_schema
from components.chat.dialects import Dialect
from components.schema import AcceptableCall, Answer, Call, Json
from components.scorecard import Metric

if TYPE_CHECKING:
    from jsonschema_rs import Validator
    from rouge_score.rouge_scorer import RougeScorer


TEXT_METRICS = {
    "exact": Metric("of all requests: the answer is the reference, but for blanks"),
    "f1": Metric("the words that answer and reference have in common: their F1, mean of requests"),
    "rouge_l": Metric("the longest sequence of words that both have: ROUGE-L's F1, mean"),
}
"""Every metric with what it is; each is from 0 to 1 on one request."""

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
"""A word of any script; Chinese and Japanese, which have no blanks, by character."""


def score_text(text: str, reference: str) -> dict[str, float | None]:
    """Score a model's text.

    Sources: F1 over the multiset of words, as SQuAD has it (Rajpurkar et al. 2016, sec. 6.1), here
    with articles left in; ROUGE-L (Lin 2004, sec. 3), by the library ``rouge-score``.
    """
    return {
        "exact": float(text.split() == reference.split()),
        "f1": word_f1(split_words(text), split_words(reference)),
        "rouge_l": float(_rouge().score(reference, text)["rougeL"].fmeasure),
    }


def split_words(text: str) -> list[str]:
    """Split a text into words, in lower case, without punctuation."""
    return WORD.findall(text.lower())


def word_f1(found: list[str], wanted: list[str]) -> float:
    """Give the harmonic mean of precision and recall of words; 1 where both have none."""
    if not found and not wanted:
        return 1.0
    return 2 * (Counter(found) & Counter(wanted)).total() / (len(found) + len(wanted))


class _Words:
    """What ``rouge-score`` asks for a text's words; its own drops every letter but a to z."""

    def tokenize(self, text: str) -> list[str]:
        return split_words(text)


@lru_cache(maxsize=1)
def _rouge() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415 - loads NLTK, seconds

    return RougeScorer(["rougeL"], tokenizer=_Words())


Wanted = TypeVar("Wanted")

CALL_METRICS = {
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


def score_calls(
    text: str,
    reference: Answer,
    acceptable: Sequence[AcceptableCall] | None,
    form: Dialect = "written",
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
    answer = dialects.read_answer(form, text)
    broken = dialects.answer_problem(form, text) is not None
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
    name = float(valid and _call_names(answer.calls) == _call_names(reference.calls))
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
    names, validators = _offered_tools(tools)
    if call.name not in names:
        return False
    validator = validators.get(call.name)
    return validator is None or tool_schema.problem(validator, call.arguments) is None


@lru_cache(maxsize=512)
def _offered_tools(tools: str) -> tuple[frozenset[str], Mapping[str, "Validator"]]:
    offered = [tool["function"] for tool in json.loads(tools)]
    names = frozenset(function["name"] for function in offered)
    return names, tool_schema.validators({"function": function} for function in offered)


def calls_match(
    calls: Sequence[Call],
    reference: Sequence[Call],
    acceptable: Sequence[AcceptableCall] | None,
) -> bool:
    """Tell whether the calls are the wanted ones, one for one, in any order."""
    if acceptable is not None:
        return _can_pair_up(calls, acceptable, fits_call)
    return _can_pair_up(calls, reference, _same_call)


def fits_call(call: Call, wanted: AcceptableCall) -> bool:
    """Tell whether a call has the wanted name and an acceptable value for every argument."""
    return call.name == wanted.name and _do_arguments_fit(call.arguments, wanted.arguments)


def _call_names(calls: Sequence[Call]) -> list[str]:
    return sorted(call.name for call in calls)


def _can_pair_up(
    calls: Sequence[Call], wanted: Sequence[Wanted], match: Callable[[Call, Wanted], bool]
) -> bool:
    if len(calls) != len(wanted):
        return False
    return not calls or any(
        match(calls[0], one) and _can_pair_up(calls[1:], [*wanted[:i], *wanted[i + 1 :]], match)
        for i, one in enumerate(wanted)
    )


def _same_call(call: Call, wanted: Call) -> bool:
    return call.name == wanted.name and _same_value(call.arguments, wanted.arguments)


def _do_arguments_fit(given: Mapping[str, Json], wanted: Mapping[str, Sequence[Json]]) -> bool:
    return given.keys() <= wanted.keys() and all(
        any(_is_acceptable(given[name], value) for value in values)
        if name in given
        else MAY_BE_LEFT_OUT in values
        for name, values in wanted.items()
    )


def _is_acceptable(value: Json, wanted: Json) -> bool:
    """Compare with one acceptable value; in an object each field lists acceptable values again."""
    match value, wanted:
        case dict(), dict():
            return _do_arguments_fit(
                value, {n: v if isinstance(v, list) else [v] for n, v in wanted.items()}
            )
        case list(), list():
            return len(value) == len(wanted) and all(map(_is_acceptable, value, wanted))
        case str(), str():
            return value == wanted or _normalized(value) == _normalized(wanted) != ""
        case _:
            return _same_value(value, wanted)


def _same_value(value: Json, wanted: Json) -> bool:
    """Compare JSON values: 1 is 1.0, but true is not 1 (Python thinks it is)."""
    match value, wanted:
        case dict(), dict():
            return value.keys() == wanted.keys() and all(
                _same_value(value[k], wanted[k]) for k in value
            )
        case list(), list():
            return len(value) == len(wanted) and all(map(_same_value, value, wanted))
        case _:
            return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _normalized(text: str) -> str:
    """Drop blanks, punctuation and case, as BFCL does: "April 1, 2024" is "april 1 2024"."""
    return PUNCTUATION.sub("", text).lower().replace("'", '"')


Kind: TypeAlias = Literal["tool_calls", "classification", "text"]

LABEL_METRICS = {
    "label": Metric("of all requests: the answer is the right label, word for word"),
    "choice": Metric("of all requests: of all labels, the right one is the likeliest answer"),
}
"""The metrics of a classification; each is 0 or 1 on one request."""

KIND_METRICS: dict[Kind, dict[str, Metric]] = {
    "tool_calls": CALL_METRICS,
    "classification": LABEL_METRICS,
    "text": TEXT_METRICS,
}

LONGEST_LABEL = 40
"""Characters: a longer answer is no label."""

MOST_LABELS = 100
"""With more of them, asking for the likelihood of each takes too long."""

FEWEST_A_LABEL = 5
"""Answers to each label on average: with fewer, short answers only happen to be alike."""


@dataclass(frozen=True, slots=True)
class AnswerSpace:
    """What a workload's answers are; ``labels`` are sorted, and there are some in one kind only."""

    kind: Kind
    labels: tuple[str, ...] = ()


def find_answer_space(
    answers: Sequence[Answer], named: Kind | None, *, offers_tools: bool
) -> AnswerSpace:
    """Find the kind from the answers, unless the workload's file names it.

    Args:
        answers: Of all rows.
        named: What the file says.
        offers_tools: Whether any request offers tools.

    Raises:
        ValueError: A classification was named, and the answers are none.
    """
    problem = _why_not_labels(answers)
    if named == "classification" and problem:
        raise ValueError(f"the answers are no classification: {problem}; leave out evaluate.kind")
    found = "tool_calls" if offers_tools or any(one.calls for one in answers) else "text"
    fewest = FEWEST_A_LABEL * len(distinct_labels(answers))
    if found == "text" and not problem and len(answers) >= fewest:
        found = "classification"
    kind = named or found
    return AnswerSpace(kind, distinct_labels(answers) if kind == "classification" else ())


def is_measured(kind: Kind, name: str, reference: Answer) -> bool:
    """Tell whether a metric is measured on a request, whose right answer is ``reference``."""
    if kind != "tool_calls":
        return name in KIND_METRICS[kind]
    return score_calls("", reference, None).get(name) is not None


def distinct_labels(answers: Iterable[Answer]) -> tuple[str, ...]:
    """List the different texts of answers."""
    return tuple(sorted({one.text.strip() for one in answers}))


def _why_not_labels(answers: Sequence[Answer]) -> str | None:
    """Say why answers are not labels; ``None`` if they could be."""
    found = distinct_labels(answers)
    if any(one.calls for one in answers):
        return "some call tools"
    if not 2 <= len(found) <= MOST_LABELS:
        return f"there are {len(found)} different ones, wants 2 to {MOST_LABELS}"
    strange = next((one for one in found if not 0 < len(one) <= LONGEST_LABEL), None)
    if strange is None:
        return None
    return f"{strange[:LONGEST_LABEL]!r} is no label of 1 to {LONGEST_LABEL} characters"
