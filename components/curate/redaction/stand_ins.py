"""Give each value of a conversation one surrogate, which is no value of the log or its texts."""

import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property

from components.curate.redaction import leaves, person_names, surrogates
from components.curate.redaction.allowed import Allowed
from components.curate.redaction.chance import Chance
from components.curate.redaction.kinds import PLACEHOLDER, Kind, placeholder
from components.curate.redaction.ledger import IN_DIGITS, Occurrence
from components.curate.redaction.pattern import digits_of
from components.schema import Json

ATTEMPTS = 200
"""How often a surrogate is drawn; a value of which no form is left keeps its placeholder."""

FROM_LISTS = 12
"""How often a name is drawn from a list, which a large log may hold whole; then it is made up."""

TELLING = 4
"""Characters from which on no surrogate may hold a value that stands beside, or be in one."""

Value = tuple[Kind, str]
"""A value as ``surrogates.canonical`` writes it."""


@dataclass(frozen=True)
class Marked:
    """Texts with marks in place of values, and what stands there.

    ``texts`` are JSON by name; ``context`` is what else is said, where nothing is marked.
    """

    first_mark: int
    occurrences: tuple[Occurrence, ...]
    texts: dict[str, str]
    context: str = ""

    @cached_property
    def values(self) -> dict[Value, Occurrence]:
        """The distinct values in their order, each with where it is found first."""
        found: dict[Value, Occurrence] = {}
        for one in self.occurrences:
            found.setdefault((one.kind, surrogates.canonical(one.kind, one.key)), one)
        return found


class Turn:
    """What a surrogate may not be a part of: the texts of a turn, and the values in it."""

    def __init__(self, marked: Marked) -> None:
        self.values = marked.values
        self.text = "\n".join([*marked.texts.values(), marked.context]).lower()

    @cached_property
    def digits(self) -> str:
        """The digits of the texts."""
        return digits_of(self.text)

    def holds(self, kind: Kind, drawn: str) -> bool:
        """Tell whether a surrogate stands in the texts, or has a part in common with a value."""
        if drawn in self.text or (kind in IN_DIGITS and drawn in self.digits):
            return True
        lowered = (key.lower() for _, key in self.values)
        return len(drawn) >= TELLING and any(
            drawn in one or (len(one) >= TELLING and one in drawn) for one in lowered
        )


@dataclass(slots=True)
class Conversation:
    """The surrogates of a conversation: those of all its turns are drawn under one key.

    ``taken`` are all values of the workload, in lower case; none of them is drawn.
    """

    key: bytes
    taken: AbstractSet[str]
    allowed: Allowed
    language: str | None = None
    drawn: dict[Value, str | None] = field(default_factory=dict[Value, "str | None"])
    used: set[str] = field(default_factory=set[str])

    def draw(self, marked: Sequence[Marked]) -> None:
        """Draw surrogates for the new values of turns, in their order."""
        places: dict[Value, list[Turn]] = {}
        for turn in map(Turn, marked):
            for value in turn.values.keys() - self.drawn.keys():
                places.setdefault(value, []).append(turn)
        ordered = dict.fromkeys(value for one in marked for value in one.values)
        new = [value for value in ordered if value in places]
        # Names first: addresses are made of what these become.
        for value in sorted(new, key=lambda one: one[0] is not Kind.NAME):
            self.drawn[value] = self._draw(value, places[value])

    def _draw(self, value: Value, turns: Sequence[Turn]) -> str | None:
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

    def _candidate(self, value: Value, turns: Sequence[Turn], attempt: int) -> str:
        kind, key = value
        tried = str(attempt or "")
        chance = Chance(self.key, kind, key, tried)
        match kind:
            case Kind.NAME:
                is_made_up = attempt >= FROM_LISTS
                return person_names.draw(key, self.language, chance, is_made_up=is_made_up)
            case Kind.EMAIL:
                names = self._names(turns)
                return surrogates.email(key, self.language, self.key, tried, names)
            case Kind.ADDRESS:
                return surrogates.address(key, self.language, self.key, tried)
            case Kind.PHONE:
                is_international = any(_has_country(key, turn.values[value]) for turn in turns)
                return surrogates.phone(key, chance, is_international=is_international)
            case Kind.CARD:
                return surrogates.card(key, chance)
            case Kind.IBAN:
                return surrogates.iban(key, chance)
            case Kind.SSN:
                return surrogates.ssn(chance)
            case Kind.NATIONAL_ID:
                return surrogates.identity(key, chance)
            case Kind.IP:
                return surrogates.ip(key, chance)
            case Kind.PASSWORD:
                return surrogates.password(key, chance)
            case Kind.SECRET:
                return surrogates.secret(key, chance)

    def _names(self, turns: Sequence[Turn]) -> Mapping[str, str]:
        parts = {key for turn in turns for kind, key in turn.values if kind is Kind.NAME}
        drawn = {key: self.drawn.get((Kind.NAME, key)) for key in parts}
        return {key: surrogate for key, surrogate in drawn.items() if surrogate}

    def write(self, marked: Marked, name: str) -> str | None:
        """Write a JSON text with surrogates in the places of marks; ``None`` if there is none."""
        text = marked.texts.get(name)
        return None if text is None else leaves.dumps(self._put(marked, json.loads(text)))

    def _put(self, marked: Marked, value: Json) -> Json:
        match value:
            case str():
                return self._in_text(marked, value) if "<" in value else value
            case list():
                return [self._put(marked, one) for one in value]
            case dict():
                return {key: self._put(marked, one) for key, one in value.items()}
            case _:
                return value

    def _in_text(self, marked: Marked, text: str) -> Json:
        if text[:1] in ("{", "["):
            try:
                read: Json = json.loads(text)
            except ValueError:
                pass
            else:
                rewritten = self._put(marked, read)
                return text if rewritten == read else leaves.write(rewritten, like=text)
        is_number = False

        def put(match: re.Match[str]) -> str:
            nonlocal is_number
            place = int(match[2]) - marked.first_mark
            if not 0 <= place < len(marked.occurrences):
                return match.group()
            one = marked.occurrences[place]
            is_number = is_number or one.is_number
            return self._as_written(one)

        written = PLACEHOLDER.sub(put, text)
        return _number(written) if is_number else written

    def _as_written(self, one: Occurrence) -> str:
        value = surrogates.canonical(one.kind, one.key)
        drawn = self.drawn[one.kind, value]
        if drawn is None:
            return placeholder(one.kind, one.number)
        return surrogates.write(one.kind, value, drawn, one.written)


def _has_country(key: str, first: Occurrence) -> bool:
    called = re.split("[a-zA-Z]", first.written, maxsplit=1)[0]
    return called.startswith("+") and digits_of(called) == key


def _number(written: str) -> Json:
    try:
        return json.loads(written)
    except ValueError:
        return written
