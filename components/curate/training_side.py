"""Apply caps, budget and replay to the curated tables."""

from collections.abc import Mapping
from dataclasses import replace

from components.curate import replay, row_budget
from components.curate.redaction.surrogate_keys import Keyring
from components.curate.replay import Judge
from components.curate.row_budget import Budget, CountsTokens, Trainable
from components.curate.settings import Balance, Rules
from components.store import warehouse
from components.store.warehouse import Connection


class NoTokenizerError(ValueError):
    """Raised when a token budget is set without a token counter."""


def apply(
    con: Connection,
    workload_id: str,
    rules: Rules,
    *,
    judge: Judge,
    counter: CountsTokens | None,
    keyring: Keyring,
) -> int:
    """Apply the workload's balance to the built examples of its training side.

    Replayed rows are judged like logged ones, have surrogates of the keyring, and do not overlap
    with a tested row. Returns their number.

    Raises:
        NoTokenizerError: A token budget is set and ``counter`` is ``None``.
        ReplayError: A replay source is unreadable.
    """
    balance = rules.balance
    if balance == Balance():
        return 0
    if balance.max_tokens is not None and counter is None:
        raise NoTokenizerError(
            f"balancing {workload_id}: max_tokens needs the base's tokenizer.json, which is "
            "missing; save its tokenizer as a fast one, or set max_rows"
        )
    counts = counter if balance.max_tokens is not None else None
    rows = list(warehouse.read(con, "marts/trainable", Trainable, workload_id=workload_id))
    if counts is not None:
        tokens = dict(row_budget.count_texts(row_budget.trainable(con, workload_id), counts))
        rows = [replace(row, tokens=tokens[row.example_id]) for row in rows]
    share = balance.replay.share if balance.replay else 0.0
    replayable = replay.replayable_rows(con, workload_id, rules, judge)
    others = [replay.stored(row, keyring) for row in replayable]
    if counts is not None:
        others = replay.with_tokens(others, counts)
    whole = Budget(balance.max_rows, balance.max_tokens)
    reserved = replay.reserve([row.tokens for row in others], share, whole)
    own = row_budget.less(whole, reserved, sum(row.tokens for row in others[:reserved]))
    objections = row_budget.leave_out(rows, balance, own)
    _leave_out(con, workload_id, objections)
    chosen = others[: min(reserved, replay.replay_count(len(rows) - len(objections), share))]
    examples = [replay.example(workload_id, rules.split_by, row) for row in chosen]
    warehouse.insert(con, "curated.examples", examples)
    return len(chosen)


def _leave_out(con: Connection, workload_id: str, objections: Mapping[str, str]) -> None:
    if not objections:
        return
    columns = {"example_id": [*objections], "objection": [*objections.values()]}
    named = {"workload_id": workload_id}
    with warehouse.present(con, "left_out", columns):
        con.execute(_OBJECT, named)
        con.execute(
            "delete from curated.examples where workload_id = $workload_id"
            " and example_id in (select example_id from left_out)",
            named,
        )


_OBJECT = """
    update curated.verdicts
    set objection = gone.objection
    from (
        select
            unnest(examples.interaction_ids) as interaction_id,
            left_out.objection
        from left_out
        inner join curated.examples as examples using (example_id)
        where examples.workload_id = $workload_id
    ) as gone
    where verdicts.interaction_id = gone.interaction_id and verdicts.objection is null
"""
