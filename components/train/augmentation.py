"""Augment training rows: vary the offered tools, and add requests that no tool fits."""

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
    """A request, the tools that were called, the answer as rendered, and how much it counts.

    ``row_id`` names the row of the snapshot that it is, or that it was made of.
    """

    messages: list[dict[str, Json]]
    tools: list[Tool]
    called: tuple[str, ...]
    answer: str
    weight: float
    row_id: str = ""

    @property
    def offers_in_vain(self) -> bool:
        """Whether tools are offered and none is called."""
        return bool(self.tools) and not self.called


def vary_offers(
    requests: Sequence[ToolRequest], distractor_share: float, seed: int
) -> list[ToolRequest]:
    """Offer each request's tools in another order, some with a tool of another request.

    Args:
        requests: What is learned from; their tools are the only ones offered.
        distractor_share: Of the requests that offer tools: how many get one more.
        seed: Draws the order, and which request gets which tool.

    Returns:
        The same requests in the same order, but for their tools.
    """
    draw = random.Random(seed)
    known = distinct_tools(requests)
    return [
        _varied_request(one, known, distractor_share, draw) if one.tools else one
        for one in requests
    ]


def distinct_tools(requests: Sequence[ToolRequest]) -> list[Tool]:
    """List the tools that are offered anywhere, each once."""
    return list({str(tool): tool for request in requests for tool in request.tools}.values())


def tools_not_offered(request: ToolRequest, known: Sequence[Tool]) -> list[Tool]:
    """List the tools whose names the request does not offer."""
    offered = {tool_name(tool) for tool in request.tools}
    return [tool for tool in known if tool_name(tool) not in offered]


def tool_name(tool: Tool) -> str:
    """Give the name of a tool's function."""
    return cast("dict[str, str]", tool["function"])["name"]


def _varied_request(
    request: ToolRequest, known: Sequence[Tool], distractor_share: float, draw: random.Random
) -> ToolRequest:
    strange = tools_not_offered(request, known) if draw.random() < distractor_share else []
    tools = [*request.tools, draw.choice(strange)] if strange else request.tools
    return replace(request, tools=draw.sample(tools, len(tools)))


LEAST_REFUSALS = 3  # how often a refusal has to stand in the log

REFUSAL_SHARE = 1 / 2
"""Of the answers to users that call none of the offered tools: how many have to be that refusal."""

_ASKS = re.compile("[?\uff1f\u061f]")
_DENIES = re.compile(
    r"""\b(?: no|not|none|nothing|never|cannot|unable|sorry | \w+n['\u2019]t
    | kein\w*|nicht\w*|leider | ne|pas|aucun\w*|impossible|d\u00e9sol\w* | ning\u00fan|ningun\w*
    | n\u00e3o|nenhum\w* | non|nessun\w* | geen|niet | ingen\w*|inte|ikke | nie|\u017cad\w*|brak
    | \u043d\u0435|\u043d\u0435\u0442 | yok|de\u011fil | tidak )\b
    | [\u6ca1\u65e0\u4e0d\u7121]|\u306a\u3044|\u307e\u305b\u3093|\uc5c6|\uc54a""",
    re.IGNORECASE | re.VERBOSE,
)
"""How texts in some languages say that something is not; a refusal in others is not found."""


def make_irrelevant(
    requests: Sequence[ToolRequest], share: float, seed: int
) -> tuple[list[ToolRequest], str | None]:
    """Ask a share of the calls again, with tools that don't fit.

    Args:
        requests: What is learned from; their tools are the only ones offered in what is made.
        share: Of the requests that are answered by a call.
        seed: Draws which, and what they offer instead.

    Returns:
        The made requests, each with the application's refusal as its answer, and ``None``; or none
        and why there are none, if some were wanted.
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
    made = [(one, _without_fitting_tool(one, known, draw)) for one in chosen]
    fitting = [replace(one, tools=tools, called=(), answer=refusal) for one, tools in made if tools]
    return fitting, None if fitting else "all requests offer the same one tool"


def find_refusal(requests: Sequence[ToolRequest]) -> tuple[str | None, str]:
    """Find what the application says when no tool fits.

    Returns:
        The refusal, or ``None`` and why none is known. The reason holds no word of any row.
    """
    answers = [one.answer for one in requests if one.offers_in_vain and _is_first_word(one)]
    if not answers:
        return None, "no user's request was answered without a call where tools were offered"
    counts = Counter(map(_plain_text, answers))
    plain, count = max(sorted(counts.items()), key=lambda item: item[1])
    said = f"the commonest of {len(answers)} answers without a call"
    if count < max(LEAST_REFUSALS, REFUSAL_SHARE * len(answers)):
        return None, f"{said} stands {count} times, wants {LEAST_REFUSALS} at least and half of all"
    if _ASKS.search(plain) or not _DENIES.search(plain):
        return None, f"{said} asks something, or doesn't say that something is not or can't be"
    next_calls = [*_next_turns(requests, plain)]
    if len(next_calls) >= LEAST_REFUSALS and sum(next_calls) > len(next_calls) / 2:
        return None, (
            f"{said} came before a call in {sum(next_calls)} of {len(next_calls)} conversations "
            "that went on, so it asks for what a call needs"
        )
    return next(one for one in answers if _plain_text(one) == plain), ""


def _is_first_word(request: ToolRequest) -> bool:
    """Tell whether a request is a user's: what follows on a tool's result found its tool."""
    return bool(request.messages) and request.messages[-1].get("role") == "user"


def _next_turns(requests: Sequence[ToolRequest], plain: str) -> Iterator[bool]:
    """Tell of each conversation that has this answer and another after it whether that one calls.

    What a later request of the conversation repeats is counted once.
    """
    known: set[str] = set()
    for request in requests:
        turns = [at for at, one in enumerate(request.messages) if one.get("role") == "assistant"]
        calls = [bool(request.messages[at].get("tool_calls")) for at in turns]
        for at, calls_next in zip(turns, [*calls, bool(request.called)][1:], strict=True):
            beginning = str(request.messages[: at + 1])
            if (
                _plain_text(prompt.text_of(request.messages[at])) == plain
                and beginning not in known
            ):
                known.add(beginning)
                yield calls_next


def _plain_text(text: str) -> str:
    return " ".join(text.casefold().split())


def _without_fitting_tool(
    request: ToolRequest, known: Sequence[Tool], draw: random.Random
) -> list[Tool]:
    """Offer the tools that were not called, or one of another request; none if there is none."""
    others = [tool for tool in request.tools if tool_name(tool) not in request.called]
    if others and draw.random() < 0.5:
        return others
    strange = tools_not_offered(request, known)
    return [draw.choice(strange)] if strange else others
