"""The report as one HTML file that needs nothing else: no request, no script, pictures inside.

Jinja2 escapes every value; a policy in the page's head forbids the browser whatever is left.
"""

import base64
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.gate.report.baselines import BaselineComparison
from components.scorecard import Difference

TEMPLATE = "page.html"

SHOWN_CHARACTERS = 600
"""Longer requests and answers are cut; the rows beside the report have them whole."""

TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that turn the direction of writing, so that a text shows as other than it is."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table of scores, in words; ``mood`` (good, bad or none) colours what is said."""

    name: str
    meaning: str
    opponent: str
    challenger: str
    difference: str
    interval: str
    n: int
    clusters: str
    said: str = ""
    mood: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One row of the table of slices, in words; ``said`` only where it is significantly worse."""

    name: str
    better: int
    worse: int
    difference: str
    interval: str
    n: int
    clusters: str
    said: str


@dataclass(frozen=True, slots=True)
class Charge:
    """One row of the table of costs: both models, and the formula or what is missing."""

    name: str
    production: str
    challenger: str
    how: str


@dataclass(frozen=True, slots=True)
class Retained:
    """One row of the table of what is kept of production's quality, in words."""

    name: str
    production: str
    challenger: str
    share: str
    interval: str
    n: int
    clusters: int


@dataclass(frozen=True, slots=True)
class Page:
    """All that the report says, in words."""

    workload: str
    opponent: str
    outcome: str
    sentence: str
    reasons: Sequence[str]
    change: Sequence[str]
    note: str
    digest: str
    baselines: BaselineComparison
    scores: Sequence[Line]
    guards: Sequence[Line]
    slices: Sequence[Part]
    charges: Sequence[Charge]
    kept: str
    retained: Sequence[Retained]
    break_even: str
    lost: Sequence[Difference]
    won: Sequence[Difference]
    training: Mapping[str, int]
    conditions: Mapping[str, str]
    pictures: Mapping[str, Path] = field(default_factory=dict[str, Path])


def write(page: Page) -> str:
    """Write the report as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    environment.filters |= {"cut": cut, "inline": _inline}
    return environment.get_template(TEMPLATE).render(page=page)


def cut(text: str) -> str:
    """Give the beginning of a long text, and how much more there is."""
    more = len(text) - SHOWN_CHARACTERS
    return text if more <= 0 else f"{text[:SHOWN_CHARACTERS]} … ({more} more characters)"


def _inline(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _clean(value: object) -> object:
    if not isinstance(value, str) or isinstance(value, Markup):  # what macros wrote was cleaned
        return value
    return visible(value)


def visible(text: str) -> str:
    """Show control characters, and marks that turn the direction of writing, by their code."""
    return "".join(_visible(one) for one in text)


def _visible(one: str) -> str:
    hidden = one in TURNING or (unicodedata.category(one) in ("Cc", "Cs") and one not in "\n\t")
    return f"\\u{ord(one):04x}" if hidden else one
