"""The metrics of texts, and when two texts are the same."""

import re
import unicodedata
from collections import Counter

from components.chat import prompt
from components.evaluate.task_metrics import TEXT_METRICS
from components.schema import Answer

_MARKS = "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c)[0] == "M")
"""Vowel signs and accents, which are no word by themselves and end none."""

_MANY_MARKS = re.compile(rf"[{_MARKS}\U00010000-\U0001efff]{{31}}")
"""More accents than a letter may have in Unicode's stream-safe form (UAX #15, section 13)."""

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
    exact = same_words(text, reference)
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
    return text == reference or composed(text) == composed(reference)


def same_words(text: str, reference: str) -> float:
    """Return 1 if two texts are the same but for blanks, else 0."""
    return float(same_text(" ".join(text.split()), " ".join(reference.split())))


def composed(text: str) -> str:
    """Return a text with its accents encoded in one way (NFC)."""
    # Sorting the accents of one letter takes quadratic time. No language has so many.
    return text if _MANY_MARKS.search(text) else unicodedata.normalize("NFC", text)


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words without punctuation."""
    return WORD.findall(composed(text).lower())


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
