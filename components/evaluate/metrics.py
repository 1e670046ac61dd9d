"""Metrics of tool calls, labels and texts, and the kind of a workload's answers."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from components.chat import dialects, prompt, tool_schema
from components.chat.dialects import Dialect
from components.schema import AcceptableCall, Answer, Call, Json
from components.scorecard import Metric

TEXT_METRICS = {
    "exact": Metric("of all requests: the answer is the reference, but for blanks"),
    "f1": Metric("the words that answer and reference have in common: their F1, mean of requests"),
    "rouge_l": Metric("the longest sequence of words that both have: ROUGE-L's F1, mean"),
}
"""Every metric with its meaning; each is from 0 to 1 per request."""

_MARKS = "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c)[0] == "M")
"""Vowel signs and accents, which are no word by themselves and end none."""

_THAI = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff"  # and Lao, Tibetan, Burmese, Khmer
_KANA_HAN = "\u3040-\u30ff\u3400-\u9fff"

WORD = re.compile(
    rf"[{_KANA_HAN}]|(?=[{_THAI}])\w[{_MARKS}]*|(?:[^\W{_KANA_HAN}{_THAI}]+[{_MARKS}]*)+"
)
"""A word of any script, with its vowel signs; scripts without blanks between words by character."""

WORDS_VERSION = 2
"""The version of ``WORD``: raise it when texts are split otherwise. Before 2 every vowel sign of
Hindi, Arabic or Thai ended a word."""


def score_text(text: str, reference: str) -> dict[str, float | None]:
    """Score a model's text.

    Sources: F1 over the multiset of words as in SQuAD (Rajpurkar et al. 2016, sec. 6.1), but with
    articles; ROUGE-L (Lin 2004, sec. 3).
    """
    exact = float(same_text(" ".join(text.split()), " ".join(reference.split())))
    words, expected = split_words(text), split_words(reference)
    if not words and not expected:  # signs, such as an emoji
        return dict.fromkeys(TEXT_METRICS, exact)
    return {
        "exact": exact,
        "f1": _word_f1(words, expected),
        "rouge_l": _rouge_l(words, expected),
    }


def whole_text(answer: Answer) -> str:
    """Return an answer's text followed by its calls, with arguments in the order of their names."""
    return prompt.render_answer(Answer.from_json(answer.to_json()))


def same_text(text: str, reference: str) -> bool:
    """Return whether two texts are the same, whichever way their accents are encoded.

    Many tokenizers, such as Qwen's, read and write composed ones only (NFC).
    """
    return text == reference or _composed(text) == _composed(reference)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words without punctuation."""
    return WORD.findall(_composed(text).lower())


def _word_f1(answer: list[str], reference: list[str]) -> float:
    return 2 * (Counter(answer) & Counter(reference)).total() / (len(answer) + len(reference))


def _rouge_l(answer: list[str], reference: list[str]) -> float:
    common = _common_length(answer, reference)
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def _common_length(first: list[str], second: list[str]) -> int:
    """Return the length of the longest common subsequence.

    By bit vectors (Hyyro 2004, "Bit-parallel LCS-length computation revisited"): a table of all
    pairs of words takes minutes for two long reports.
    """
    places: dict[str, int] = {}
    for number, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << number
    everywhere = left = (1 << len(first)) - 1
    for word in second:
        matched = left & places.get(word, 0)
        left = (left + matched | left - matched) & everywhere
    return len(first) - left.bit_count()


Reference = TypeVar("Reference")

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
        "of the requests that no tool fits: a tool is called, or a call begun; lower is better",
        higher_is_better=False,
    ),
    "correct_name": Metric("of all requests: right by name, or rightly no call"),
    "correct": Metric("of all requests: the whole call right, or rightly no call"),
}
"""Every metric with its meaning as a share; each is 0 or 1 per request."""

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
    if len(calls) != len(references):
        return False
    fitting = [[n for n, ref in enumerate(references) if match(call, ref)] for call in calls]
    caller: dict[int, int] = {}

    def pair(call: int, tried: set[int]) -> bool:
        # Kuhn's (1955) algorithm: a taken reference is free if its call can take another one.
        for reference in fitting[call]:
            if reference not in tried:
                tried.add(reference)
                if reference not in caller or pair(caller[reference], tried):
                    caller[reference] = call
                    return True
        return False

    return all(pair(call, set()) for call in range(len(calls)))


def _same_call(call: Call, reference: Call) -> bool:
    return call.name == reference.name and _same_value(call.arguments, reference.arguments)


def _arguments_fit(arguments: Mapping[str, Json], acceptable: Mapping[str, Sequence[Json]]) -> bool:
    return arguments.keys() <= acceptable.keys() and all(
        any(_is_acceptable(arguments[name], value) for value in values)
        if name in arguments
        else OPTIONAL in values
        for name, values in acceptable.items()
    )


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
                same_text(value, acceptable) or _normalized(value) == _normalized(acceptable) != ""
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
            return same_text(value, reference)
        case _:
            return isinstance(value, bool) == isinstance(reference, bool) and value == reference


def _normalized(text: str) -> str:
    # as BFCL: "April 1, 2024" equals "april 1 2024"
    return PUNCTUATION.sub("", _composed(text)).lower().replace("'", '"')


Kind: TypeAlias = Literal["tool_calls", "classification", "text"]

LABEL_METRICS = {
    "label": Metric("of all requests: the answer is the right label, word for word"),
    "choice": Metric("of all requests: of all labels, the right one is the likeliest answer"),
}
"""The metrics of a classification; each is 0 or 1 per request."""

KIND_METRICS: dict[Kind, dict[str, Metric]] = {
    "tool_calls": CALL_METRICS,
    "classification": LABEL_METRICS,
    "text": TEXT_METRICS,
}

LONGEST_LABEL = 40  # characters; a longer answer is not a label

MOST_LABELS = 100  # with more labels, computing the likelihood of each takes too long

FEWEST_A_LABEL = 5
"""The least mean number of answers per label: with fewer, short answers are equal by chance."""


ODD_ANSWERS = 0.02
"""The most answers, as a share, that may be no labels where a classification is configured: models
in production sometimes explain or apologize. No label is right for their requests."""


@dataclass(frozen=True, slots=True)
class AnswerSpace:
    """The kind of a workload's answers; ``labels`` are sorted, and empty unless it classifies."""

    kind: Kind
    labels: tuple[str, ...] = ()


def find_answer_space(
    answers: Sequence[Answer], configured: Kind | None, *, offers_tools: bool
) -> AnswerSpace:
    """Detect the kind from all rows' answers, unless it is configured in the workload's file.

    Raises:
        ValueError: ``classification`` is configured, and the answers are not labels.
    """
    problem = _label_problem(answers, ODD_ANSWERS if configured == "classification" else 0.0)
    if configured == "classification" and problem:
        raise ValueError(
            f"the answers are not a classification: {problem}; leave out evaluate.kind"
        )
    labels = _distinct_labels(answers)
    kind = configured
    if kind is None and (offers_tools or any(answer.calls for answer in answers)):
        kind = "tool_calls"
    elif kind is None:
        is_labels = not problem and len(answers) >= FEWEST_A_LABEL * len(labels)
        kind = "classification" if is_labels else "text"
    return AnswerSpace(kind, labels if kind == "classification" else ())


def is_measured(kind: Kind, name: str, reference: Answer) -> bool:
    """Return whether a metric is measured on a request with this reference answer."""
    if kind != "tool_calls":
        return name in KIND_METRICS[kind]
    return score_calls("", reference, None).get(name) is not None


def _distinct_labels(answers: Iterable[Answer]) -> tuple[str, ...]:
    texts = {answer.text.strip() for answer in answers}
    return tuple(sorted(text for text in texts if _is_label(text)))


def _is_label(text: str) -> bool:
    return 0 < len(text) <= LONGEST_LABEL


def _label_problem(answers: Sequence[Answer], odd_share: float) -> str | None:
    if any(answer.calls for answer in answers):
        return "some call tools"
    odd = [text for answer in answers if not _is_label(text := answer.text.strip())]
    if len(odd) > odd_share * len(answers):
        return (
            f"{min(odd)[:LONGEST_LABEL]!r} is not a label of 1 to {LONGEST_LABEL} characters "
            f"({len(odd)} such answers of {len(answers)})"
        )
    labels = _distinct_labels(answers)
    if 2 <= len(labels) <= MOST_LABELS:
        return None
    return f"there are {len(labels)} different ones, expected 2 to {MOST_LABELS}"
