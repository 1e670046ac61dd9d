"""What was made of each interaction, and the columns in which SQL reads it."""

from collections.abc import Sequence, Sized
from dataclasses import asdict, dataclass

import pyarrow as pa

from components.curate.near.requests import Request
from components.curate.origin import Origin
from components.curate.placing import Member, Standing
from components.curate.redaction.keyring import Turn
from components.curate.redaction.of_candidate import Rewritten
from components.curate.rules.screen import NOTHING_FOUND, Screened

FLAGS = pa.list_(
    pa.struct([("rule", pa.string()), ("factor", pa.float64()), ("mark", pa.string())])
)


@dataclass(frozen=True, slots=True)
class Judgement:
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
    origin: Origin | None = None
    standing: Standing | None = None
    tool_names: tuple[str, ...] = ()
    answer: str | None = None
    logged: str | None = None
    request: Request | None = None
    asked: str = ""
    twin_id: str | None = None
    equal_id: str | None = None
    answer_name: str | None = None
    mark: str | None = None
    rewritten: Rewritten | None = None
    language: str | None = None
    conversation: str | None = None


def turns(judgements: Sequence[Judgement]) -> list[Turn]:
    """Return what redaction changed, in the order in which it was logged."""
    changed = [
        (one.member.logged_at, one, one.rewritten.marked)
        for one in judgements
        if one.member and one.rewritten and one.rewritten.marked
    ]
    changed.sort(key=lambda logged: (logged[0], logged[1].interaction_id))
    return [
        Turn(one.interaction_id, one.conversation or one.interaction_id, one.language, marked)
        for _, one, marked in changed
    ]


def columns(workload_id: str, judgements: Sequence[Judgement]) -> dict[str, Sized]:
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


def replacements(judgements: Sequence[Judgement]) -> dict[str, Sized]:
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
