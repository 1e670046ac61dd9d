"""Augment training rows: vary the offered tools, and add requests without a fitting tool."""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from components.chat import prompt
from components.schema import Json

Tool: TypeAlias = dict[str, Json]


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A request, the names of the called tools, the rendered answer and its weight.

    ``row_id`` is the id of the snapshot's row that it is, or was made from. ``withheld`` are the
    names of tools that fit, where the answer is that none does.
    """

    messages: list[dict[str, Json]]
    tools: list[Tool]
    called: tuple[str, ...]
    answer: str
    weight: float
    row_id: str = ""
    withheld: tuple[str, ...] = ()

    @property
    def offers_in_vain(self) -> bool:
        """Whether it offers tools and none is called."""
        return bool(self.tools) and not self.called


def vary_offers(
    requests: Sequence[ToolRequest], distractor_share: float, seed: int
) -> list[ToolRequest]:
    """Return the requests with their tools shuffled; a share also offers another request's tool."""
    draw = random.Random(seed)
    known = distinct_tools(requests)
    return [
        _varied_request(request, known, distractor_share, draw) if request.tools else request
        for request in requests
    ]


def distinct_tools(requests: Sequence[ToolRequest]) -> list[Tool]:
    """List the tools that any request offers, without duplicates."""
    return list({str(tool): tool for request in requests for tool in request.tools}.values())


def tools_not_offered(request: ToolRequest, known: Sequence[Tool]) -> list[Tool]:
    """List the tools whose names a request does not offer, and may."""
    taken = {tool_name(tool) for tool in request.tools} | {*request.withheld}
    return [tool for tool in known if tool_name(tool) not in taken]


def tool_name(tool: Tool) -> str:
    """Return the name of a tool's function."""
    return cast("dict[str, str]", tool["function"])["name"]


def _varied_request(
    request: ToolRequest, known: Sequence[Tool], distractor_share: float, draw: random.Random
) -> ToolRequest:
    others = tools_not_offered(request, known) if draw.random() < distractor_share else []
    tools = [*request.tools, draw.choice(others)] if others else request.tools
    return replace(request, tools=draw.sample(tools, len(tools)))


LEAST_REFUSALS = 3  # occurrences of a refusal in the log

REFUSAL_SHARE = 1 / 2  # of the answers to users that call none of the offered tools

_ASKS = re.compile("[?\uff1f\u061f]")
_DENIES = re.compile(
    r"""\b(?: no|not|none|nothing|never|cannot|unable|sorry | \w+n['\u2019]t
    | kein\w*|nicht\w*|leider | ne|pas|aucun\w*|impossible|d\u00e9sol\w* | ning\u00fan|ningun\w*
    | n\u00e3o|nenhum\w* | non|nessun\w* | geen|niet | ingen\w*|inte|ikke | nie|\u017cad\w*|brak
    | \u043d\u0435|\u043d\u0435\u0442 | yok|de\u011fil | tidak )\b
    | [\u6ca1\u65e0\u4e0d\u7121]|\u306a\u3044|\u307e\u305b\u3093|\uc5c6|\uc54a""",
    re.IGNORECASE | re.VERBOSE,
)
"""Negations in some languages; refusals in others are not recognised."""


def make_irrelevant(
    requests: Sequence[ToolRequest], share: float, seed: int
) -> tuple[list[ToolRequest], str | None]:
    """Repeat a share of the calls with other requests' tools and the application's refusal.

    Returns:
        The made requests and, if there are none although the share calls for some, the reason.
    """
    draw = random.Random(seed)
    calls = [request for request in requests if request.tools and request.called]
    chosen = draw.sample(calls, round(share * len(calls)))
    if not chosen:
        return [], None
    refusal, objection = find_refusal(requests)
    if refusal is None:
        return [], objection
    known = distinct_tools(requests)
    made = [
        replace(request, tools=tools, called=(), answer=refusal, withheld=request.called)
        for request in chosen
        if (tools := _unfitting_tools(request, known, draw))
    ]
    return made, None if made else "all requests offer the same one tool"


def find_refusal(requests: Sequence[ToolRequest]) -> tuple[str | None, str]:
    """Return the application's refusal when no tool fits, or ``None`` and the reason.

    The reason quotes no row.
    """
    answers = [
        request.answer
        for request in requests
        # after a tool's result, the fitting tool was called before
        if request.offers_in_vain
        and request.messages
        and request.messages[-1].get("role") == "user"
    ]
    if not answers:
        return None, "no user's request was answered without a call where tools were offered"
    counts = Counter(map(_plain_text, answers))
    plain, count = max(sorted(counts.items()), key=lambda item: item[1])
    commonest = f"the commonest of {len(answers)} answers without a call"
    if count < max(LEAST_REFUSALS, REFUSAL_SHARE * len(answers)):
        return None, (
            f"{commonest} occurs {count} times, expected at least {LEAST_REFUSALS} and half of all"
        )
    if _ASKS.search(plain) or not _DENIES.search(plain):
        return None, f"{commonest} asks a question, or has no negation"
    next_calls = [*_next_turns(requests, plain)]
    if len(next_calls) >= LEAST_REFUSALS and sum(next_calls) > len(next_calls) / 2:
        return None, (
            f"{commonest} preceded a call in {sum(next_calls)} of {len(next_calls)} conversations "
            "that continued, so it asks for what a call needs"
        )
    return next(answer for answer in answers if _plain_text(answer) == plain), ""


def _next_turns(requests: Sequence[ToolRequest], plain: str) -> Iterator[bool]:
    """Yield, for each conversation with this answer and a later one, whether the next one calls.

    Later requests of a conversation repeat its beginning, which counts once.
    """
    known: set[str] = set()
    for request in requests:
        messages = request.messages
        turns = [at for at, turn in enumerate(messages) if turn.get("role") == "assistant"]
        calls = [bool(messages[at].get("tool_calls")) for at in turns]
        for at, calls_next in zip(turns, [*calls, bool(request.called)][1:], strict=True):
            beginning = str(messages[: at + 1])
            if _plain_text(prompt.text_of(messages[at])) == plain and beginning not in known:
                known.add(beginning)
                yield calls_next


def _plain_text(text: str) -> str:
    return " ".join(text.casefold().split())


def _unfitting_tools(
    request: ToolRequest, known: Sequence[Tool], draw: random.Random
) -> list[Tool]:
    """Return the request's tools that were not called, or another request's tool."""
    others = [tool for tool in request.tools if tool_name(tool) not in request.called]
    if others and draw.random() < 0.5:
        return others
    elsewhere = tools_not_offered(request, known)
    return [draw.choice(elsewhere)] if elsewhere else others
