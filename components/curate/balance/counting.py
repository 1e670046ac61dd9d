"""Count the tokens of examples, against a budget of them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from components import offered, prompt, warehouse
from components.schema import Answer, Message
from components.warehouse import Connection

AT_A_TIME = 2048
"""Examples that are counted together."""


class Counts(Protocol):
    """What counts the tokens of conversations."""

    def count(self, conversations: Sequence[Sequence[Message]]) -> list[int]:
        """Count the tokens of each."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """What is counted of an example: JSON texts."""

    example_id: str
    messages: str
    tools: str
    answer: str


def counted(texts: Iterable[Sequence[Text]], counter: Counts) -> Iterator[tuple[str, int]]:
    """Count batches of examples; prompt and answer apart, as a snapshot does, which then knows."""
    for batch in texts:
        asked = counter.count([_prompt(one) for one in batch])
        answered = counter.count([_answer(one) for one in batch])
        for one, before, after in zip(batch, asked, answered, strict=True):
            yield one.example_id, before + after


def in_batches(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """Give what is in memory already in batches."""
    for start in range(0, len(texts), AT_A_TIME):
        yield texts[start : start + AT_A_TIME]


def trainable(con: Connection, workload_id: str) -> Iterator[list[Text]]:
    """Read the training side in batches, between which the connection is free to count."""
    after = ""
    while True:
        values: dict[str, warehouse.Value] = {"after": after, "rows": AT_A_TIME}
        read = warehouse.read(con, "marts/trainable_texts", Text, workload_id=workload_id, **values)
        batch = list(read)
        if not batch:
            return
        yield batch
        after = batch[-1].example_id


def _prompt(text: Text) -> list[Message]:
    return offered.render_prompt(json.loads(text.messages), text.tools)


def _answer(text: Text) -> list[Message]:
    answer = prompt.render_answer(Answer.from_json(text.answer))
    return [{"role": "assistant", "content": answer}]
