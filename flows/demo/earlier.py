"""Say which requests earlier versions of the demo used: none of them can be a test any more.

Every version took requests in one order, by the hash of their ids, each under its own limits, and
its recipe was tuned while what it held out was looked at. What they took is drawn here again.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from components import manifest, prompt
from flows.demo import users
from flows.demo.bfcl import Request

SEED = 0
"""The order that all versions drew in."""

LONGEST_ANSWER = 150
"""In bytes, as rendered."""


@dataclass(frozen=True, slots=True)
class Draw:
    """The limits of a version: in all, or of each kind; of prompts in bytes; and of equal tools."""

    longest_prompt: int
    alike: int
    count: int | None = None
    kinds: tuple[int, int, int, int] | None = None
    """Calls of the only tool and of one of several, refusals of the only tool and of several."""


DRAWS = (
    Draw(longest_prompt=640, alike=2, kinds=(150, 160, 110, 60)),
    Draw(longest_prompt=700, alike=4, kinds=(160, 300, 200, 82)),
    Draw(longest_prompt=700, alike=4, count=760),  # later ones took fewer of the same
)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What was used: the requests by their ids and by what was said, and the names of all tools."""

    ids: frozenset[str]
    words: frozenset[str]
    tools: frozenset[str]

    def has_seen(self, request: Request) -> bool:
        """Tell whether a request, its words or one of its tools was ever in the demo."""
        return (
            request.id in self.ids
            or words(request) in self.words
            or not self.tools.isdisjoint(request.tool_names)
        )


def read(requests: Iterable[Request]) -> Earlier:
    """Draw again what the earlier versions took."""
    ordered = in_order(requests, SEED)
    used = {one.id: one for draw in DRAWS for one in _drawn(ordered, draw)}
    return Earlier(
        frozenset(used),
        frozenset(words(one) for one in used.values()),
        frozenset(name for one in used.values() for name in one.tool_names),
    )


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


def _drawn(ordered: Iterable[Request], draw: Draw) -> list[Request]:
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
        taken.append(request)
        alike[group] += 1
        kinds[kind] += 1
    return taken
