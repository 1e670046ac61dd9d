"""Write and parse the tool-call syntaxes that bases were trained on.

Only where a tool is offered may an answer have calls: elsewhere what looks like one is text, which
is learned, measured and served as it was written.
"""

import json
import re
from typing import Literal, TypeAlias

from components.chat import prompt
from components.schema import Answer, Call

Dialect: TypeAlias = Literal["written", "hermes", "llama3"]

FORMS: tuple[Dialect, ...] = ("hermes", "llama3")
"""The syntaxes of chat templates; ``written`` is our own format."""

CALL_STARTS: dict[Dialect, str] = {
    "written": prompt.CALL_START,
    "hermes": "<tool_call>",
    "llama3": '{"name"',
}
"""The text that every call begins with; its first token decides for a call."""

_KEYS: dict[Dialect, tuple[str, ...]] = {
    "written": prompt.ARGUMENTS,
    "hermes": ("arguments",),
    "llama3": ("parameters", "arguments"),
}

_THOUGHTS = re.compile(r"^\s*<think>.*?</think>\s*", re.DOTALL)
TAGS = ("<tool_call>", "</tool_call>", "<|python_tag|>")
"""What surrounds calls in the forms of chat templates."""

_TAGS = re.compile("|".join(map(re.escape, TAGS)))


def write_answer(form: Dialect, answer: Answer) -> str:
    """Render an answer as its text, followed by its calls."""
    if form == "written":
        return prompt.render_answer(answer)
    calls = [_json(call, _KEYS[form][0]) for call in answer.calls]
    if form == "hermes":
        calls = [f"<tool_call>\n{call}\n</tool_call>" for call in calls]
    joined = ("\n" if form == "hermes" else "; ").join(calls)
    return "\n".join(part for part in (answer.text.strip(), joined) if part)


def translate(form: Dialect, written: str, *, offers_tools: bool) -> str:
    """Convert an answer from our format to another form; arguments keep their order."""
    if form == "written" or not offers_tools:
        return written
    return write_answer(form, prompt.parse_answer(written))


def read_answer(form: Dialect, text: str, *, offers_tools: bool) -> Answer:
    """Parse a model's text; leading ``<think>`` text is not part of the answer."""
    if not offers_tools:
        return Answer(_answered(form, text).strip())
    answer = prompt.parse_answer(_plain(form, text), _KEYS[form])
    between_calls = form == "llama3" and not answer.text.strip("; \n")
    return Answer("", answer.calls) if between_calls else answer


def resembles_call(text: str) -> bool:
    """Return whether a text has what any form would read as a call, or as a tag around one."""
    return _TAGS.search(text) is not None or any(
        read_answer(form, text, offers_tools=True).calls for form in FORMS
    )


def answer_problem(form: Dialect, text: str, *, may_have_braces: bool = False) -> str | None:
    """Return why ``text`` is a failed call attempt; ``None`` for valid calls and plain text.

    ``may_have_braces``: plain text may, as code does.
    """
    plain = _plain(form, text)
    if form != "written" and plain.lstrip().startswith("<think>"):
        return "it was still thinking when it was cut off"
    problem = prompt.answer_problem(plain, _KEYS[form], may_have_braces=may_have_braces)
    begun = text.count(CALL_STARTS["hermes"]) if form == "hermes" else 0
    calls = read_answer(form, text, offers_tools=True).calls
    if problem is None and begun > len(calls):
        return f"{CALL_STARTS['hermes']} was written, and no call"
    return problem


def without_thought(text: str) -> str:
    """Return a text without the thought that it begins with, if any."""
    return _THOUGHTS.sub("", text)


def _answered(form: Dialect, text: str) -> str:
    return text if form == "written" else without_thought(text)


def _plain(form: Dialect, text: str) -> str:
    return text if form == "written" else _TAGS.sub("", _answered(form, text))


def _json(call: Call, key: str) -> str:
    return json.dumps({"name": call.name, key: call.arguments}, ensure_ascii=False)
