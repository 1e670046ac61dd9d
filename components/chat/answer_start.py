r"""Find what a base's chat template writes between a prompt and the answer, and after it.

Templates of bases that think end a prompt within a thought (Qwen 3.5: ``<think>\n``), write an
empty one before each answer (Qwen 3), or leave the channel to the model (gpt-oss). Answers are
learned and measured without thoughts, so a prompt goes on to where the answer's own text begins.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from components.chat import prompt
from components.schema import Json, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFUSED = (TemplateError, TypeError, ValueError)
"""What templates raise to reject a conversation."""

OWN_MARKS = re.compile("think|channel", re.IGNORECASE)
"""What a template writes between a prompt and the answer has one of these."""

_WHOLE_THOUGHT = re.compile(r"\s*<think>\s*</think>\s*")
_OPEN_THOUGHT = re.compile(r"<think>\s*$")
_EMPTY_THOUGHT = re.compile(r"(<think>\s*</think>|<\|channel>thought\s*<channel\|>)\s*$")
_END_OF_THOUGHT = "\n</think>\n\n"

_REQUEST: list[Message] = [{"role": "user", "content": "How deep is it?"}]
_PROBE = "Walensee"


def after_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Json]],
    text: str,
) -> str:
    """Return what stands between a prompt's ``text`` and the answer's own; nearly always nothing.

    Args:
        tokenizer: The base's.
        messages: The rendered request.
        tools: The tools that the template renders.
        text: The prompt, up to where the template lets the model begin.
    """
    if not _has_own_start(tokenizer, json.dumps(tokenizer.chat_template)):
        return ""
    start = _answer_start(tokenizer, messages, tools)
    if start is not None and start.startswith(text):
        rest = start[len(text) :]
        return rest if OWN_MARKS.search(rest) else ""
    return _END_OF_THOUGHT if _OPEN_THOUGHT.search(text) else ""


def is_whole_thought(rest: str) -> bool:
    """Return whether a model itself may begin its answer with this text, an empty thought."""
    return _WHOLE_THOUGHT.fullmatch(rest) is not None


def end_of_answers(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return what the template ends an answer with, which is learned; else the end token's text.

    They differ in Gemma (``<end_of_turn>`` and ``<eos>``) and Phi 3.
    """
    probe: Message = {"role": "assistant", "content": _PROBE}
    try:
        text = prompt.to_text(tokenizer, [*_REQUEST, probe], answered=True)
    except REFUSED:
        text = ""
    _, _, end = text.rpartition(_PROBE)
    return end.rstrip("\n") or str(tokenizer.eos_token or "")


class AnswerRefusedError(ValueError):
    """Raised where a chat template takes no answer to a request, or rewrites the request for it."""


def split_answer(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    answer: Message,
    tools: Sequence[Mapping[str, Json]],
) -> tuple[str, str]:
    """Return a prompt's text, and what is to be learned after it: the answer up to its end.

    Raises:
        AnswerRefusedError: The template takes no answer, or renders the prompt differently if one
            follows.
    """
    try:
        before = prompt.to_text(tokenizer, messages, tools)
        whole = prompt.to_text(tokenizer, [*messages, answer], tools, answered=True)
    except REFUSED as error:
        raise AnswerRefusedError(
            f"the chat template of {_name(tokenizer)} refuses an answer: {error}"
        ) from error
    if whole.startswith(before):
        return before, whole[len(before) :]
    # Many only begin a thought where the model is to answer, and none before an answer that is
    # there (DeepSeek-R1), or an empty one of another form (Nemotron).
    rest = after_prompt(tokenizer, messages, tools, before)
    thought = _EMPTY_THOUGHT.search(before + rest)
    start = _answer_start(tokenizer, messages, tools)
    if thought and start is not None and whole.startswith(start):
        common = before[: thought.start()]
        if start.startswith(common) and not re.sub(r"</?think>|\s", "", start[len(common) :]):
            return before, rest + whole[len(start) :]
    raise AnswerRefusedError(
        f"the chat template of {_name(tokenizer)} rewrites the prompt when an answer "
        f"follows: {before[-80:]!r} is not how {whole[: len(before)][-80:]!r} ends"
    )


def _name(tokenizer: "PreTrainedTokenizerBase") -> str:
    return str(getattr(tokenizer, "name_or_path", "the base"))  # the gateway's has none


@lru_cache(maxsize=16)
def _has_own_start(tokenizer: "PreTrainedTokenizerBase", _: str) -> bool:
    try:
        text = prompt.to_text(tokenizer, _REQUEST)
    except REFUSED:
        return True  # it may take other conversations
    return _answer_start(tokenizer, _REQUEST, ()) != text


def _answer_start(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Json]],
) -> str | None:
    """Return a conversation's text up to the text of an answer that follows."""
    probe: Message = {"role": "assistant", "content": _PROBE}
    try:
        text = prompt.to_text(tokenizer, [*messages, probe], tools, answered=True)
    except REFUSED:
        return None
    start, found, _ = text.rpartition(_PROBE)
    return start if found else None
