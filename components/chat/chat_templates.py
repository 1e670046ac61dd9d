"""Choose between a base's own chat template and our plain-text format."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from components.chat import answer_start, dialects, prompt
from components.chat.answer_start import OWN_MARKS, is_whole_thought
from components.chat.dialects import Dialect
from components.schema import Answer, Call, Json, Message
from components.store import manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER_START = 1
"""The version of where prompts of templates with thoughts or channels end."""

TEMPLATE = "prompt_template"  # the manifest key of the hash of the prompt template

EXAMPLE = "prompt_example.json"  # the file in an adapter's folder with an example prompt and answer


class TemplateChangedError(ValueError):
    """Raised when an artifact's prompt template differs from the current one."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request as messages for the chat template.

    ``tools`` are those that the chat template renders; empty when the messages contain them.
    ``form`` is the syntax of tool calls in the answer.
    """

    form: Dialect
    messages: list[Message]
    tools: list[Mapping[str, Json]]

    def to_text(self, tokenizer: "PreTrainedTokenizerBase") -> str:
        """Return the prompt text, up to where the model begins: its answer, or an empty thought."""
        text, rest = self._start(tokenizer)
        return text if self._may_think(rest) else text + rest

    def before_answer(self, tokenizer: "PreTrainedTokenizerBase") -> str:
        """Return the text that the answer's own follows, to score a text that is known."""
        return "".join(self._start(tokenizer))

    def ends_thoughts(self, tokenizer: "PreTrainedTokenizerBase") -> bool:
        """Return whether the prompt ends a thought that the template begins."""
        _, rest = self._start(tokenizer)
        return bool(rest) and not self._may_think(rest)

    def _start(self, tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
        text = prompt.to_text(tokenizer, self.messages, self.tools)
        return text, answer_start.after_prompt(tokenizer, self.messages, self.tools, text)

    def _may_think(self, rest: str) -> bool:
        # Reading an answer in a base's own form drops its thought.
        return self.form != "written" and is_whole_thought(rest)


def render(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, Json]],
    tools: Sequence[Mapping[str, Json]],
) -> Rendered:
    """Render a request with the base's chat template or, if that loses content, as ``prompt``.

    Args:
        tokenizer: The base's.
        messages: OpenAI chat messages.
        tools: OpenAI tools, ``{"type": "function", "function": {...}}``; may be empty.
    """
    form = form_of(tokenizer)
    if form != "written":
        turns = _turns(form, messages)
        if _renders_all(tokenizer, turns, tools) and _takes_answer(tokenizer, turns, tools):
            return Rendered(form, turns, list(tools))
    return Rendered("written", _accepted(tokenizer, prompt.render_prompt(messages, tools)), [])


def form_of(tokenizer: "PreTrainedTokenizerBase") -> Dialect:
    """Return the call syntax of a base's own template; ``written`` if we can't parse its calls."""
    return _form_of(tokenizer, json.dumps(tokenizer.chat_template))


def template_hash(base: Path) -> str:
    """Digest our format's version and the base's chat template, without loading its tokenizer."""
    return manifest.digest([prompt.FORMAT, _templates(base)])


def conditions(base: Path) -> dict[str, Json]:
    """Return what decides how prompts are rendered, without loading the base's tokenizer."""
    templates = json.dumps(_templates(base), ensure_ascii=False)
    adds_own = "bos_token" not in templates and _may_add_tokens(base)
    # Gemma's has no end token, and Phi 3's another one before it.
    ends_own = not _has_end_token(base, templates) or "<|end|>" in templates
    return {
        "prompt_format": prompt.FORMAT,
        TEMPLATE: template_hash(base),
        **({"answer_start": ANSWER_START} if OWN_MARKS.search(templates) else {}),
        **({"special_tokens": "those of the template"} if adds_own else {}),
        **({"end": "that of the template"} if ends_own else {}),
    }


def _has_end_token(base: Path, templates: str) -> bool:
    end = _tokenizer_config(base).get("eos_token")
    text = end.get("content") if isinstance(end, dict) else end
    return not isinstance(text, str) or text in templates or "eos_token" in templates


def _tokenizer_config(base: Path) -> dict[str, Json]:
    path = base / "tokenizer_config.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _may_add_tokens(base: Path) -> bool:
    """Return whether the base's tokenizer may begin each text with a token of its own."""
    own = base / "tokenizer.json"
    return bool(_tokenizer_config(base).get("add_bos_token")) or (
        own.is_file() and '"SpecialToken"' in own.read_text()
    )


def example(tokenizer: "PreTrainedTokenizerBase", base: Path) -> dict[str, Json]:
    """Return an example prompt and answer, for a server of this base's adapters.

    Returns:
        ``form`` of the calls and the hash ``template``; a request's ``messages`` and ``tools``, its
        ``prompt`` text, and the model's ``answer`` text.
    """
    request = render(tokenizer, _PROBE_MESSAGES[:2], _PROBE_TOOLS)
    return {
        "form": request.form,
        "template": template_hash(base),
        "messages": [*_PROBE_MESSAGES[:2]],
        "tools": [dict(tool) for tool in _PROBE_TOOLS],
        "prompt": request.to_text(tokenizer),
        "answer": dialects.write_answer(request.form, prompt.read_message(_PROBE_MESSAGES[2])),
    }


def require_same(recorded: Json, current: str, action: str) -> None:
    """Check that an artifact's prompt template is the current one.

    Args:
        recorded: The hash in its manifest; ``None`` if missing.
        current: The hash of the template in use.
        action: What would be done with the artifact, for the message.

    Raises:
        TemplateChangedError: The hashes differ.
    """
    if recorded != current:
        raise TemplateChangedError(
            f"{action}: it was made with the prompt template {recorded or '(not recorded)'}, "
            f"but prompts are now rendered with {current}; make it again, or use the version of "
            "Flywheel and the base's chat template that it was made with"
        )


@lru_cache(maxsize=16)
def _form_of(tokenizer: "PreTrainedTokenizerBase", _: str) -> Dialect:
    for form in dialects.FORMS:
        if _supports(tokenizer, form):
            return form
    return "written"


def _supports(tokenizer: "PreTrainedTokenizerBase", form: Dialect) -> bool:
    """Check that a template renders a whole conversation, and its calls exactly in this form."""
    turns = _turns(form, _PROBE_MESSAGES)
    if not _renders_all(tokenizer, turns, _PROBE_TOOLS):
        return False
    ours: Message = {"role": "assistant", "content": dialects.write_answer(form, _PROBE_ANSWER)}
    calls: Json = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in _PROBE_ANSWER.calls
    ]
    theirs: dict[str, Json] = {"role": "assistant", "content": "", "tool_calls": calls}
    written = _try_template(tokenizer, [*turns, ours], _PROBE_TOOLS, answered=True)
    return written is not None and written == _try_template(
        tokenizer, [*turns, theirs], _PROBE_TOOLS, answered=True
    )


def _renders_all(
    tokenizer: "PreTrainedTokenizerBase",
    turns: Sequence[Message],
    tools: Sequence[Mapping[str, Json]],
) -> bool:
    """Check that the rendered text contains every message, tool name and argument name."""
    text = _try_template(tokenizer, turns, tools, answered=False)
    if text is None:
        return False
    contents = [turn["content"].strip() for turn in turns]
    # A part may be escaped as in JSON.
    return all(
        part in text or json.dumps(part, ensure_ascii=False)[1:-1] in text
        for part in [*contents, *_names(tools)]
    )


def _takes_answer(
    tokenizer: "PreTrainedTokenizerBase",
    turns: Sequence[Message],
    tools: Sequence[Mapping[str, Json]],
) -> bool:
    """Check that an answer to a tool's result continues its prompt: not with Hermes 2 Pro and 3."""
    if turns[-1]["role"] != "tool":
        return True
    answer: Message = {"role": "assistant", "content": "No"}
    try:
        answer_start.split_answer(tokenizer, turns, answer, tools)
    except answer_start.AnswerRefusedError:
        return False
    return True


def _accepted(tokenizer: "PreTrainedTokenizerBase", turns: list[Message]) -> list[Message]:
    """Return the turns as the template takes them; as they are if it takes none.

    Many demand that user and assistant alternate (Gemma, Mistral), some know no system message.
    """
    alternating = _joined(turns)
    ways = turns, alternating, _joined(_from_users(turns))
    taken = (way for way in ways if _try_template(tokenizer, way, (), answered=False) is not None)
    return next(taken, turns)


def _joined(turns: Iterable[Message]) -> list[Message]:
    """Join neighbouring turns of one role."""
    return [
        {"role": role, "content": "\n\n".join(turn["content"] for turn in group)}
        for role, group in groupby(turns, key=lambda turn: turn["role"])
    ]


def _from_users(turns: Iterable[Message]) -> list[Message]:
    """Turn the system message into a user's; one with nothing if an assistant comes first."""
    users: list[Message] = [
        {"role": "user", "content": turn["content"]} if turn["role"] == "system" else turn
        for turn in turns
    ]
    greets = bool(users) and users[0]["role"] == "assistant"
    return [{"role": "user", "content": ""}, *users] if greets else users


def _names(tools: Sequence[Mapping[str, Json]]) -> Iterable[str]:
    for tool in tools:
        match tool:
            case {"function": {"name": str(name), **function}}:
                yield name
            case _:
                raise ValueError(f"expected a tool with a `function` with a name, found {tool!r}")
        match function.get("parameters"):
            case {"properties": dict(properties)}:
                yield from properties
            case _:
                pass


def _try_template(
    tokenizer: "PreTrainedTokenizerBase",
    turns: Sequence[Mapping[str, Json]] | Sequence[Message],
    tools: Sequence[Mapping[str, Json]],
    *,
    answered: bool,
) -> str | None:
    """Apply the chat template; ``None`` if it raises, which is how templates reject input."""
    try:
        return prompt.to_text(tokenizer, turns, tools, answered=answered)
    except answer_start.REFUSED:
        return None


def _turns(form: Dialect, messages: Sequence[Mapping[str, Json]]) -> list[Message]:
    """Render messages like ``prompt``, but calls in the base's form and results with role tool."""
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
    """Read a base's chat templates in transformers' order: files first."""
    files = [*base.glob("chat_template.jinja"), *base.glob("additional_chat_templates/*.jinja")]
    if files:
        return {file.name: file.read_text() for file in sorted(files)}
    return _tokenizer_config(base).get("chat_template")


_PROBE_TOOLS: list[Mapping[str, Json]] = [
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

_PROBE_MESSAGES: list[dict[str, Json]] = [
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

_PROBE_ANSWER = Answer(calls=(Call("sound_depth", {"lake": "Blausee", "in_fathoms": True}),))
