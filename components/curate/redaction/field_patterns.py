"""Values of fields in a text that is not JSON as a whole: a code fence, JSON lines, XML, a list."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from components.curate.redaction import json_texts, name_patterns
from components.curate.redaction.patterns import Kind

_FIELDS = json_texts.FIELDS.keys() | name_patterns.PEOPLE
_BEGINNINGS = "|".join(sorted({field[:3] for field in _FIELDS}))
_FIELD = rf"(?P<field>(?i:{_BEGINNINGS})[A-Za-z0-9 _-]{{0,28}})"
# Each quote spelled out: `re` then looks only at places that begin with one.
_QUOTED = rf"(?P<quote>\"|'|\\\"|\\'){_FIELD}(?P=quote)\s{{0,4}}:\s{{0,4}}"
_LINE = re.compile(
    rf"(?m)^[ \t>*-]{{0,6}}{_FIELD}\*{{0,2}}:\*{{0,2}}[ \t](?P<value>[^<>\n]{{1,60}}?)[ \t]*$"
)
_DIGITS = re.compile(r":\s{0,4}[0-9]{7}")
_NUMBER = re.compile(_QUOTED + r"(?P<value>[0-9]{7,19})(?![\w.])")
_FORMS = (
    re.compile(_QUOTED + r"(?P<opening>\\?[\"'])(?P<value>[^<>\n]{1,200}?)(?P=opening)"),
    _NUMBER,
    re.compile(rf"<{_FIELD}>\s{{0,4}}(?P<value>[^<>\n]{{1,200}}?)\s{{0,4}}</(?P=field)>"),
    _LINE,
)
GATE = rf"(?im)(?:[\"'<]|^[ \t>*-]*)(?:{_BEGINNINGS})[a-z0-9 _-]*(?:\\?[\"']\s*:|>|\**:)"

_LISTED_NAME = re.compile(rf"{name_patterns.TITLE_CASE}(?: {name_patterns.TITLE_CASE}){{0,3}}")
_LISTED_NUMBER = re.compile(r"(?![^\n]*[A-Za-z]{3})[^\n]+")
_LISTED = {
    Kind.NAME: _LISTED_NAME,
    **dict.fromkeys((Kind.PHONE, Kind.CARD, Kind.SSN, Kind.NATIONAL_ID), _LISTED_NUMBER),
}
"""What may follow ``Passport number: `` on a line, where prose may, too."""


CACHED_TEXTS = 64  # each is read for names, and again for the others; many begin alike


@lru_cache(maxsize=CACHED_TEXTS)
def find(text: str) -> Sequence[tuple[Kind, int, int]]:
    """Return the kind and the span of each value that its field's name and its form reveal."""
    return [*_found(text)]


def _found(text: str) -> Iterator[tuple[Kind, int, int]]:
    end = 0
    has_digits = _DIGITS.search(text)  # of what looking for quotes takes, a tenth
    forms = [form for form in _FORMS if has_digits or form is not _NUMBER]
    matches = (match for form in forms for match in form.finditer(text))
    for match in sorted(matches, key=lambda match: match.start("value")):
        field = json_texts.normal(match["field"])
        kind = json_texts.kind_of(field, match["value"])
        # ``Customer: Good Morning`` is what a customer said.
        listed = _LISTED.get(kind) if kind and field in json_texts.FIELDS else None
        is_prose = match.re is _LINE and not (listed and listed.fullmatch(match["value"]))
        if kind is not None and not is_prose and match.start("value") >= end:
            yield kind, *match.span("value")
            end = match.end("value")
