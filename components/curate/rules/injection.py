"""Find the marks of prompt injection in ``injection_marks.txt``.

The families are those of published attacks (Perez and Ribeiro, arXiv:2211.09527; Greshake et al.,
arXiv:2302.12173; Shen et al., arXiv:2308.03825): overriding instructions, asking for the system
prompt, personas without rules, and forged chat markup. Other attacks have no mark, and harmless
text may have one, so a person reviews them.
"""

import unicodedata
from importlib.resources import files

import re2

from components.curate.interaction import Candidate

LONGEST_MARK = 80

_LINES = (files("components.curate.rules") / "injection_marks.txt").read_text(encoding="utf-8")
_FORMS = [line for line in _LINES.replace("\n    ", "").splitlines() if line and line[0] != "#"]
_SPACED = "|".join(f"(?:{form})" for form in _FORMS)
_OPTIONS = re2.Options()
_OPTIONS.max_mem = 64 << 20  # the default falls back to RE2's slow NFA on long conversations
_OPTIONS.log_errors = False
_MARK = re2.compile("(?im)" + _SPACED.replace(" ?", r"\s*").replace(" ", r"\s+"), _OPTIONS)
"""All marks in one expression, a space matching any white space: RE2 searches in one pass and in
linear time for any text."""

_HIDDEN = re2.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff\U000e0000-\U000e007f]")

_MARKS = re2.compile(r"(\pM{30})\pM+")
"""No writing puts more than 30 marks on a letter (Unicode's stream-safe format, UAX 15), and Python
sorts them in a time that grows with their square."""


def prompt_injection(candidate: Candidate) -> str | None:
    """Return the first mark of injection in user and tool messages."""
    text = "\n\n".join(candidate.texts("user", "tool"))
    if not text.isascii():
        whole = text.encode("utf-8", "ignore").decode()  # without lone surrogates
        text = _HIDDEN.sub("", unicodedata.normalize("NFKC", _MARKS.sub(r"\1", whole)))
    match = _MARK.search(text)
    return None if match is None else " ".join(str(match.group()).split())[:LONGEST_MARK]
