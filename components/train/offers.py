"""Vary the tools that requests offer, so that the model learns to read them all.

Applications list their tools in a fixed order, often the right one first, and a small model learns
the place instead of the tool. So each request offers its tools in an order drawn anew, and a share
of them offers another request's tool besides.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from components.schema import Json

Tool: TypeAlias = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Request:
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


def vary(requests: Sequence[Request], distractor_share: float, seed: int) -> list[Request]:
    """Offer each request's tools in another order, some with a tool of another request.

    Args:
        requests: What is learned from; their tools are the only ones offered.
        distractor_share: Of the requests that offer tools: how many get one more.
        seed: Draws the order, and which request gets which tool.

    Returns:
        The same requests in the same order, but for their tools.
    """
    draw = random.Random(seed)
    known = distinct(requests)
    return [_varied(one, known, distractor_share, draw) if one.tools else one for one in requests]


def distinct(requests: Sequence[Request]) -> list[Tool]:
    """List the tools that are offered anywhere, each once."""
    return list({str(tool): tool for request in requests for tool in request.tools}.values())


def strange_to(request: Request, known: Sequence[Tool]) -> list[Tool]:
    """List the tools whose names the request does not offer."""
    offered = {name(tool) for tool in request.tools}
    return [tool for tool in known if name(tool) not in offered]


def name(tool: Tool) -> str:
    """Give the name of a tool's function."""
    return cast("dict[str, str]", tool["function"])["name"]


def _varied(
    request: Request, known: Sequence[Tool], distractor_share: float, draw: random.Random
) -> Request:
    strange = strange_to(request, known) if draw.random() < distractor_share else []
    tools = [*request.tools, draw.choice(strange)] if strange else request.tools
    return replace(request, tools=draw.sample(tools, len(tools)))
