"""Say which requests earlier versions of the demo used: none of them can be a test any more.

Every version took requests in one order, by the hash of their ids, each under its own limits, and
its recipe was tuned while what it held out was looked at. What they took is drawn here again.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from components import manifest, prompt
from components.curate import split
from flows.demo import users
from flows.demo.bfcl import Request

SEED = 0
"""The order that all versions drew in."""

LONGEST_ANSWER = 150
"""In bytes, as rendered."""

RUN = 3
"""Requests that have runs of so many words in common are alike."""

Run = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Draw:
    """The limits of a version: in all, or of each kind; of prompts in bytes; and of equal tools."""

    longest_prompt: int
    alike: int
    count: int | None = None
    kinds: tuple[int, int, int, int] | None = None
    """Calls of the only tool and of one of several, refusals of the only tool and of several."""
    unseen_share: float = 0
    """Of the tool sets that draw so large a holdout, only requests that had nothing in common with
    those of the draws before, not a tool."""


DRAWS = (
    Draw(longest_prompt=640, alike=2, kinds=(150, 160, 110, 60)),
    Draw(longest_prompt=700, alike=4, kinds=(160, 300, 200, 82)),
    Draw(longest_prompt=700, alike=4, count=760),  # later ones took fewer of the same
    Draw(longest_prompt=700, alike=4, unseen_share=0.5),
)


@dataclass
class Earlier:
    """What was used, by what was said in it, and the names of all tools."""

    ids: set[str] = field(default_factory=set[str])
    words: set[str] = field(default_factory=set[str])
    tools: set[str] = field(default_factory=set[str])
    _having: defaultdict[Run, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, request: Request) -> None:
        """Note a request as used."""
        self.ids.add(request.id)
        self.words.add(words(request))
        self.tools.update(request.tool_names)
        for run in _runs(request):
            self._having[run].add(request.id)

    def has_said(self, request: Request) -> bool:
        """Tell whether one used request has at least half of a request's runs of three words."""
        runs = _runs(request)
        shared = Counter(used for run in runs for used in self._having.get(run, ()))
        return max(shared.values(), default=0) * 2 >= len(runs)

    def has_anything_of(self, request: Request) -> bool:
        """Tell whether a request, its words or one of its tools was used."""
        is_used = request.id in self.ids or words(request) in self.words
        return is_used or not self.tools.isdisjoint(request.tool_names)


def read(requests: Iterable[Request]) -> Earlier:
    """Draw again what the earlier versions took."""
    ordered, used = in_order(requests, SEED), Earlier()
    for draw in DRAWS:
        for one in _drawn(ordered, draw, used):
            used.add(one)
    return used


def is_held_out(request: Request, share: float) -> bool:
    """Tell whether curation, split by tools, draws the holdout for a request's tools."""
    name = split.group("tools", request.tool_names, opening="", user_id=None)
    return split.side(split.by_hash(name), share, validation_share=0) == "holdout"


def in_order(requests: Iterable[Request], seed: int) -> list[Request]:
    """Order requests by the hash of their ids."""
    return sorted(requests, key=lambda one: manifest.digest([seed, one.id]))


def words(request: Request) -> str:
    """Return what is said in a request, in lower case and with single blanks."""
    said = " ".join(str(message["content"]) for message in request.messages)
    return " ".join(said.lower().split())


def is_short(request: Request, longest_prompt: int, longest_answer: int = LONGEST_ANSWER) -> bool:
    """Tell whether prompt and right answer, as rendered, have at most so many bytes."""
    rendered = prompt.render_prompt(request.messages, request.tools)
    answer = prompt.render_answer(users.right_answer(request))
    asked = sum(len(message["content"].encode()) for message in rendered)
    return asked <= longest_prompt and len(answer.encode()) <= longest_answer


def _runs(request: Request) -> set[Run]:
    said = words(request).split()
    return {tuple(said[start : start + RUN]) for start in range(max(1, len(said) - RUN + 1))}


def _drawn(ordered: Iterable[Request], draw: Draw, before: Earlier) -> list[Request]:
    taken: list[Request] = []
    alike: Counter[tuple[str, ...]] = Counter()
    kinds: Counter[int] = Counter()
    for request in ordered:
        kind = (0 if request.call else 2) + (len(request.tools) > 1)
        named = kind if draw.kinds else (0 if request.call else 2)
        group = (str(named), *request.tool_names)
        is_full = draw.count is not None and len(taken) >= draw.count
        is_full |= draw.kinds is not None and kinds[kind] >= draw.kinds[kind]
        if is_full or alike[group] >= draw.alike or not is_short(request, draw.longest_prompt):
            continue
        alike[group] += 1
        kinds[kind] += 1
        if not (is_held_out(request, draw.unseen_share) and before.has_anything_of(request)):
            taken.append(request)
    return taken
