"""Choose between a base's own chat template and our plain-text format."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from components.chat import dialects, prompt
from components.chat.dialects import Dialect
from components.schema import Answer, Call, Json, Message
from components.store import manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE = "prompt_template"
"""Under this key every manifest keeps the hash of the words that it was made with."""

EXAMPLE = "prompt_example.json"
"""The file of an adapter that shows how its prompts are written."""


class TemplateChangedError(ValueError):
    """What was made with one way of writing prompts is to be used with another."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request as a model reads it.

    ``tools`` are those that the chat template itself writes, none where the messages hold them.
    ``form`` is the one that an answer has.
    """

    form: Dialect
    messages: list[Message]
    tools: list[Mapping[str, Json]]

    def to_text(self, tokenizer: "PreTrainedTokenizerBase") -> str:
        """Give the text, up to where the answer begins."""
        return prompt.to_text(tokenizer, self.messages, self.tools)


def render(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, Json]],
    tools: Sequence[Mapping[str, Json]],
) -> Rendered:
    """Write a request as the base's template does, or as ``prompt`` does.

    Args:
        tokenizer: The base's.
        messages: OpenAI chat messages.
        tools: OpenAI tools, ``{"type": "function", "function": {...}}``; may be empty.
    """
    form = form_of(tokenizer)
    if form != "written":
        turns = _turns(form, messages)
        if _says(tokenizer, turns, tools):
            return Rendered(form, turns, list(tools))
    return Rendered("written", prompt.render_prompt(messages, tools), [])


def form_of(tokenizer: "PreTrainedTokenizerBase") -> Dialect:
    """Tell in which form a base's own template writes calls; ``written`` if in none we read."""
    return _form_of(tokenizer, json.dumps(tokenizer.chat_template))


def template_hash(base: Path) -> str:
    """Digest how a base's prompts are written: our format's version, and its chat template.

    Read from the files, so that nobody need load a tokenizer for it.
    """
    return manifest.digest([prompt.FORMAT, _templates(base)])


def example(tokenizer: "PreTrainedTokenizerBase", base: Path) -> dict[str, Json]:
    """Show how prompts are written and answered, for whoever serves an adapter of this base.

    Returns:
        ``form`` of the calls and the hash ``template``; a request's ``messages`` and ``tools``, its
        ``prompt`` as the model reads it, and the ``answer`` that it then writes.
    """
    asked = render(tokenizer, _ASKED[:2], _OFFERED)
    return {
        "form": asked.form,
        "template": template_hash(base),
        "messages": [*_ASKED[:2]],
        "tools": [dict(tool) for tool in _OFFERED],
        "prompt": asked.to_text(tokenizer),
        "answer": dialects.write_answer(asked.form, prompt.read_message(_ASKED[2])),
    }


def require_same(recorded: Json, now: str, doing: str) -> None:
    """Refuse to use what was made with other words than those of now.

    Args:
        recorded: What its manifest says; ``None`` if nothing.
        now: What would be used.
        doing: What is refused, for the message.

    Raises:
        TemplateChangedError: They are not the same.
    """
    if recorded != now:
        raise TemplateChangedError(
            f"{doing}: it was made with the prompt template {recorded or 'that nothing recorded'}, "
            f"here prompts are written with {now}; make it again, or use the version of Flywheel "
            "and the base's chat template that it was made with"
        )


@lru_cache(maxsize=16)
def _form_of(tokenizer: "PreTrainedTokenizerBase", _: str) -> Dialect:
    for form in dialects.FORMS:
        if _knows(tokenizer, form):
            return form
    return "written"


def _knows(tokenizer: "PreTrainedTokenizerBase", form: Dialect) -> bool:
    """Tell whether a template says all of a conversation, its calls in this very form."""
    turns = _turns(form, _ASKED)
    if not _says(tokenizer, turns, _OFFERED):
        return False
    ours: Message = {"role": "assistant", "content": dialects.write_answer(form, _ANSWER)}
    calls: Json = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in _ANSWER.calls
    ]
    theirs: dict[str, Json] = {"role": "assistant", "content": "", "tool_calls": calls}
    written = _tried(tokenizer, [*turns, ours], _OFFERED, answered=True)
    return written is not None and written == _tried(
        tokenizer, [*turns, theirs], _OFFERED, answered=True
    )


def _says(
    tokenizer: "PreTrainedTokenizerBase",
    turns: Sequence[Message],
    tools: Sequence[Mapping[str, Json]],
) -> bool:
    """Tell whether a request's text holds all that was said, and the tools with their arguments."""
    text = _tried(tokenizer, turns, tools, answered=False)
    if text is None:
        return False
    wanted = [turn["content"].strip() for turn in turns]
    return all(_is_in(text, one) for one in [*wanted, *_names(tools)])


def _is_in(text: str, said: str) -> bool:
    """Look for what was said, as it is or as JSON has it."""
    return said in text or json.dumps(said, ensure_ascii=False)[1:-1] in text


def _names(tools: Sequence[Mapping[str, Json]]) -> Iterable[str]:
    for tool in tools:
        match tool:
            case {"function": {"name": str(name), **function}}:
                yield name
            case _:
                raise ValueError(f"a tool wants a `function` object with a name, found {tool!r}")
        match function.get("parameters"):
            case {"properties": dict(properties)}:
                yield from properties
            case _:
                pass


def _tried(
    tokenizer: "PreTrainedTokenizerBase",
    turns: Sequence[Mapping[str, Json]] | Sequence[Message],
    tools: Sequence[Mapping[str, Json]],
    *,
    answered: bool,
) -> str | None:
    """Apply the chat template; ``None`` where it refuses, as templates do by raising."""
    try:
        return prompt.to_text(tokenizer, turns, tools, answered=answered)
    except (TemplateError, TypeError, ValueError):
        return None


def _turns(form: Dialect, messages: Sequence[Mapping[str, Json]]) -> list[Message]:
    """Write messages as ``prompt`` does, but calls in the base's form and results as results."""
    turns: list[Message] = prompt.render_prompt([m for m in messages if prompt.is_system(m)], [])
    for message in messages:
        if message.get("role") == "assistant":
            answer = prompt.read_message(message)
            turns.append({"role": "assistant", "content": dialects.write_answer(form, answer)})
        elif message.get("role") == "tool":
            turns.append({"role": "tool", "content": prompt.text_of(message)})
        elif not prompt.is_system(message):
            turns.append({"role": "user", "content": prompt.text_of(message)})
    return turns


def _templates(base: Path) -> Json:
    """Read a base's chat templates, from where transformers does: files first."""
    files = [*base.glob("chat_template.jinja"), *base.glob("additional_chat_templates/*.jinja")]
    if files:
        return {file.name: file.read_text() for file in sorted(files)}
    config = base / "tokenizer_config.json"
    found: dict[str, Json] = json.loads(config.read_text()) if config.is_file() else {}
    return found.get("chat_template")


_OFFERED: list[Mapping[str, Json]] = [
    {
        "type": "function",
        "function": {
            "name": "sound_depth",
            "description": "Sound the depth of a lake.",
            "parameters": {
                "type": "object",
                "properties": {"lake": {"type": "string"}, "in_fathoms": {"type": "boolean"}},
                "required": ["lake"],
            },
        },
    }
]

_ASKED: list[dict[str, Json]] = [
    {"role": "system", "content": "Be brief, skipper."},
    {"role": "user", "content": "How deep is the Walensee?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "type": "function",
                "function": {"name": "sound_depth", "arguments": {"lake": "Walensee"}},
            }
        ],
    },
    {"role": "tool", "content": "151 metres"},
    {"role": "assistant", "content": "That is deep enough."},
    {"role": "user", "content": "And the Blausee, in fathoms?"},
]

_ANSWER = Answer(calls=(Call("sound_depth", {"lake": "Blausee", "in_fathoms": True}),))
