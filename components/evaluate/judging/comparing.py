"""Ask a judge about pairs of answers in both orders, so that what stands first wins nothing by it.

A judge that changes its verdict with the order has none: such a pair is a tie (Zheng et al. 2023,
"Judging LLM-as-a-judge with MT-bench and chatbot arena", section 3.4).
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from components import manifest
from components.evaluate.judging import question
from components.evaluate.judging.question import Verdict
from components.evaluate.judging.settings import JudgeSettings
from components.evaluate.judging.verdicts import Verdicts
from components.schema import Message

Ask = Callable[[Sequence[Message]], str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one request."""

    request: str
    ours: str
    theirs: str


def compare(
    comparisons: Sequence[Comparison], ask: Ask, known: Verdicts, settings: JudgeSettings
) -> list[float | None]:
    """Give 1 for each of ``ours`` that is better, 0 if ``theirs`` is, one half for a tie.

    Equal answers are a tie without being asked about. ``None`` is what was not judged: the reply
    to one of both orders was no verdict.

    Raises:
        JudgeError: The judge can't be asked; verdicts so far are ``known``.
    """
    asked = [_both_orders(one) for one in comparisons]
    keyed = {_key(words, settings): words for pair in asked for words in pair}
    _ask_all({key: words for key, words in keyed.items() if key not in known}, ask, known, settings)
    return [_score(*_judged(pair, known, settings)) if pair else 0.5 for pair in asked]


def _both_orders(one: Comparison) -> list[list[Message]]:
    if one.ours == one.theirs:
        return []
    return [
        question.messages(one.request, one.ours, one.theirs),
        question.messages(one.request, one.theirs, one.ours),
    ]


def _key(words: Sequence[Message], settings: JudgeSettings) -> str:
    return manifest.digest([settings.base_url, settings.model, [*words]])


def _ask_all(
    wanted: Mapping[str, Sequence[Message]], ask: Ask, known: Verdicts, settings: JudgeSettings
) -> None:
    """Ask several at once; after the first that fails no other is begun."""
    with ThreadPoolExecutor(settings.concurrency) as threads:
        asked = [threads.submit(_ask_one, key, words, ask, known) for key, words in wanted.items()]
        try:
            for one in as_completed(asked):
                one.result()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _ask_one(key: str, words: Sequence[Message], ask: Ask, known: Verdicts) -> None:
    known.keep(key, question.read(ask(words)))


def _judged(
    pair: Sequence[Sequence[Message]], known: Verdicts, settings: JudgeSettings
) -> tuple[Verdict | None, Verdict | None]:
    ours_first, theirs_first = (_key(words, settings) for words in pair)
    return known[ours_first], known[theirs_first]


def _score(ours_first: Verdict | None, theirs_first: Verdict | None) -> float | None:
    if ours_first is None or theirs_first is None:
        return None
    if (ours_first, theirs_first) == ("first", "second"):
        return 1.0
    return 0.0 if (ours_first, theirs_first) == ("second", "first") else 0.5
