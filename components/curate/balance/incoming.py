"""Judge rows of other sets as if they had been logged, and keep those that spoil no test."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from components import warehouse
from components.curate.balance import counting, replay
from components.curate.balance.counting import Counts, Text
from components.curate.balance.replay import Replayed, SpokenFor
from components.curate.balance.settings import Replay
from components.curate.candidate import Row
from components.curate.judgement import Judgement
from components.curate.placing import Member
from components.curate.split import SplitBy
from components.warehouse import Connection

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""When replayed rows were logged: their sets don't all say."""

Judge = Callable[[Row], Judgement]


@dataclass(frozen=True, slots=True)
class Incoming:
    """One row of another set that may be trained on, redacted: JSON texts, and what they are."""

    example_id: str
    messages: str
    tools: str
    answer: str
    member: Member
    tool_names: tuple[str, ...]
    weight: float
    tokens: int = 0


def read(
    con: Connection, workload_id: str, wanted: Replay, split_by: SplitBy, judge: Judge
) -> list[Incoming]:
    """Give the rows that may be replayed, in the order in which they are taken.

    Those that rules object to, that the workload has itself, or that have a group or, split by
    tools, a tool in common with what is tested or validated on are not among them.
    """
    spoken_for = _spoken_for(con, workload_id, split_by)
    judged = (_judged(workload_id, one, judge) for one in replay.read(wanted.sources))
    return [
        one
        for one in judged
        if one is not None
        and not spoken_for.forbids(one.messages, one.tools, one.member.ties, one.tool_names)
    ]


def with_tokens(incoming: list[Incoming], counter: Counts) -> list[Incoming]:
    """Give the rows with their tokens counted."""
    texts = [Text(one.example_id, one.messages, one.tools, one.answer) for one in incoming]
    tokens = dict(counting.counted(counting.in_batches(texts), counter))
    return [replace(one, tokens=tokens[one.example_id]) for one in incoming]


def example(workload_id: str, split_by: SplitBy, one: Incoming) -> dict[str, warehouse.Value]:
    """Give a row of ``curated.examples``; its id says that it is replayed."""
    return {
        "example_id": one.example_id,
        "workload_id": workload_id,
        "client_id": "replay",
        "logged_at": NEVER,
        "split_by": split_by,
        "group_id": one.member.ties[1],
        "side": "train",
        "label": one.member.label,
        "tool_names": list(one.tool_names),
        "messages": one.messages,
        "tools": one.tools,
        "answer": one.answer,
        "acceptable": None,
        "weight": one.weight,
        "interaction_ids": [],
        "feedback_ids": [],
    }


def _judged(workload_id: str, one: Replayed, judge: Judge) -> Incoming | None:
    row = Row(
        interaction_id=one.replay_id,
        workload_id=workload_id,
        example_id=one.replay_id,
        logged_at=NEVER,
        conversation_id=None,
        user_id=None,
        messages=one.messages,
        tools=one.tools,
        message=one.message,
        finish_reason=None,
        is_corrected=False,
        acceptable=None,
    )
    judged = judge(row)
    if judged.member is None or judged.answer is None or judged.rewritten is None:
        return None
    return Incoming(
        one.replay_id,
        judged.rewritten.messages or one.messages,
        judged.rewritten.tools or one.tools,
        judged.answer,
        judged.member,
        judged.tool_names,
        judged.screened.weight,
    )


def _spoken_for(con: Connection, workload_id: str, split_by: SplitBy) -> SpokenFor:
    values = {"workload_id": workload_id}
    requests = con.execute(
        "select messages, tools from curated.examples where workload_id = $workload_id", values
    ).fetchall()
    ties = con.execute(
        "select unnest(ties) from curated.standings"
        " where workload_id = $workload_id and side != 'train'"
        " union select group_id from curated.sides"
        " where workload_id = $workload_id and side != 'train'",
        values,
    ).fetchall()
    tools = con.execute(
        "select distinct unnest(tool_names) from curated.examples"
        " where workload_id = $workload_id and side = 'holdout' and $split_by = 'tools'",
        {**values, "split_by": split_by},
    ).fetchall()
    return SpokenFor(
        frozenset(replay.request_key(*texts) for texts in requests),
        frozenset(tie for (tie,) in ties),
        frozenset(name for (name,) in tools),
    )
