"""Choose the training rows to leave out so that caps and budgets hold."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from components.chat import prompt
from components.curate import split
from components.curate.settings import Balance
from components.schema import Answer, Message, parse_json
from components.store import warehouse
from components.store.warehouse import Connection

COUNT_BATCH = 2048  # examples counted together


class CountsTokens(Protocol):
    """A token counter."""

    def count(self, conversations: Sequence[Sequence[Message]]) -> list[int]:
        """Return the tokens of each conversation."""
        ...


@dataclass(frozen=True, slots=True)
class ExampleText:
    """The counted texts of an example, as JSON."""

    example_id: str
    messages: str
    tools: str
    answer: str


def count_texts(
    texts: Iterable[Sequence[ExampleText]], counter: CountsTokens
) -> Iterator[tuple[str, int]]:
    """Yield each example's id and tokens.

    Prompt and answer are counted separately, as a snapshot does, which then finds them cached.
    """
    for batch in texts:
        prompts = [
            prompt.render_prompt_with_tools(parse_json(text.messages), text.tools) for text in batch
        ]
        answers: list[list[Message]] = [
            [{"role": "assistant", "content": prompt.render_answer(Answer.from_json(text.answer))}]
            for text in batch
        ]
        asked, answered = counter.count(prompts), counter.count(answers)
        for text, before, after in zip(batch, asked, answered, strict=True):
            yield text.example_id, before + after


def in_batches(texts: Sequence[ExampleText]) -> Iterator[Sequence[ExampleText]]:
    """Split loaded texts into batches."""
    for start in range(0, len(texts), COUNT_BATCH):
        yield texts[start : start + COUNT_BATCH]


def trainable(con: Connection, workload_id: str) -> Iterator[list[ExampleText]]:
    """Read the training side in batches; the connection is free for counting between them."""
    after = ""
    while True:
        values = {"workload_id": workload_id, "after": after, "rows": COUNT_BATCH}
        batch = list(warehouse.read(con, "marts/trainable_texts", ExampleText, **values))
        if not batch:
            return
        yield batch
        after = batch[-1].example_id


@dataclass(frozen=True, slots=True)
class Trainable:
    """One row of the training side; ``label`` is ``None`` for free text.

    ``is_vouched``: people gave feedback on it. ``tokens`` is 0 without a token budget.
    """

    example_id: str
    client_id: str
    label: str | None
    is_vouched: bool
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """Maximum rows and tokens; ``None`` is unlimited."""

    rows: int | None
    tokens: int | None


def less(budget: Budget, rows: int, tokens: int) -> Budget:
    """Return the budget minus rows and tokens."""
    return Budget(
        None if budget.rows is None else budget.rows - rows,
        None if budget.tokens is None else budget.tokens - tokens,
    )


def leave_out(rows: Iterable[Trainable], balance: Balance, budget: Budget) -> dict[str, str]:
    """Return the objection to each row left out, by example id; rows are in any order.

    ``budget`` is what remains for these rows.
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
    """Return the sort key by which rows are taken; it depends on the id alone."""
    return split.side_by_hash(f"balance {row_id}"), row_id


def _beyond(rows: Sequence[Trainable], budget: Budget, temperature: float) -> list[str]:
    """Return the ids of the rows beyond the budget.

    Clients take turns as parties do for seats by the Sainte-Lague method: the next row is the one
    whose middle is at the smallest multiple of its client's weight. So every prefix of the queue is
    proportional, a client with fewer rows than its part leaves the rest to the others, and each
    client keeps a prefix of its own order.
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
    whole: Counter[str] = Counter()
    for row in rows:
        whole[row.client_id] += size[row.example_id]
    weights = {client: max(1, total) ** (1 / temperature) for client, total in whole.items()}
    before: defaultdict[str, int] = defaultdict(int)
    turns: list[tuple[float, str, int]] = []
    for number, row in enumerate(rows):
        middle = before[row.client_id] + size[row.example_id] / 2
        turns.append((middle / weights[row.client_id], row.client_id, number))
        before[row.client_id] += size[row.example_id]
    return [rows[number] for _, _, number in sorted(turns)]
