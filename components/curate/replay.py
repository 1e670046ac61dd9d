"""Rows of other data sets to train on, judged like logged ones; none that the holdout forbids."""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq

from components.chat import prompt
from components.curate import decontamination, row_budget
from components.curate import interaction as candidates
from components.curate.decontamination import UserTexts
from components.curate.interaction import CandidateRow
from components.curate.near import duplicates, near_requests
from components.curate.near.near_requests import NearRequest
from components.curate.redaction.surrogate_keyring import Keyring, Marked
from components.curate.row_budget import Budget, CountsTokens, ExampleText
from components.curate.row_judgement import RowJudgement
from components.curate.settings import Rules, SplitBy
from components.curate.split import Member
from components.schema import Answer, Json
from components.store import manifest, warehouse
from components.store.warehouse import Connection

PREFIX = "replay-"
"""How the ids of replayed rows begin."""

COLUMNS = ["messages", "tools", "answer"]


class ReplayError(ValueError):
    """A source of replayed rows that can't be read."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One row of another set: a request, its tools and the answer to it, as JSON text."""

    replay_id: str
    messages: str
    tools: str
    message: str


def read_replayed(sources: Sequence[Path]) -> list[Replayed]:
    """Read the rows of all sources, each once, in the order in which they are taken.

    Raises:
        ReplayError: A source is not there, or has not the form of one.
    """
    found = {row.replay_id: row for source in sources for row in _read(source)}
    return [found[replay_id] for replay_id in sorted(found, key=row_budget.place)]


def request_key(messages: str, tools: str) -> str:
    """Name a request by its content, however its JSON is written."""
    return manifest.digest([candidates.loads(messages), candidates.loads(tools)])


def _read(source: Path) -> Iterator[Replayed]:
    try:
        if source.is_dir():
            yield from _parquet(source / "train.parquet")
        elif source.suffix == ".parquet":
            yield from _parquet(source)
        else:
            yield from _lines(source)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ReplayError(
            f"replaying {source}: {error}; wants a snapshot folder, a Parquet file with the "
            f"columns {', '.join(COLUMNS)}, or JSONL of messages that end in the assistant's"
        ) from error


def _parquet(path: Path) -> Iterator[Replayed]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=COLUMNS):
            for row in batch.to_pylist():
                yield _replayed(row["messages"], row["tools"], _message(row["answer"]))


def _lines(path: Path) -> Iterator[Replayed]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for line in filter(str.strip, file):
            row = cast("dict[str, Json]", json.loads(line))
            match row["messages"]:
                case [*messages, {"role": "assistant"} as message] if messages:
                    texts = (messages, row.get("tools") or [], message)
                    yield _replayed(*(json.dumps(one, ensure_ascii=False) for one in texts))
                case _:
                    raise ValueError(f"messages {str(row['messages'])[:80]!r} end in no answer")


def _message(answer: str) -> str:
    """Write an answer of a snapshot as the assistant message that it was."""
    read = Answer.from_json(answer)
    calls = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in read.calls
    ]
    message = {"role": "assistant", "content": read.text or None}
    return json.dumps(message | ({"tool_calls": calls} if calls else {}), ensure_ascii=False)


def _replayed(messages: str, tools: str, message: str) -> Replayed:
    key = manifest.digest([messages, tools, message])
    return Replayed(PREFIX + key, messages, tools, message)


@dataclass(frozen=True, slots=True)
class SpokenFor:
    """What no replayed row may share with the workload's own.

    ``requests`` are all that it has, by ``request_key``; ``ties`` those of the rows that are tested
    or validated on; ``tools`` the names of those that such rows offer, where it is split by them.
    """

    requests: frozenset[str]
    ties: frozenset[str]
    tools: frozenset[str]

    def forbids(
        self, messages: str, tools: str, ties: Sequence[str], tool_names: Sequence[str]
    ) -> bool:
        """Tell whether a row shares any of it."""
        return (
            not self.ties.isdisjoint(ties)
            or not self.tools.isdisjoint(tool_names)
            or request_key(messages, tools) in self.requests
        )


def reserve(tokens: Sequence[int], share: float, budget: Budget) -> int:
    """Count the rows, the first ones, that have room in their share of the budget.

    Args:
        tokens: The tokens of each row; zeros where no budget counts them.
        share: Of the budget, for replayed rows.
        budget: Of all that is trained on.
    """
    rows = len(tokens) if budget.rows is None else min(len(tokens), int(budget.rows * share))
    if budget.tokens is None:
        return rows
    room = budget.tokens * share
    return sum(1 for total in accumulate(tokens[:rows]) if total <= room)


def wanted(own_rows: int, share: float) -> int:
    """Count the rows to replay beside so many of the workload's own."""
    return round(own_rows * share / (1 - share))


NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""When replayed rows were logged: their sets don't all say."""

Judge = Callable[[CandidateRow], RowJudgement]


@dataclass(frozen=True, slots=True)
class Incoming:
    """One row of another set that may be trained on, redacted: JSON texts, and what they are.

    The texts have placeholders until they are ``stored``; ``marked`` says what stands there.
    """

    example_id: str
    messages: str
    tools: str
    answer: str
    request: NearRequest
    member: Member
    tool_names: tuple[str, ...]
    weight: float
    language: str | None
    tokens: int = 0
    marked: Marked | None = None


def replayable_rows(
    con: Connection, workload_id: str, rules: Rules, judge: Judge
) -> list[Incoming]:
    """Give the rows that may be replayed, in the order in which they are taken.

    Those that rules object to, that the workload has itself, or that are near to what is tested or
    validated on, overlap with it or with a guard task's documents, or have a group or, split by
    tools, a tool in common with it, are not among them.
    """
    if rules.balance.replay is None:
        return []
    spoken_for = _spoken_for(con, workload_id, rules.split_by)
    judged = (
        _judged(workload_id, one, judge) for one in read_replayed(rules.balance.replay.sources)
    )
    found = [
        one
        for one in judged
        if one is not None
        and not spoken_for.forbids(one.messages, one.tools, one.member.ties, one.tool_names)
    ]
    asked = {one.example_id: one.request for one in found}
    tested = _tested(con, workload_id)
    compared = near_requests.compare([*tested.values(), *asked.values()])
    words = [one.words for one in compared]
    held_out = dict(zip(tested, words[: len(tested)], strict=True))
    ours = dict(zip(asked, words[len(tested) :], strict=True))
    near = _near(ours, held_out, rules.near.jaccard)
    rows = {name: UserTexts(ours[name], "\n".join(one.turns)) for name, one in asked.items()}
    seen = decontamination.decontaminate(rows, held_out, rules.overlap)
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


def with_tokens(incoming: list[Incoming], counter: CountsTokens) -> list[Incoming]:
    """Give the rows with their tokens counted."""
    texts = [ExampleText(one.example_id, one.messages, one.tools, one.answer) for one in incoming]
    tokens = dict(row_budget.count_texts(row_budget.in_batches(texts), counter))
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
    row = CandidateRow(
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
    found = dict(zip(ids, duplicates.find_clusters(ids, words, jaccard).cluster_ids, strict=True))
    forbidden = {found[example_id] for example_id in tested}
    return {example_id for example_id in incoming if found[example_id] in forbidden}


def _tested(con: Connection, workload_id: str) -> dict[str, NearRequest]:
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
        example_id: near_requests.read(
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
        frozenset(request_key(*texts) for texts in requests),
        frozenset(tie for (tie,) in ties),
        frozenset(name for (name,) in tools),
    )
