"""What is learned at once: one answer, or several that only mean something together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from components import prompt
from components.schema import Json, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Tokens:
    """One request and answer as token ids; the last ``answer_length`` of them are what is learned.

    ``may_call``: the request offers tools, so that the answer's first token decides on a call.
    ``earlier`` are the places, first and one past the last, of earlier answers to learn.
    """

    input_ids: list[int]
    answer_length: int
    weight: float
    may_call: bool = False
    earlier: list[Sequence[int]] = field(default_factory=list[Sequence[int]])

    @property
    def prompt_length(self) -> int:
        """The tokens before the answer."""
        return len(self.input_ids) - self.answer_length

    @property
    def learned(self) -> list[Sequence[int]]:
        """The places of all answers to learn."""
        return [*self.earlier, (self.prompt_length, len(self.input_ids))]


@dataclass(frozen=True, slots=True)
class Lesson:
    """An answer; the chosen and the rejected answer of a pair; or an answer with a label.

    ``row_id`` is that of the snapshot's row, which errors name.
    """

    rows: list[Tokens]
    row_id: str
    is_good: bool = True

    @property
    def length(self) -> int:
        """The tokens of its longest row."""
        return max(len(row.input_ids) for row in self.rows)


def tokenize(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    completion: Sequence[Message],
    weight: float,
    *,
    tools: Sequence[Mapping[str, Json]] = (),
    may_call: bool = False,
    every_answer: bool = False,
) -> Tokens:
    """Tokenize prompt and answer apart, as they are when the model answers: nothing merges.

    Args:
        tokenizer: The base's.
        messages: The request as rendered.
        completion: The answer as rendered, one message.
        weight: How much the answer counts.
        tools: Those that the chat template itself writes.
        may_call: The request offers tools.
        every_answer: Learn the request's own assistant turns as well.

    Raises:
        ValueError: The chat template writes the prompt differently once an answer follows.
    """
    turns = [*messages, *completion]
    answers = [len(messages)]
    if every_answer:
        answers = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    ids: list[int] = []
    places: list[Sequence[int]] = []
    written = ""
    for place in answers:
        before = prompt.to_text(tokenizer, turns[:place], tools)
        whole = prompt.to_text(tokenizer, turns[: place + 1], tools, answered=True)
        for text, longer in ((written, before), (before, whole)):
            if not longer.startswith(text):
                raise ValueError(
                    f"the chat template of {tokenizer.name_or_path} rewrites the prompt when an "
                    f"answer follows: {text[-80:]!r} is not how {longer[: len(text)][-80:]!r} ends"
                )
        answer = whole[len(before) :].rstrip("\n")
        ids += tokenizer(before[len(written) :], add_special_tokens=False).input_ids
        start = len(ids)
        ids += tokenizer(answer, add_special_tokens=False).input_ids
        places.append((start, len(ids)))
        written = before + answer
    return Tokens(ids, len(ids) - places[-1][0], weight, may_call, places[:-1])
