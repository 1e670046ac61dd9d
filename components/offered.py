"""Write requests as ``prompt`` does, but write equal tools only once.

An application offers the same tools in request after request, and writing twenty of them takes
longer than all the rest of a request.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from components import prompt
from components.schema import Json, Message


def render_prompt(messages: Sequence[Mapping[str, Json]], tools: str) -> list[Message]:
    """Write a request as plain chat messages, exactly as ``prompt.render_prompt`` does.

    Args:
        messages: OpenAI chat messages.
        tools: OpenAI tools, as JSON text.
    """
    return prompt.render_prompt([*messages, *_offer(tools)], [])


@lru_cache(maxsize=512)
def _offer(tools: str) -> list[Mapping[str, Json]]:
    """Write tools as the last of the system messages, which is where a prompt has them."""
    return [{**message} for message in prompt.render_prompt([], json.loads(tools))]
