"""Judge rows of other sets as if they had been logged, and keep those that spoil no test."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from components import prompt, warehouse
from components.curate.balance import counting, replay
from components.curate.balance.counting import Counts, Text
from components.curate.balance.replay import Replayed, SpokenFor
from components.curate.candidate import Row
from components.curate.judgement import Judgement
from components.curate.near import clusters, requests
from components.curate.near.requests import Request
from components.curate.overlap import decontaminate
from components.curate.overlap.decontaminate import Asked
from components.curate.placing import Member
from components.curate.redaction.keyring import Keyring
from components.curate.redaction.stand_ins import Marked
from components.curate.settings import Rules
from components.curate.split import SplitBy
from components.schema import Answer
from components.warehouse import Connection

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""When replayed rows were logged: their sets don't all say."""

Judge = Callable[[Row], Judgement]


@dataclass(frozen=True, slots=True)
class Incoming:
    """One row of another set that may be trained on, redacted: JSON texts, and what they are.

    The texts have placeholders until they are ``stored``; ``marked`` says what stands there.
    """

    example_id: str
    messages: str
    tools: str
    answer: str
    request: Request
    member: Member
    tool_names: tuple[str, ...]
    weight: float
    language: str | None
    tokens: int = 0
    marked: Marked | None = None


def read(con: Connection, workload_id: str, rules: Rules, judge: Judge) -> list[Incoming]:
    """Give the rows that may be replayed, in the order in which they are taken.

    Those that rules object to, that the workload has itself, or that are near to what is tested or
    validated on, overlap with it or with a guard task's documents, or have a group or, split by
    tools, a tool in common with it, are not among them.
    """
    if rules.balance.replay is None:
        return []
    spoken_for = _spoken_for(con, workload_id, rules.split_by)
    judged = (_judged(workload_id, one, judge) for one in replay.read(rules.balance.replay.sources))
    found = [
        one
        for one in judged
        if one is not None
        and not spoken_for.forbids(one.messages, one.tools, one.member.ties, one.tool_names)
    ]
    asked = {one.example_id: one.request for one in found}
    tested = _tested(con, workload_id)
    compared = requests.compare([*tested.values(), *asked.values()])
    words = [one.words for one in compared]
    held_out = dict(zip(tested, words[: len(tested)], strict=True))
    ours = dict(zip(asked, words[len(tested) :], strict=True))
    near = _near(ours, held_out, rules.near.jaccard)
    rows = {name: Asked(ours[name], "\n".join(one.turns)) for name, one in asked.items()}
    seen = decontaminate.decontaminate(rows, held_out, rules.overlap)
    return [one for one in found if one.example_id not in near | seen.keys()]


def stored(one: Incoming, keyring: Keyring) -> Incoming:
    """Give a row as it is trained on, with surrogates where the workload wants them."""
    if one.marked is None or not keyring.is_used:
        return one
    texts = keyring.write(one.example_id, one.marked)
    return replace(
        one,
        messages=texts.get("messages", one.messages),
        tools=texts.get("tools", one.tools),
        answer=texts["answer"],
        marked=None,
    )


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
        "cluster_id": None,
        "side": "train",
        "label": one.member.label,
        "language": one.language,
        "tool_names": list(one.tool_names),
        "messages": one.messages,
        "tools": one.tools,
        "answer": one.answer,
        "acceptable": None,
        "logged_answer": None,
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
    if judged.member is None or judged.answer is None:
        return None
    if judged.rewritten is None or judged.request is None:
        return None
    return Incoming(
        one.replay_id,
        judged.rewritten.messages or one.messages,
        judged.rewritten.tools or one.tools,
        judged.answer,
        judged.request,
        judged.member,
        judged.tool_names,
        judged.screened.weight,
        judged.language,
        marked=judged.rewritten.marked,
    )


def _near(incoming: Mapping[str, str], tested: Mapping[str, str], jaccard: float) -> set[str]:
    """Find the rows whose words are near to those of a tested row, directly or through others."""
    ids, words = [*tested, *incoming], [*tested.values(), *incoming.values()]
    found = dict(zip(ids, clusters.find(ids, words, jaccard).cluster_ids, strict=True))
    forbidden = {found[example_id] for example_id in tested}
    return {example_id for example_id in incoming if found[example_id] in forbidden}


def _tested(con: Connection, workload_id: str) -> dict[str, Request]:
    """Give what is tested or validated on, as near-duplicates are told by."""
    rows = con.execute(
        "select example_id, any_value(redacted.messages), any_value(redacted.tools)"
        " from curated.examples as examples"
        " inner join staging.redacted as redacted using (example_id)"
        " where workload_id = $workload_id and side != 'train'"
        " group by example_id order by example_id",
        {"workload_id": workload_id},
    ).fetchall()
    return {
        example_id: requests.read(
            prompt.render_prompt(json.loads(messages), []), [], tools, Answer()
        )
        for example_id, messages, tools in rows
    }


def _spoken_for(con: Connection, workload_id: str, split_by: SplitBy) -> SpokenFor:
    values = {"workload_id": workload_id}
    requests = con.execute(
        "select distinct redacted.messages, redacted.tools from curated.examples as examples"
        " inner join staging.redacted as redacted using (example_id)"
        " where workload_id = $workload_id",
        values,
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
        " where workload_id = $workload_id and side != 'train' and $split_by = 'tools'",
        {**values, "split_by": split_by},
    ).fetchall()
    return SpokenFor(
        frozenset(replay.request_key(*texts) for texts in requests),
        frozenset(tie for (tie,) in ties),
        frozenset(name for (name,) in tools),
    )
