"""One surrogate per value of a conversation, drawn under the conversation's random key."""

import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property

from components.curate.redaction import json_texts
from components.curate.redaction.patterns import PLACEHOLDER, Kind, digits_of, placeholder
from components.curate.redaction.placeholders import IN_DIGITS, Occurrence
from components.curate.redaction.surrogate_keys import Marked
from components.curate.settings import Allowed
from components.extensions.surrogates import made_up_values, surrogate_names
from components.extensions.surrogates.surrogate_names import Chance
from components.schema import Json

ATTEMPTS = 200  # maximum draws of a surrogate; after that the value keeps its placeholder

FROM_LISTS = 12
"""Draws of a name from a list, which a large log may exhaust; later draws are made up."""

MIN_OVERLAP = 4
"""From this many characters, no surrogate may contain another value of the turn or be part of
one."""

Value = tuple[Kind, str]  # a value's kind and its form by ``made_up_values.canonical``.


class TurnTexts:
    """The texts and values of a turn, in which a surrogate must not occur."""

    def __init__(self, marked: Marked) -> None:
        self.values: dict[Value, Occurrence] = {}  # in order, each with its first occurrence
        for occurrence in marked.occurrences:
            value = (occurrence.kind, made_up_values.canonical(occurrence.kind, occurrence.key))
            self.values.setdefault(value, occurrence)
        self.text = "\n".join([*marked.texts.values(), marked.context]).lower()

    @cached_property
    def digits(self) -> str:
        """The digits of the texts."""
        return digits_of(self.text)

    def holds(self, kind: Kind, drawn: str) -> bool:
        """Return whether a surrogate occurs in the texts, or overlaps with a value."""
        if drawn in self.text or (kind in IN_DIGITS and drawn in self.digits):
            return True
        lowered = (key.lower() for _, key in self.values)
        return len(drawn) >= MIN_OVERLAP and any(
            drawn in value or (len(value) >= MIN_OVERLAP and value in drawn) for value in lowered
        )


@dataclass(slots=True)
class ConversationSurrogates:
    """The surrogates of a conversation, drawn under one key for all its turns.

    ``taken`` are all values of the workload, in lower case, which are never drawn.
    """

    key: bytes
    taken: AbstractSet[str]
    allowed: Allowed
    language: str | None = None
    drawn: dict[Value, str | None] = field(default_factory=dict[Value, "str | None"])
    used: set[str] = field(default_factory=set[str])

    def draw(self, marked: Sequence[Marked]) -> None:
        """Draw surrogates for the new values of turns, in order."""
        places: dict[Value, list[TurnTexts]] = {}
        turns = [*map(TurnTexts, marked)]
        for turn in turns:
            for value in turn.values.keys() - self.drawn.keys():
                places.setdefault(value, []).append(turn)
        ordered = dict.fromkeys(value for turn in turns for value in turn.values)
        new = [value for value in ordered if value in places]
        # Names first: e-mail addresses are built from their made_up_values.
        for value in sorted(new, key=lambda value: value[0] is not Kind.NAME):
            self.drawn[value] = self._draw(value, places[value])

    def _draw(self, value: Value, turns: Sequence[TurnTexts]) -> str | None:
        for attempt in range(ATTEMPTS):
            drawn = self._candidate(value, turns, attempt)
            lowered = drawn.lower()
            if (
                lowered not in self.taken
                and lowered not in self.used
                and not self.allowed.value(drawn)
                and not any(turn.holds(value[0], lowered) for turn in turns)
            ):
                self.used.add(lowered)
                return drawn
        return None

    def _candidate(self, value: Value, turns: Sequence[TurnTexts], attempt: int) -> str:
        kind, key = value
        tried = str(attempt or "")
        chance = Chance(self.key, kind, key, tried)
        match kind:
            case Kind.NAME:
                is_made_up = attempt >= FROM_LISTS
                return surrogate_names.draw(key, self.language, chance, is_made_up=is_made_up)
            case Kind.EMAIL:
                names = self._names(turns)
                return made_up_values.email(key, self.language, self.key, tried, names)
            case Kind.ADDRESS:
                return made_up_values.address(key, self.language, self.key, tried)
            case Kind.PHONE:
                is_international = any(_has_country(key, turn.values[value]) for turn in turns)
                return made_up_values.phone(key, chance, is_international=is_international)
            case Kind.CARD:
                return made_up_values.card(key, chance)
            case Kind.IBAN:
                return made_up_values.iban(key, chance)
            case Kind.SSN:
                return made_up_values.ssn(chance)
            case Kind.NATIONAL_ID:
                return made_up_values.identity(key, chance)
            case Kind.IP:
                return made_up_values.ip(key, chance)
            case Kind.PASSWORD:
                return made_up_values.password(key, chance)
            case Kind.SECRET:
                return made_up_values.secret(key, chance)

    def _names(self, turns: Sequence[TurnTexts]) -> Mapping[str, str]:
        parts = {key for turn in turns for kind, key in turn.values if kind is Kind.NAME}
        drawn = {key: self.drawn.get((Kind.NAME, key)) for key in parts}
        return {key: surrogate for key, surrogate in drawn.items() if surrogate}

    def write(self, marked: Marked, name: str) -> str | None:
        """Return a JSON text with surrogates in place of marks; ``None`` if the text is missing."""
        text = marked.texts.get(name)
        return None if text is None else json_texts.dumps(self._put(marked, json.loads(text)))

    def _put(self, marked: Marked, value: Json) -> Json:
        match value:
            case str():
                return self._in_text(marked, value) if "<" in value else value
            case list():
                return [self._put(marked, item) for item in value]
            case dict():
                return {
                    str(self._put(marked, key)): self._put(marked, item)
                    for key, item in value.items()
                }
            case _:
                return value

    def _in_text(self, marked: Marked, text: str) -> Json:
        if (read := json_texts.read(text)) is not None:
            rewritten = self._put(marked, read)
            return text if rewritten == read else json_texts.write(rewritten, like=text)
        is_number = False

        def put(match: re.Match[str]) -> str:
            nonlocal is_number
            place = int(match[2]) - marked.first_mark
            if not 0 <= place < len(marked.occurrences):
                return match.group()
            occurrence = marked.occurrences[place]
            is_number = is_number or occurrence.is_number
            return self._as_written(occurrence)

        written = PLACEHOLDER.sub(put, text)
        return _number(written) if is_number else written

    def _as_written(self, occurrence: Occurrence) -> str:
        value = made_up_values.canonical(occurrence.kind, occurrence.key)
        drawn = self.drawn[occurrence.kind, value]
        if drawn is None:
            return placeholder(occurrence.kind, occurrence.number)
        return made_up_values.write(occurrence.kind, value, drawn, occurrence.written)


def _has_country(key: str, first: Occurrence) -> bool:
    called = re.split("[a-zA-Z]", first.written, maxsplit=1)[0]
    has_prefix = called.startswith(("+", "00"))
    return has_prefix and digits_of(called).removeprefix("00") == key


def _number(written: str) -> Json:
    try:
        return json.loads(written)
    except ValueError:
        return written
