"""Leave rows out of the training side, so that caps and budgets hold.

Rows are taken in an order of their own: those that a person gave feedback on first, then by the
hash of their id. So the rows taken of a label or client are always the first of that order; a row
once taken gives way only to one that comes before it, or because its client's part has become
smaller, never because others arrived in another order.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from components.curate import split
from components.curate.balance.settings import Balance


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
    return split.by_hash(f"balance {row_id}"), row_id


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
