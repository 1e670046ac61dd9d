"""Rules on answers: empty, cut off, refusals, error messages, loops, leaked system messages."""

import json
import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence

from components.chat import refusal_text
from components.curate.interaction import SYSTEM, Candidate


def empty_answer(candidate: Candidate) -> str | None:
    """Object to answers with neither text nor calls."""
    answer = candidate.answer
    return None if answer.text.strip() or answer.calls else "neither text nor call"


def cut_off(candidate: Candidate) -> str | None:
    """Find answers ended by a limit or a filter."""
    reason = candidate.finish_reason
    return reason if reason in ("length", "content_filter") else None


def refusal(candidate: Candidate) -> str | None:
    """Find pure refusals, such as OpenAI's ``message.refusal``.

    Texts that answer requests with tools are exempt: to say that no tool fits is a right answer
    there. So are corrections.
    """
    if candidate.answer.calls or candidate.is_corrected:
        return None
    if (candidate.message or {}).get("refusal"):
        return "refused in `message.refusal`"
    if candidate.tools:
        return None
    return refusal_text.match_refusal(candidate.answer.text)


LONGEST = 2_000  # maximum characters of an error message; a stack trace may be longer

_TRACE = re.compile(
    r"""
    (?:```\w*\s*)?
    (?: Traceback\ \(most\ recent\ call\ last\):
      | Exception\ in\ thread\ "
      | (?:Unhandled|Uncaught)\ (?:exception|error|rejection)\b
      | [\w.$]+(?:Error|Exception):\ [^\n]*\n\s+at\ [\w.$<>]+
      | panic:\ [^\n]*\n\s*goroutine\ \d+
      | thread\ '[^']*'\ panicked\ at )
    """,
    re.VERBOSE,
)
_ERROR = re.compile(
    r"""
    (?:<!doctype\ html>\s*|<html>\s*|<head>\s*|<title>\s*)*
    (?:(?:http|api|server|error|status|status\ code|error\ code)[:\s]*)*
    (?: (?:[45]\d\d[\s:-]*)?
        (?: internal\ server\ error | bad\ gateway | service\ (?:temporarily\ )?unavailable
          | gateway\ time-?out | too\ many\ requests | upstream\ (?:connect\ error|request\ timeout)
          | request\ timed\ out | connection\ (?:refused|reset\ by\ peer|error)\b )
      | [45]\d\d\s*-\s*\{
      | rate\ limit\ (?:reached|exceeded) | (?:the\ )?server\ (?:had\ an\ error|is\ overloaded)
      | this\ model['\u2019]s\ maximum\ context\ length
      | (?:openai|anthropic|litellm|httpx|requests)[\w.]*(?:Error|Exception|Timeout)\b
      | \w*(?:RateLimit|APIConnection|APIStatus|APITimeout|Timeout|InternalServer)Error\b )
    """,
    re.IGNORECASE | re.VERBOSE,
)

_EXPLAINED = re.compile(
    r"""
    s? (?:\ (?:errors?|exceptions?|status(?:es)?|codes?|responses?))* (?:\ \(\d{3}\))?
    \ (?:(?:is|are)(?!\ \d)|means?|happens?|occurs?|indicates?|tells?|says?|usually|typically
      |often|generally|can|may|refers?|comes?|signals?|appears?)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""What follows an error's name in a sentence about it: ``502 Bad Gateway means ...``."""


def error_text(candidate: Candidate) -> str | None:
    """Find stack traces, status lines and providers' error replies instead of an answer.

    They must begin the answer, and not a sentence that explains the error.
    """
    text = candidate.answer.text.strip()
    if not text or candidate.answer.calls or candidate.is_corrected:
        return None
    if _TRACE.match(text):
        return "stack trace"
    if len(text) > LONGEST:
        return None
    message = _ERROR.match(text)
    if message and not _EXPLAINED.match(text, message.end()):
        return "error message"
    return "error reply" if text.startswith("{") and _is_error_reply(text) else None


def _is_error_reply(text: str) -> bool:
    """Return whether a JSON text has the form of OpenAI's, Anthropic's or vLLM's errors."""
    try:
        match json.loads(text):
            case {"error": {"message": str(), **fields}}:
                return bool(fields.keys() & {"type", "code", "param", "status"})
            case {"object": "error", "message": str()}:
                return True
            case _:
                return False
    except (ValueError, RecursionError):
        return False


TIMES, SHORTEST = 4, 160
"""A loop repeats its unit at least four times in a row, over at least 160 characters."""

LONGEST_UNIT = 1_000
STRIDE, CHUNK = 60, 24
"""A loop of any unit is long enough to hold a chunk at one of these strides twice."""


def repetition(candidate: Candidate) -> str | None:
    """Find text that repeats itself without anything in between."""
    text = candidate.answer.text
    if len(text) < SHORTEST or candidate.is_corrected:
        return None
    for start in range(0, len(text) - CHUNK, STRIDE):
        again = text.find(text[start : start + CHUNK], start + 1, start + LONGEST_UNIT + CHUNK)
        if again > 0 and (times := _times(text, start, again - start)):
            return f"{again - start} characters {times} times"
    return None


def _times(text: str, start: int, unit: int) -> int:
    """Return how often the unit around ``start`` repeats; 0 if that is not a loop."""
    if not any(character.isalpha() for character in text[start : start + unit]):
        return 0  # rows of dashes, numbers and dots are intended
    first, last = start, start
    while first > 0 and text[first - 1] == text[first - 1 + unit]:
        first -= 1
    while last + unit < len(text) and text[last] == text[last + unit]:
        last += 1
    length = last + unit - first
    return length // unit if length >= max(SHORTEST, TIMES * unit) else 0


SPAN = 240  # common characters in a row that are not a coincidence: about forty words

LEAST_SHARE = 0.1
"""Share of the requests whose system messages have a sentence, from which it is an instruction."""

_SENTENCE_END = re.compile(r"\n+|(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")


def instructions(systems: Sequence[Sequence[str]]) -> frozenset[str]:
    """Return the sentences that many of some requests' system messages have; empty for none.

    The other sentences are those of documents, which an answer may quote.
    """
    counts = Counter(sentence for texts in systems for sentence in {*_sentences(texts)})
    least = LEAST_SHARE * sum(map(bool, systems))
    return frozenset(sentence for sentence, count in counts.items() if count >= least)


def prompt_leak(candidate: Candidate, fixed: Container[str] | None = None) -> str | None:
    """Find answers that repeat a long span of the system message verbatim.

    Such a span contains one of the answer's chunks of half its length: only those are looked up.
    ``fixed`` are the workload's instructions; without them the whole message is.
    """
    answer = _plain(candidate.answer.text)
    if len(answer) < SPAN or candidate.is_corrected:
        return None
    sentences = _sentences(candidate.texts(*SYSTEM))
    system = " ".join(one for one in sentences if fixed is None or one in fixed)
    if len(system) < SPAN:
        return None
    half = SPAN // 2
    for start in range(0, len(answer) - half + 1, half):
        if (place := system.find(answer[start : start + half])) >= 0:
            length = _common(answer, system, start, place)
            if length >= SPAN:
                return f"{length} characters"
    return None


def _sentences(texts: Iterable[str]) -> list[str]:
    return [
        plain
        for text in texts
        for sentence in _SENTENCE_END.split(text)
        if (plain := _plain(sentence))
    ]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _common(answer: str, system: str, start: int, place: int) -> int:
    """Return the length of the common span around a position in each."""
    before = after = 0
    while before < min(start, place) and answer[start - before - 1] == system[place - before - 1]:
        before += 1
    limit = min(len(answer) - start, len(system) - place)
    while after < limit and answer[start + after] == system[place + after]:
        after += 1
    return before + after
