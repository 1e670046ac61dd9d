"""Replay rows of other data sets in training, judged like logged ones and kept off the holdout."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.chat import prompt
from components.curate import decontamination, interaction, row_budget
from components.curate.decontamination import AskedTexts
from components.curate.interaction import CandidateRow
from components.curate.near import duplicates, hashed_words, request_columns, request_words
from components.curate.near.hashed_words import DigestedWords
from components.curate.near.request_columns import NearRequest
from components.curate.preferences import preference_rows
from components.curate.redaction import conversations
from components.curate.redaction.surrogate_keys import Keyring, Marked
from components.curate.row_budget import Budget, CountsTokens, ExampleText
from components.curate.row_judgement import RowJudgement
from components.curate.settings import Rules, SplitBy
from components.curate.split import Member
from components.schema import Answer
from components.store import manifest, unpacked_file, warehouse
from components.store.warehouse import Connection

PREFIX = "replay-"  # prefix of replayed rows' ids

COLUMNS = ["messages", "tools", "answer"]


class ReplayError(ValueError):
    """Raised when a replay source is unreadable."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One row of another set: a request, its tools and the answer to it, as JSON text."""

    replay_id: str
    messages: str
    tools: str
    message: str


def read_replayed(sources: Sequence[Path]) -> list[Replayed]:
    """Read the distinct rows of all sources, in the order in which they are taken."""
    rows = {row.replay_id: row for source in sources for row in _read(source)}
    return [rows[replay_id] for replay_id in sorted(rows, key=row_budget.place)]


def request_key(messages: str, tools: str) -> str:
    """Return the digest of a request's content, independent of its JSON's formatting."""
    return manifest.digest([interaction.loads(messages), interaction.loads(tools)])


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
            f"replaying {source}: {error}; expected a snapshot folder, a Parquet file with the "
            f"columns {', '.join(COLUMNS)}, or JSONL of messages that end with the assistant's"
        ) from error


def _parquet(path: Path) -> Iterator[Replayed]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=COLUMNS):
            for row in batch.to_pylist():
                yield _replayed(row["messages"], row["tools"], _message(row["answer"]))


def _lines(path: Path) -> Iterator[Replayed]:
    for number, row in unpacked_file.read_json(path):
        match row:
            case {"messages": [_, *_, {"role": "assistant"}] as messages, **more}:
                texts = (messages[:-1], more.get("tools") or [], messages[-1])
                yield _replayed(*(json.dumps(item, ensure_ascii=False) for item in texts))
            case _:
                shown = json.dumps(row)[: unpacked_file.SHOWN_BYTES]
                raise ValueError(f"line {number} has no messages that end with an answer: {shown}")


def _message(answer: str) -> str:
    read = Answer.from_json(answer)
    message = preference_rows.message(read) | {"content": read.text or None}
    return json.dumps(message, ensure_ascii=False)


def _replayed(messages: str, tools: str, message: str) -> Replayed:
    key = manifest.digest([messages, tools, message])
    return Replayed(PREFIX + key, messages, tools, message)


@dataclass(frozen=True, slots=True)
class SpokenFor:
    """What no replayed row may share with the workload's own rows.

    ``requests`` are the keys of its examples and of all rows on the tested sides; ``ties`` are
    those of holdout and validation rows, also of earlier ones; ``tools`` are the names that such
    rows offer, if the workload is split by tools.
    """

    requests: frozenset[str]
    ties: frozenset[str]
    tools: frozenset[str]

    def forbids(
        self, messages: str, tools: str, ties: Sequence[str], tool_names: Sequence[str]
    ) -> bool:
        """Return whether a row shares any of it."""
        return (
            not self.ties.isdisjoint(ties)
            or not self.tools.isdisjoint(tool_names)
            or request_key(messages, tools) in self.requests
        )


def reserve(tokens: Sequence[int], share: float, budget: Budget) -> int:
    """Return how many rows, from the first, fit the replayed share of the whole side's budget.

    ``tokens`` are those of each row; zeros without a token budget.
    """
    rows = len(tokens) if budget.rows is None else min(len(tokens), int(budget.rows * share))
    if budget.tokens is None:
        return rows
    room = budget.tokens * share
    return sum(1 for total in accumulate(tokens[:rows]) if total <= room)


def replay_count(own_rows: int, share: float) -> int:
    """Return the number of rows to replay in addition to the workload's own."""
    return round(own_rows * share / (1 - share))


NEVER = datetime(1970, 1, 1, tzinfo=UTC)
"""The logging time of replayed rows, which not all sources have."""

Judge = Callable[[CandidateRow], RowJudgement]


@dataclass(frozen=True, slots=True)
class Incoming:
    """One judged and redacted row of another set; the texts are JSON.

    The texts have placeholders until ``stored`` replaces them; ``marked`` holds their values.
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
    """Return the rows that may be replayed, in the order in which they are taken.

    Excluded are rows with an objection, rows that the workload has itself, and rows that are near
    to a holdout or validation row, overlap with one or with a guard document, or share its group
    or, if split by tools, a tool.
    """
    if rules.balance.replay is None:
        return []
    spoken_for = _spoken_for(con, workload_id, rules.split_by)
    allowed = [
        row
        for replayed in read_replayed(rules.balance.replay.sources)
        if (row := _judged(workload_id, replayed, judge)) is not None
        and not spoken_for.forbids(row.messages, row.tools, row.member.ties, row.tool_names)
    ]
    requests = {row.example_id: row.request for row in allowed}
    tested = _tested(con, workload_id)
    compared_rows = [*tested.values(), *requests.values()]
    columns = request_columns.columns_of(compared_rows)
    words = request_words.separate(columns).words
    turns = pa.array(["\n".join(request.turns) for request in compared_rows], pa.large_string())
    whole = DigestedWords.of(hashed_words.column_of(turns))
    ids = [*tested, *requests]
    asked = AskedTexts(pa.array(ids, pa.large_string()), words, whole)
    held_out, ours = np.split(np.arange(len(compared_rows)), [len(tested)])
    firsts = duplicates.find_clusters(duplicates.by_id(ids), words, rules.near.jaccard).firsts
    near = ours[np.isin(firsts[ours], firsts[held_out])]
    overlaps = decontamination.decontaminate(asked, ours, held_out, rules.overlap)
    left_out = {ids[place] for place in {*near.tolist(), *overlaps}}
    return [row for row in allowed if row.example_id not in left_out]


def stored(row: Incoming, keyring: Keyring) -> Incoming:
    """Return a row with surrogates, if the workload uses them."""
    if row.marked is None or not keyring.is_used:
        return row
    texts = keyring.write(row.example_id, row.marked)
    return replace(
        row,
        messages=texts.get("messages", row.messages),
        tools=texts.get("tools", row.tools),
        answer=texts["answer"],
        marked=None,
    )


def with_tokens(incoming: list[Incoming], counter: CountsTokens) -> list[Incoming]:
    """Return the rows with their token counts."""
    texts = [ExampleText(row.example_id, row.messages, row.tools, row.answer) for row in incoming]
    tokens = dict(row_budget.count_texts(row_budget.in_batches(texts), counter))
    return [replace(row, tokens=tokens[row.example_id]) for row in incoming]


def example(workload_id: str, split_by: SplitBy, row: Incoming) -> dict[str, warehouse.Value]:
    """Return a row as a record of ``curated.examples``."""
    return {
        "example_id": row.example_id,
        "workload_id": workload_id,
        "client_id": "replay",
        "logged_at": NEVER,
        "split_by": split_by,
        "group_id": row.member.ties[1],
        "cluster_id": None,
        "side": "train",
        "label": row.member.label,
        "language": row.language,
        "tool_names": list(row.tool_names),
        "messages": row.messages,
        "tools": row.tools,
        "answer": row.answer,
        "acceptable": None,
        "logged_answer": None,
        "weight": row.weight,
        "interaction_ids": [],
        "feedback_ids": [],
    }


def _judged(workload_id: str, replayed: Replayed, judge: Judge) -> Incoming | None:
    row = CandidateRow(
        interaction_id=replayed.replay_id,
        workload_id=workload_id,
        example_id=_example_id(workload_id, replayed),
        logged_at=NEVER,
        messages=replayed.messages,
        tools=replayed.tools,
        message=replayed.message,
    )
    judged = judge(row)
    if not (judged.member and judged.answer and judged.rewritten and judged.request):
        return None
    return Incoming(
        replayed.replay_id,
        judged.rewritten.messages or replayed.messages,
        judged.rewritten.tools or replayed.tools,
        judged.answer,
        judged.request,
        judged.member,
        judged.tool_names,
        judged.screened.weight,
        judged.language,
        marked=judged.rewritten.marked,
    )


def _example_id(workload_id: str, replayed: Replayed) -> str:
    # As that of a logged row, so that its tie to a request that was held out before is found.
    try:
        texts = [
            json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
            for text in (replayed.messages, replayed.tools)
        ]
        return conversations.example_id(workload_id, *texts)
    except (ValueError, RecursionError):  # the rules object to it
        return replayed.replay_id


def _tested(con: Connection, workload_id: str) -> dict[str, NearRequest]:
    """Return the holdout and validation requests for the near-duplicate comparison.

    Also those that are left out: a cap, or a dislike, may be gone tomorrow.
    """
    rows = con.execute(
        "select redacted.example_id,"
        " any_value(coalesce(redacted.messages, texts.messages)),"
        " any_value(coalesce(redacted.tools, texts.tools))"
        " from curated.standings as standings"
        " inner join staging.redacted as redacted using (interaction_id)"
        " inner join staging.texts as texts using (interaction_id)"
        " where standings.workload_id = $workload_id and standings.side != 'train'"
        " group by redacted.example_id order by redacted.example_id",
        {"workload_id": workload_id},
    ).fetchall()
    return {
        example_id: request_columns.read(
            prompt.render_prompt(json.loads(messages), []), [], tools, Answer()
        )
        for example_id, messages, tools in rows
    }


def _spoken_for(con: Connection, workload_id: str, split_by: SplitBy) -> SpokenFor:
    requests = con.execute(
        "select distinct coalesce(redacted.messages, texts.messages),"
        " coalesce(redacted.tools, texts.tools)"
        " from staging.redacted as redacted"
        " inner join staging.texts as texts using (interaction_id)"
        " where redacted.example_id in ("
        "select example_id from curated.examples where workload_id = $workload_id)"
        " or interaction_id in (select interaction_id from curated.standings"
        " where workload_id = $workload_id and side != 'train')",
        {"workload_id": workload_id},
    ).fetchall()
    ties = warehouse.texts(
        con,
        "select unnest(ties) from curated.standings"
        " where workload_id = $workload_id and side != 'train'"
        " union select group_id from curated.sides"
        " where workload_id = $workload_id and side != 'train'",
        workload_id=workload_id,
    )
    tools = warehouse.texts(
        con,
        "select distinct unnest(tool_names) from curated.examples"
        " where workload_id = $workload_id and side != 'train' and $split_by = 'tools'",
        workload_id=workload_id,
        split_by=split_by,
    )
    return SpokenFor(
        frozenset(request_key(*texts) for texts in requests),
        frozenset(ties),
        frozenset(tools),
    )
