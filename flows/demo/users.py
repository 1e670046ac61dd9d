"""Simulate the people of the demo: answers are spoiled, and users rate and correct them.

None of these people exist. Every spoiled answer is found by somebody, who gives it a thumb down
and, mostly, says what would have been right; so the feedback path decides what is learned.
"""

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from components.schema import Answer, Call, Json
from flows.demo.bfcl import Request

ACTORS = [f"simulated-user-{number}" for number in range(1, 13)]
NO_TOOL = Answer("No tool fits this request.")
SPOILED, PRAISED, CORRECTED = 0.12, 0.15, 0.8
"""Shares: of answers that are spoiled, of right ones praised, of spoiled ones corrected."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """What one simulated user did about one answer; ``correction`` is the answer they wanted."""

    actor: str
    thumb: Literal["up", "down"]
    correction: Answer | None = None


def right_answer(request: Request) -> Answer:
    """Give the reference: its call, or the text that no tool fits."""
    return Answer(calls=(request.call,)) if request.call else NO_TOOL


def answer(request: Request, draw: Random) -> tuple[Answer, Reaction | None]:
    """Draw what the application answered, and what a user thought of it."""
    right = right_answer(request)
    if draw.random() >= SPOILED:
        praised = draw.random() < PRAISED
        return right, Reaction(draw.choice(ACTORS), "up") if praised else None
    correction = right if draw.random() < CORRECTED else None
    return spoil(request, draw), Reaction(draw.choice(ACTORS), "down", correction)


def spoil(request: Request, draw: Random) -> Answer:
    """Give a wrong answer: a needless call, another tool, or a wrong value of an argument."""
    if request.call is None:
        return Answer(calls=(Call(draw.choice(request.tool_names), {}),))
    others = [name for name in request.tool_names if name != request.call.name]
    if others and (draw.random() < 0.5 or not request.call.arguments):
        return Answer(calls=(replace(request.call, name=draw.choice(others)),))
    if not request.call.arguments:
        return NO_TOOL
    name = draw.choice(sorted(request.call.arguments))
    wrong = {**request.call.arguments, name: _another(request.call.arguments[name])}
    return Answer(calls=(replace(request.call, arguments=wrong),))


def _another(value: Json) -> Json:
    """Give a wrong value of the same type, where there is one."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value} (unknown)"
        case _:
            return None
