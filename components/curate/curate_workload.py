"""Curate one workload in one transaction: judge every interaction and build the examples."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from components.curate import (
    client_limits,
    decontamination,
    held_rows,
    row_judgement,
    split,
    ties,
    training_side,
)
from components.curate.client_limits import Clients
from components.curate.decontamination import Seen, UserTexts
from components.curate.interaction import CandidateRow
from components.curate.near import near_requests
from components.curate.near.near_requests import ComparedRequest, Place
from components.curate.preferences import weigh as preferences
from components.curate.redaction import conversations
from components.curate.redaction import surrogate_keyring as keyrings
from components.curate.redaction.surrogate_keyring import Keyring
from components.curate.row_budget import CountsTokens
from components.curate.row_judgement import RowJudgement
from components.curate.settings import Rules
from components.curate.split import Placement, SettledSides, Shares
from components.curate.worker_pool import UNJUDGEABLE
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class CurationTally:
    """What became of a workload's interactions.

    ``counts`` is by verdict, ``kept`` among them; ``feedback_waiting`` counts the feedback whose
    response has not arrived. ``found`` counts what rules found and did not drop, by rule and what
    was done: ``hold``, ``weigh`` or ``flag``. ``redactions`` counts what was replaced, by kind. Of
    the rows to train on, ``replayed`` are of other sets. ``feedback_held_back`` counts
    the signals of bursts, and of actors over the cap. ``unjudgeable`` counts the rows that a rule
    could not be asked about, by the error and where it was raised.
    """

    workload_id: str
    interactions: int
    train: int
    holdout: int
    counts: dict[str, int]
    feedback_waiting: int
    validation: int = 0
    found: dict[str, int] = field(default_factory=dict[str, int])
    redactions: dict[str, int] = field(default_factory=dict[str, int])
    replayed: int = 0
    feedback_held_back: int = 0
    unjudgeable: dict[str, int] = field(default_factory=dict[str, int])


def curate(
    con: Connection,
    workload_id: str,
    rules: Rules,
    *,
    now: datetime,
    counter: CountsTokens | None = None,
) -> CurationTally:
    """Judge every interaction of a workload and rebuild its verdicts and examples.

    Args:
        con: The warehouse.
        workload_id: The workload.
        rules: What its file says under ``curate``.
        now: When it is curated (UTC).
        counter: Counts tokens by the base's tokenizer, where a budget of them is set.

    Raises:
        SplitChangedError: A snapshot was frozen with another ``split_by``.
        NoTokenizerError: A budget of tokens is set and ``counter`` is ``None``.
        ReplayError: Rows are to be replayed from what is no set of them.
        CheckFailedError: A check found rows that must not be; then nothing is changed.
    """
    with warehouse.transaction(con):
        together: list[Json] = [*rules.clients.together]
        warehouse.build(con, "staging/interactions", workload_id=workload_id, together=together)
        for model in ("staging/given", "staging/feedback"):
            warehouse.build(con, model, workload_id=workload_id)
        warehouse.build(con, "staging/shared_names")
        weighed = preferences.weigh_workload(con, workload_id, rules.preferences)
        warehouse.build(con, "staging/answers")
        known = split.read_settled(con, workload_id, rules.split_by)
        # Closed whatever happens: a result that is open can't be rolled back.
        with closing(warehouse.read(con, "staging/candidates", CandidateRow)) as rows:
            judged = [*row_judgement.judge_all(rows, rules)]
        clients = client_limits.read(con, workload_id)
        judged = client_limits.flag_ahead(judged, clients)
        stood = stand(tie(near(judged, rules), known, rules), known, rules)
        judgements = clean_by_client(stood, clients, known, rules)
        with warehouse.present(con, "judgements", row_judgement.columns(workload_id, judgements)):
            warehouse.build(con, "staging/redacted")
            warehouse.build(con, "staging/blamed", workload_id=workload_id)
            lift = rules.preferences.lift
            cap = rules.holdout_per_cluster
            values = {"split": rules.split_by, "judged_at": now, "lift": lift}
            values |= {"holdout_per_cluster": cap}
            for model in ("curated/standings", "curated/verdicts"):
                warehouse.refresh(con, model, workload_id=workload_id, **values)
            keyring = _keyring(con, workload_id, rules, judgements)
            with warehouse.present(con, "surrogates", keyring.columns(_kept(con, workload_id))):
                warehouse.refresh(con, "curated/examples", workload_id=workload_id, **values)
        replayed = training_side.apply(
            con,
            workload_id,
            rules,
            judge=partial(row_judgement.judge, rules=rules),
            counter=counter,
            keyring=keyring,
        )
        redact = partial(conversations.redact_exchange, settings=rules.redaction, keyring=keyring)
        preferences.write_results(con, workload_id, weighed, rules.preferences, redact)
        keyring.save(con)
        with warehouse.present(con, "redacted", row_judgement.replacements(judgements)):
            warehouse.refresh(con, "curated/redactions", workload_id=workload_id)
        warehouse.check(con, workload_id=workload_id)
        tally = replace(_tally(con, workload_id), replayed=replayed)
        held_rows.record_losses(
            con, workload_id, held_rows.find_losses(workload_id, tally.counts, rules.most_lost)
        )
        return tally


def _keyring(
    con: Connection, workload_id: str, rules: Rules, judgements: Sequence[RowJudgement]
) -> Keyring:
    conversations = {
        one.interaction_id: one.conversation or one.interaction_id for one in judgements
    }
    turns = row_judgement.turns(judgements)
    return keyrings.open_keyring(con, workload_id, rules.redaction, conversations, turns)


def _kept(con: Connection, workload_id: str) -> list[str]:
    rows = con.execute(
        "select interaction_id from curated.verdicts"
        " where workload_id = $workload_id and objection is null",
        {"workload_id": workload_id},
    ).fetchall()
    return [interaction_id for (interaction_id,) in rows]


def near(judgements: Sequence[RowJudgement], rules: Rules) -> list[RowJudgement]:
    """Tell of each row that no rule objected to which others it is near to."""
    asked = {one.interaction_id: one.request for one in judgements if one.request}
    compared = near_requests.compare([*asked.values()])
    found = near_requests.place([*asked], [*asked.values()], compared, rules.near.jaccard)
    places = dict(zip(asked, zip(found, compared, strict=True), strict=True))
    return [_near(one, *places.get(one.interaction_id, (None, None))) for one in judgements]


def _near(
    judged: RowJudgement, place: Place | None, compared: ComparedRequest | None
) -> RowJudgement:
    if place is None or compared is None or judged.member is None or judged.request is None:
        return judged
    member = replace(judged.member, cluster_id=place.cluster_id)
    return replace(
        judged,
        member=member,
        twin_id=place.twin_id,
        equal_id=place.equal_id,
        asked=compared.asked,
        answer_name=judged.request.answer_name,
    )


def tie(
    judgements: Sequence[RowJudgement], known: SettledSides, rules: Rules
) -> list[RowJudgement]:
    """Tie what no rule objected to."""
    found = [(one.member, one.origin) for one in judgements if one.member and one.origin]
    members, origins = [member for member, _ in found], [origin for _, origin in found]
    tied = iter(ties.tie(members, origins, rules.split_by, known.sides))
    return [
        replace(one, member=next(tied), origin=None) if one.member and one.origin else one
        for one in judgements
    ]


def stand(
    judgements: Sequence[RowJudgement], known: SettledSides, rules: Rules
) -> list[RowJudgement]:
    """Place what no rule objected to; a row that is tied to a stricter side gets an objection."""
    shares = Shares(rules.split_by, rules.holdout_share, rules.validation_share)
    members = [one.member for one in judgements if one.member]
    standings = iter(split.place(members, known, shares))
    return [_placed(one, next(standings)) if one.member else one for one in judgements]


def _placed(judged: RowJudgement, standing: Placement) -> RowJudgement:
    return replace(judged, standing=standing, objection=standing.objection)


def clean_by_client(
    judgements: Sequence[RowJudgement], clients: Clients, known: SettledSides, rules: Rules
) -> list[RowJudgement]:
    """Object to what overlaps with what is tested on, and to what crowds other clients out."""
    if not clients.are_several:
        return clean(judgements, rules)
    shares = rules.clients
    stood = client_limits.cap_tested(judgements, clients, known, shares)
    cleaned = clean(stood, rules)
    displacing = client_limits.displacing(
        stood,
        cleaned,
        clients,
        split_by=rules.split_by,
        overlap=rules.overlap,
        most=shares.displaced,
    )
    if displacing:
        stood = client_limits.leave_out(stood, displacing, "displaces_other_client")
        cleaned = clean(stood, rules)
    return client_limits.cap_trained(cleaned, clients, known, shares)


def clean(judgements: Sequence[RowJudgement], rules: Rules) -> list[RowJudgement]:
    """Object to rows that have much of what is tested or validated on in them."""
    rows: dict[str, UserTexts] = {}
    held_out: dict[str, str] = {}
    validated: set[str] = set()
    for one in judgements:
        if one.objection is not None or one.request is None or one.standing is None:
            continue
        if one.standing.side == "holdout":
            held_out[one.interaction_id] = one.asked
            continue
        rows[one.interaction_id] = UserTexts(one.asked, one.request.asked)
        if one.standing.side == "validation":
            validated.add(one.interaction_id)
    seen = decontamination.decontaminate(rows, held_out, rules.overlap, validated)
    return [_cleaned(one, seen.get(one.interaction_id)) for one in judgements]


def _cleaned(judged: RowJudgement, seen: Seen | None) -> RowJudgement:
    if seen is None:
        return replace(judged, request=None)
    return replace(judged, request=None, objection=seen.objection, mark=seen.mark)


def _tally(con: Connection, workload_id: str) -> CurationTally:
    ((interactions,),) = con.execute("select count(*) from staging.interactions").fetchall()
    sides = con.execute(
        "select side, count(*) from curated.examples where workload_id = $workload_id group by all",
        {"workload_id": workload_id},
    ).fetchall()
    verdicts = con.execute(
        "select verdict, interactions from marts.verdicts where workload_id = $workload_id"
        " order by verdict",
        {"workload_id": workload_id},
    ).fetchall()
    found = con.execute(
        "select rule || ' ' || disposition, interactions from marts.rules"
        " where workload_id = $workload_id and disposition != 'drop' order by all",
        {"workload_id": workload_id},
    ).fetchall()
    ((waiting,),) = con.execute("select count(*) from staging.feedback where is_waiting").fetchall()
    redactions = con.execute(
        "select kind, replacements from curated.redactions where workload_id = $workload_id"
        " order by kind",
        {"workload_id": workload_id},
    ).fetchall()
    ((held_back,),) = con.execute(
        "select count(*) from curated.fates where workload_id = $workload_id"
        " and fate in ('brigade', 'flood', 'over_cap')",
        {"workload_id": workload_id},
    ).fetchall()
    unjudgeable = con.execute(
        "select mark, count(*) from curated.verdicts"
        " where workload_id = $workload_id and objection = $objection group by all order by all",
        {"workload_id": workload_id, "objection": UNJUDGEABLE},
    ).fetchall()
    by_side = dict(sides)
    return CurationTally(
        workload_id,
        interactions,
        by_side.get("train", 0),
        by_side.get("holdout", 0),
        dict(verdicts),
        waiting,
        by_side.get("validation", 0),
        dict(found),
        dict(redactions),
        feedback_held_back=held_back,
        unjudgeable=dict(unjudgeable),
    )
