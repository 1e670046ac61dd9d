"""Choose which rows of the training side to leave out, so that caps and token budgets hold."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from components.chat import prompt
from components.curate import split
from components.curate.settings import Balance
from components.schema import Answer, Message
from components.store import warehouse
from components.store.warehouse import Connection

AT_A_TIME = 2048
"""Examples that are counted together."""


class CountsTokens(Protocol):
    """What counts the tokens of conversations."""

    def count(self, conversations: Sequence[Sequence[Message]]) -> list[int]:
        """Count the tokens of each."""
        ...


@dataclass(frozen=True, slots=True)
class ExampleText:
    """What is counted of an example: JSON texts."""

    example_id: str
    messages: str
    tools: str
    answer: str


def count_texts(
    texts: Iterable[Sequence[ExampleText]], counter: CountsTokens
) -> Iterator[tuple[str, int]]:
    """Count batches of examples; prompt and answer apart, as a snapshot does, which then knows."""
    for batch in texts:
        asked = counter.count([_prompt(one) for one in batch])
        answered = counter.count([_answer(one) for one in batch])
        for one, before, after in zip(batch, asked, answered, strict=True):
            yield one.example_id, before + after


def in_batches(texts: Sequence[ExampleText]) -> Iterator[Sequence[ExampleText]]:
    """Give what is in memory already in batches."""
    for start in range(0, len(texts), AT_A_TIME):
        yield texts[start : start + AT_A_TIME]


def trainable(con: Connection, workload_id: str) -> Iterator[list[ExampleText]]:
    """Read the training side in batches, between which the connection is free to count."""
    after = ""
    while True:
        values: dict[str, warehouse.Value] = {"after": after, "rows": AT_A_TIME}
        read = warehouse.read(
            con, "marts/trainable_texts", ExampleText, workload_id=workload_id, **values
        )
        batch = list(read)
        if not batch:
            return
        yield batch
        after = batch[-1].example_id


def _prompt(text: ExampleText) -> list[Message]:
    return prompt.render_prompt_with_tools(json.loads(text.messages), text.tools)


def _answer(text: ExampleText) -> list[Message]:
    answer = prompt.render_answer(Answer.from_json(text.answer))
    return [{"role": "assistant", "content": answer}]


@dataclass(frozen=True, slots=True)
class Trainable:
    """One row of the training side; ``label`` is ``None`` where others say nothing like it.

    ``is_vouched``: people gave feedback on it. ``tokens`` counts only where a budget does.
    """

    example_id: str
    client_id: str
    label: str | None
    is_vouched: bool
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be taken; ``None`` is without bound."""

    rows: int | None
    tokens: int | None


def less(budget: Budget, rows: int, tokens: int) -> Budget:
    """Give what is left of a budget."""
    return Budget(
        None if budget.rows is None else budget.rows - rows,
        None if budget.tokens is None else budget.tokens - tokens,
    )


def leave_out(rows: Iterable[Trainable], balance: Balance, budget: Budget) -> dict[str, str]:
    """Give the objection against each row that is left out, by its id.

    Args:
        rows: The training side, in any order.
        balance: The caps, and the temperature of the budget.
        budget: What of the balance's budgets is left for these rows.
    """
    ordered = sorted(rows, key=lambda row: (not row.is_vouched, place(row.example_id)))
    objections = _over(ordered, balance.per_label, "over_label_cap", lambda row: row.label)
    left = [row for row in ordered if row.example_id not in objections]
    objections |= _over(left, balance.per_client, "over_client_cap", lambda row: row.client_id)
    left = [row for row in left if row.example_id not in objections]
    return objections | dict.fromkeys(_beyond(left, budget, balance.temperature), "over_budget")


def _over(
    rows: Iterable[Trainable],
    cap: int | None,
    objection: str,
    kind: Callable[[Trainable], str | None],
) -> dict[str, str]:
    """Object to the rows of each kind that come after so many others of it."""
    if cap is None:
        return {}
    taken: Counter[str] = Counter()
    over: dict[str, str] = {}
    for row in rows:
        if (name := kind(row)) is not None:
            taken[name] += 1
            if taken[name] > cap:
                over[row.example_id] = objection
    return over


def place(row_id: str) -> tuple[float, str]:
    """Give a row's place in the order in which rows are taken; it depends on the id alone."""
    return split.side_by_hash(f"balance {row_id}"), row_id


def _beyond(rows: Sequence[Trainable], budget: Budget, temperature: float) -> list[str]:
    """List the ids of the rows that the budget has no room for.

    Clients take turns as parties do for seats by the method of Sainte-Lague: the row whose middle
    stands at the smallest multiple of its client's weight is next. So each has its part at every
    point, a client with fewer rows than its part leaves the rest to the others, and what is taken
    of each is the beginning of its order.
    """
    if budget.rows is None and budget.tokens is None:
        return []
    queue = _in_turns(rows, temperature, by_tokens=budget.tokens is not None)
    tokens, taken = 0, 0
    for row in queue:
        tokens += row.tokens
        is_full = budget.rows is not None and taken >= budget.rows
        if is_full or (budget.tokens is not None and tokens > budget.tokens):
            break
        taken += 1
    return [row.example_id for row in queue[taken:]]


def _in_turns(rows: Sequence[Trainable], temperature: float, *, by_tokens: bool) -> list[Trainable]:
    size: dict[str, int] = {row.example_id: row.tokens if by_tokens else 1 for row in rows}
    weights = _weights(rows, size, temperature)
    before: defaultdict[str, int] = defaultdict(int)
    turns: list[tuple[float, str, int]] = []
    for number, row in enumerate(rows):
        middle = before[row.client_id] + size[row.example_id] / 2
        turns.append((middle / weights[row.client_id], row.client_id, number))
        before[row.client_id] += size[row.example_id]
    return [rows[number] for _, _, number in sorted(turns)]


def _weights(
    rows: Sequence[Trainable], size: Mapping[str, int], temperature: float
) -> dict[str, float]:
    whole: Counter[str] = Counter()
    for row in rows:
        whole[row.client_id] += size[row.example_id]
    return {client: max(1, total) ** (1 / temperature) for client, total in whole.items()}
