"""Judge each interaction by itself: parse it, apply the rules, redact it; its columns for SQL."""

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass
from functools import partial

import pyarrow as pa

from components.curate import interaction as candidates
from components.curate import split, ties, worker_pool
from components.curate.interaction import Candidate, CandidateRow, MalformedError
from components.curate.near import near_requests
from components.curate.near.near_requests import NearRequest
from components.curate.redaction import conversations
from components.curate.redaction.conversations import RedactionFailedError, Rewritten
from components.curate.redaction.surrogate_keyring import RedactedTurn
from components.curate.rules import language, screen
from components.curate.rules.screen import NOTHING_FOUND, Screened
from components.curate.settings import Rules
from components.curate.split import Member, Placement
from components.curate.ties import RequestOrigin
from components.curate.worker_pool import UNJUDGEABLE

FLAGS = pa.list_(
    pa.struct([("rule", pa.string()), ("factor", pa.float64()), ("mark", pa.string())])
)


@dataclass(frozen=True, slots=True)
class RowJudgement:
    """What the rules and the split made of one interaction, before duplicates are known.

    ``screened`` is what the rules found. ``member`` is what the split reads, ``None`` where a rule
    objected; then it stands nowhere, and nothing of it is ``rewritten`` by redaction. ``origin`` is
    what its ties are made of, once all rows are known. ``twin_id`` names the requests that want the
    same kind of answer, by what was asked, the ``request``, and ``equal_id`` those of them that ask
    the same; ``asked`` is what users said in it, but for templates. ``logged`` is what production
    answered, the ``answer`` itself where nobody corrected it, and ``answer_name`` names it where it
    is short. ``mark`` says what an objection is about that was made after the rules. ``language``
    is that of what users said, ``None`` where it can't be told. ``conversation`` tells those whose
    values get the same surrogates.
    """

    interaction_id: str
    objection: str | None
    screened: Screened = NOTHING_FOUND
    member: Member | None = None
    origin: RequestOrigin | None = None
    standing: Placement | None = None
    tool_names: tuple[str, ...] = ()
    answer: str | None = None
    logged: str | None = None
    request: NearRequest | None = None
    asked: str = ""
    twin_id: str | None = None
    equal_id: str | None = None
    answer_name: str | None = None
    mark: str | None = None
    rewritten: Rewritten | None = None
    language: str | None = None
    conversation: str | None = None


def turns(judgements: Sequence[RowJudgement]) -> list[RedactedTurn]:
    """Return what redaction changed, in the order in which it was logged."""
    changed = [
        (one.member.logged_at, one, one.rewritten.marked)
        for one in judgements
        if one.member and one.rewritten and one.rewritten.marked
    ]
    changed.sort(key=lambda logged: (logged[0], logged[1].interaction_id))
    return [
        RedactedTurn(
            one.interaction_id, one.conversation or one.interaction_id, one.language, marked
        )
        for _, one, marked in changed
    ]


def columns(workload_id: str, judgements: Sequence[RowJudgement]) -> dict[str, Sized]:
    """Give judgements as the columns of the table ``judgements``, one row per interaction."""
    screened = [one.screened for one in judgements]
    members = [one.member for one in judgements]
    standings = [one.standing for one in judgements]
    rewritten = [one.rewritten for one in judgements]
    texts = {
        "interaction_id": [one.interaction_id for one in judgements],
        "workload_id": [workload_id for _ in judgements],
        "objection": [one.objection for one in judgements],
        "mark": [one.mark or one.screened.mark for one in judgements],
        "answer": [one.answer for one in judgements],
        "language": [one.language for one in judgements],
        "logged_answer": [one.logged for one in judgements],
        "twin_id": [one.twin_id for one in judgements],
        "equal_id": [one.equal_id for one in judgements],
        "answer_name": [one.answer_name for one in judgements],
        "label": [one.label if one else None for one in members],
        "cluster_id": [one.cluster_id if one else None for one in members],
        "side": [one.side if one else None for one in standings],
        "component_id": [one.component_id if one else None for one in standings],
        "stratum": [one.stratum if one else None for one in standings],
        "draw_id": [one.draw_id if one else None for one in standings],
        "messages": [one.messages if one else None for one in rewritten],
        "tools": [one.tools if one else None for one in rewritten],
        "acceptable": [one.acceptable if one else None for one in rewritten],
    }
    lists = {
        "ties": [list(one.ties) if one else None for one in members],
        "tool_names": [list(one.tool_names) for one in judgements],
    }
    return {
        **{name: pa.array(column, pa.string()) for name, column in texts.items()},
        **{name: pa.array(column, pa.list_(pa.string())) for name, column in lists.items()},
        "is_held": pa.array([one.is_held for one in screened], pa.bool_()),
        "flags": pa.array([[asdict(flag) for flag in one.flags] for one in screened], FLAGS),
        "weight": pa.array([one.weight for one in screened], pa.float64()),
    }


def replacements(judgements: Sequence[RowJudgement]) -> dict[str, Sized]:
    """Give what redaction replaced as the columns of the table ``redacted``.

    It has one row per interaction and kind.
    """
    counted = [
        (kind.value, distinct, one.rewritten.replaced[kind])
        for one in judgements
        if one.rewritten
        for kind, distinct in one.rewritten.values.items()
    ]
    return {
        "kind": pa.array([kind for kind, _, _ in counted], pa.string()),
        "distinct_values": pa.array([distinct for _, distinct, _ in counted], pa.int64()),
        "replacements": pa.array([replaced for _, _, replaced in counted], pa.int64()),
    }


def judge_all(rows: Iterable[CandidateRow], rules: Rules) -> Iterator[RowJudgement]:
    """Judge the interactions in their order, many of them in several processes."""
    return worker_pool.map_in_processes(partial(_judge_batch, rules=rules), rows)


def _judge_batch(rows: list[CandidateRow], rules: Rules) -> list[RowJudgement]:
    return [judge(row, rules) for row in rows]


def judge(row: CandidateRow, rules: Rules) -> RowJudgement:
    """Judge one interaction by itself; pure. What no rule could be asked about is objected to."""
    try:
        with worker_pool.limited():
            judged = _judge(row, rules)
            _require_texts(judged)
            return judged
    except Exception as error:  # noqa: BLE001 - no row may end the curation of all others
        return RowJudgement(row.interaction_id, UNJUDGEABLE, mark=worker_pool.reason(error))


def _judge(row: CandidateRow, rules: Rules) -> RowJudgement:
    try:
        candidate = candidates.read(row)
    except MalformedError as error:
        return RowJudgement(row.interaction_id, error.objection)
    screened = screen.screen(
        candidate,
        rules.rules,
        max_prompt_chars=rules.max_prompt_chars,
        languages=rules.languages,
    )
    if screened.objection is not None:
        return RowJudgement(row.interaction_id, screened.objection, screened)
    return _accept(row, candidate, screened, rules)


def _accept(
    row: CandidateRow, candidate: Candidate, screened: Screened, rules: Rules
) -> RowJudgement:
    try:
        texts = (row.messages, row.tools, row.message, row.logged_message, row.acceptable)
        conversations.require_short(sum(len(text) for text in texts if text))
        redacted, rewritten = conversations.redact_candidate(candidate, rules.redaction)
    except RedactionFailedError as error:
        mark = str(error) or None
        return RowJudgement(candidate.interaction_id, "redaction_failed", screened, mark=mark)
    redacted_request = None
    if rewritten.messages or rewritten.tools:
        # Requests that are equal without personal data stand together, too.
        texts = rewritten.messages or row.messages, rewritten.tools or row.tools
        redacted_request = conversations.example_id(row.workload_id, *texts)
    # Of what was logged: what is redacted may change, sides never do.
    found = ties.request_origin(row, candidate, rules.split_by, redacted_request)
    return RowJudgement(
        candidate.interaction_id,
        None,
        screened,
        Member((row.example_id, found.former_group), split.label(redacted.answer), row.logged_at),
        found,
        tool_names=candidate.tool_names,
        answer=redacted.answer_json,
        logged=redacted.logged_json,
        rewritten=rewritten,
        language=language.asked_in(candidate.said("user")),
        conversation=row.conversation_id or f"{row.user_id or ''}\n{candidate.opening}",
        request=near_requests.read(
            redacted.rendered,
            redacted.said("system", "developer"),
            rewritten.tools or row.tools,
            redacted.answer,
        ),
    )


def _require_texts(judged: RowJudgement) -> None:
    """Check what is compared with other rows or written for them to be text.

    Half a character, which escapes in a call's arguments can write, would end what reads them all.
    """
    request, rewritten, member = judged.request, judged.rewritten, judged.member
    worker_pool.require_text(
        judged.mark,
        judged.screened.mark,
        *(flag.mark for flag in judged.screened.flags),
        judged.answer,
        judged.logged,
        judged.conversation,
        *judged.tool_names,
        member and member.label,
        *((request.system, request.answer_name, *request.turns) if request else ()),
        *((rewritten.messages, rewritten.tools, rewritten.acceptable) if rewritten else ()),
    )
