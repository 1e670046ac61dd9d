"""Ask a model on an OpenAI-compatible endpoint, a bounded number of times."""

import json
import time
from collections.abc import Sequence
from types import TracebackType
from typing import cast

import httpx

from components.evaluate.judging.settings import JudgeSettings
from components.schema import Json, Message

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""States that may be another one a moment later."""

TRIES = 5

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the second try, doubled each time, unless the endpoint says how long."""

LONGEST_REPLY = 16
"""Tokens: a verdict is one word."""


class JudgeError(RuntimeError):
    """The judge could not be asked; what it had answered is kept."""


class Endpoint:
    """Holds the connections to one endpoint; safe to use from several threads."""

    def __init__(self, settings: JudgeSettings, key: str | None) -> None:
        self._settings = settings
        self._client = httpx.Client(
            timeout=settings.timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=settings.concurrency),
        )

    def __enter__(self) -> "Endpoint":
        """Give itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, messages: Sequence[Message]) -> str:
        """Give what the model replies; empty where the reply has no text.

        Raises:
            JudgeError: It refused, or did not answer in so many tries.
        """
        found = ""
        for number in range(TRIES):
            try:
                response = self._client.post(
                    f"{self._settings.base_url}/chat/completions",
                    json={
                        "model": self._settings.model,
                        "messages": [*messages],
                        "temperature": 0,
                        "max_tokens": LONGEST_REPLY,
                    },
                )
            except httpx.TransportError as error:
                found, wait = type(error).__name__, FIRST_WAIT * 2**number
            else:
                if response.is_success:
                    return _text(response)
                found = f"status {response.status_code}"
                if response.status_code not in PASSING:
                    break
                wait = _told(response, FIRST_WAIT * 2**number)
            if number < TRIES - 1:
                time.sleep(min(wait, LONGEST_WAIT))
        raise JudgeError(
            f"asking the judge {self._settings.model} at {self._settings.base_url}: found {found}, "
            "wants a chat completion; see evaluate.judge, and the key that it names. What was "
            "judged so far is kept"
        )


def _told(response: httpx.Response, otherwise: float) -> float:
    """Give the seconds that the endpoint asks to wait."""
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return otherwise


def _text(response: httpx.Response) -> str:
    """Read a completion's text; what has not its form has none."""
    try:
        body = cast("Json", response.json())
    except (json.JSONDecodeError, UnicodeDecodeError):
        return ""
    match body:
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            return text
        case _:
            return ""
