"""Score a text against its reference: the same, as many words in common, as many in order."""

import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING

from components.scorecard import Metric

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

METRICS = {
    "exact": Metric("of all requests: the answer is the reference, but for blanks"),
    "f1": Metric("the words that answer and reference have in common: their F1, mean of requests"),
    "rouge_l": Metric("the longest sequence of words that both have: ROUGE-L's F1, mean"),
}
"""Every metric with what it is; each is from 0 to 1 on one request."""

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
"""A word of any script; Chinese and Japanese, which have no blanks, by character."""


def score(text: str, reference: str) -> dict[str, float | None]:
    """Score a model's text.

    Sources: F1 over the multiset of words, as SQuAD has it (Rajpurkar et al. 2016, sec. 6.1), here
    with articles left in; ROUGE-L (Lin 2004, sec. 3), by the library ``rouge-score``.
    """
    return {
        "exact": float(text.split() == reference.split()),
        "f1": f1(words(text), words(reference)),
        "rouge_l": float(_rouge().score(reference, text)["rougeL"].fmeasure),
    }


def words(text: str) -> list[str]:
    """Split a text into words, in lower case, without punctuation."""
    return WORD.findall(text.lower())


def f1(found: list[str], wanted: list[str]) -> float:
    """Give the harmonic mean of precision and recall of words; 1 where both have none."""
    if not found and not wanted:
        return 1.0
    return 2 * (Counter(found) & Counter(wanted)).total() / (len(found) + len(wanted))


class _Words:
    """What ``rouge-score`` asks for a text's words; its own drops every letter but a to z."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@lru_cache(maxsize=1)
def _rouge() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415 - loads NLTK, seconds

    return RougeScorer(["rougeL"], tokenizer=_Words())
