"""Curate one workload in one transaction: judge every interaction and build the examples."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from components.curate import (
    client_limits,
    collector,
    decontamination,
    held_rows,
    judgement_cache,
    row_judgement,
    split,
    ties,
    training_side,
)
from components.curate.client_limits import Clients
from components.curate.decontamination import UserTexts
from components.curate.near import near_requests
from components.curate.near.near_requests import NearRequest, Place
from components.curate.preferences import weigh
from components.curate.redaction import conversations, surrogate_writer
from components.curate.row_budget import CountsTokens
from components.curate.row_judgement import RowJudgement
from components.curate.settings import Rules
from components.curate.split import Member, Placement, SettledSides, Shares
from components.curate.worker_pool import UNJUDGEABLE
from components.schema import Json
from components.store import warehouse
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class CurationTally:
    """Counts of one curation of a workload.

    ``counts`` is by verdict, including ``kept``; ``feedback_waiting`` counts feedback whose
    response has not arrived. ``flagged`` counts rule findings that were not dropped, by rule and
    action: ``hold``, ``weigh`` or ``flag``. ``redactions`` counts replacements by kind.
    ``replayed`` counts training rows from other sets. ``feedback_held_back`` counts the signals of
    bursts and of actors over the cap. ``unjudgeable`` counts rows on which a rule raised an error,
    by error and place. ``judged`` counts the interactions whose judgement was not kept from an
    earlier curation, ``screened`` those that only the quality rules judged again.
    """

    workload_id: str
    interactions: int
    train: int
    holdout: int
    counts: dict[str, int]
    feedback_waiting: int
    validation: int = 0
    flagged: dict[str, int] = field(default_factory=dict[str, int])
    redactions: dict[str, int] = field(default_factory=dict[str, int])
    replayed: int = 0
    feedback_held_back: int = 0
    unjudgeable: dict[str, int] = field(default_factory=dict[str, int])
    judged: int = 0
    screened: int = 0


def curate(
    con: Connection,
    workload_id: str,
    rules: Rules,
    *,
    now: datetime,
    counter: CountsTokens | None = None,
    judgements_folder: Path | None = None,
    ray_address: str | None = None,
) -> CurationTally:
    """Judge every interaction of a workload and rebuild its verdicts and examples.

    Args:
        con: The warehouse, or a copy of the workload's rows.
        workload_id: The workload.
        rules: The settings.
        now: The time of the verdicts (UTC).
        counter: Counts tokens with the base's tokenizer; a token budget requires it.
        judgements_folder: Where the workload's judgements are kept, so that the next curation
            judges only what is new; no other process may use it meanwhile. ``None`` keeps none.
        ray_address: A Ray cluster that judges the rows, ``ray://host:port``; this machine's cores
            if ``None``.

    Raises:
        RayPoolError: The cluster can't be reached or was lost, or has nodes with other code.
        SplitChangedError: A snapshot was frozen with another ``split_by``.
        NoTokenizerError: A token budget is set and ``counter`` is ``None``.
        ReplayError: A replay source is unreadable.
        CheckFailedError: A check found invalid rows; nothing is changed.
    """
    if judgements_folder is not None:
        judgements_folder.mkdir(parents=True, exist_ok=True)
    with warehouse.transaction(con), collector.released():
        together: list[Json] = [*rules.clients.together]
        warehouse.build(con, "staging/interactions", workload_id=workload_id, together=together)
        for model in ("staging/given", "staging/feedback"):
            warehouse.build(con, model, workload_id=workload_id)
        warehouse.build(con, "staging/shared_names")
        weighed = weigh.weigh_workload(con, workload_id, rules.preferences)
        warehouse.build(con, "staging/answers")
        settled = split.read_settled(con, workload_id, rules.split_by)
        judged, new, screened = judgement_cache.judge_rows(
            con, rules, judgements_folder, ray_address
        )
        clients = client_limits.read(con, workload_id)
        with collector.paused():
            flagged = client_limits.flag_ahead(judged, clients)
            judgements = place(flagged, settled, rules, judgements_folder)
            judged.clear()  # they hold what was only compared
            judgements = clean_by_client(judgements, clients, settled, rules)
            columns = row_judgement.columns(workload_id, judgements)
        with warehouse.present(con, "judgements", columns):
            warehouse.build(con, "staging/redacted")
            warehouse.build(con, "staging/blamed", workload_id=workload_id)
            values = {
                "split": rules.split_by,
                "judged_at": now,
                "lift": rules.preferences.lift,
                "holdout_per_cluster": rules.holdout_per_cluster,
            }
            for model in ("curated/standings", "curated/verdicts"):
                warehouse.refresh(con, model, workload_id=workload_id, **values)
            keyring = surrogate_writer.open_keyring(
                con,
                workload_id,
                rules.redaction,
                {
                    judgement.interaction_id: judgement.conversation or judgement.interaction_id
                    for judgement in judgements
                },
                row_judgement.turns(judgements),
            )
            kept = warehouse.texts(
                con,
                "select interaction_id from curated.verdicts"
                " where workload_id = $workload_id and objection is null",
                workload_id=workload_id,
            )
            with warehouse.present(con, "surrogates", keyring.columns(kept)):
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
        weigh.write_results(con, workload_id, weighed, rules.preferences, redact)
        keyring.save(con)
        with warehouse.present(con, "redacted", row_judgement.replacements(judgements)):
            warehouse.refresh(con, "curated/redactions", workload_id=workload_id)
        warehouse.check(con, workload_id=workload_id)
        tally = _tally(con, workload_id, replayed)
        tally = replace(tally, judged=new, screened=screened)
        held_rows.record_losses(
            con, workload_id, held_rows.find_losses(workload_id, tally.counts, rules.most_lost)
        )
        return tally


def place(
    judgements: Sequence[RowJudgement],
    settled: SettledSides,
    rules: Rules,
    scratch: Path | None = None,
) -> list[RowJudgement]:
    """Compare, tie and place the rows without an objection.

    Rows tied to a stricter side get an objection. Texts are compared in files of the folder
    ``scratch``, or in memory if it is ``None``.
    """
    accepted = [
        (judgement.interaction_id, judgement.member, judgement.origin, judgement.request)
        for judgement in judgements
        if judgement.member and judgement.origin and judgement.request
    ]
    ids = [interaction_id for interaction_id, *_ in accepted]
    requests = [request for *_, request in accepted]
    columns = near_requests.columns_of(requests, scratch)
    compared = near_requests.compare(columns, scratch)
    places = near_requests.place(ids, columns, compared, rules.near.jaccard, scratch)
    asked = compared.user_texts.to_pylist()
    members = ties.tie(
        [
            replace(member, cluster_id=near.cluster_id)
            for (_, member, *_), near in zip(accepted, places, strict=True)
        ],
        [origin for _, _, origin, _ in accepted],
        rules.split_by,
        settled.sides,
    )
    shares = Shares(rules.split_by, rules.holdout_share, rules.validation_share)
    placements = split.place(members, settled, shares)
    placed = zip(members, requests, asked, places, placements, strict=True)
    return [
        _placed(judgement, *next(placed)) if judgement.member else judgement
        for judgement in judgements
    ]


def _placed(
    judged: RowJudgement,
    member: Member,
    request: NearRequest,
    own: str,
    near: Place,
    placement: Placement,
) -> RowJudgement:
    return replace(
        judged,
        member=member,
        origin=None,
        request=None,
        placement=placement,
        objection=placement.objection,
        twin_id=near.twin_id,
        equal_id=near.equal_id,
        answer_name=request.answer_name,
        asked=UserTexts(own, request.user_text),
    )


def clean_by_client(
    judgements: Sequence[RowJudgement], clients: Clients, settled: SettledSides, rules: Rules
) -> list[RowJudgement]:
    """Object to rows that overlap with tested rows, and to rows that crowd out other clients."""
    if not clients.are_several:
        return clean(judgements, rules)
    shares = rules.clients
    placed = client_limits.cap_tested(judgements, clients, settled, shares)
    cleaned = clean(placed, rules)
    displacing = client_limits.displacing(
        placed,
        cleaned,
        clients,
        split_by=rules.split_by,
        overlap=rules.overlap,
        most=shares.displaced,
    )
    if displacing:
        placed = client_limits.leave_out(placed, displacing, "displaces_other_client")
        cleaned = clean(placed, rules)
    return client_limits.cap_trained(cleaned, clients, settled, shares)


def clean(judgements: Sequence[RowJudgement], rules: Rules) -> list[RowJudgement]:
    """Object to rows that overlap with holdout, validation or guard texts."""
    rows: dict[str, UserTexts] = {}
    held_out: dict[str, str] = {}
    validated: set[str] = set()
    for judgement in judgements:
        if judgement.objection or judgement.asked is None or judgement.placement is None:
            continue
        if judgement.placement.side == "holdout":
            held_out[judgement.interaction_id] = judgement.asked.own
            continue
        rows[judgement.interaction_id] = judgement.asked
        if judgement.placement.side == "validation":
            validated.add(judgement.interaction_id)
    overlaps = decontamination.decontaminate(rows, held_out, rules.overlap, validated)
    return [
        replace(judgement, objection=overlap.objection, mark=overlap.mark)
        if (overlap := overlaps.get(judgement.interaction_id))
        else judgement
        for judgement in judgements
    ]


def _tally(con: Connection, workload_id: str, replayed: int) -> CurationTally:
    values = {"workload_id": workload_id, "unjudgeable": UNJUDGEABLE}
    rows = con.execute(warehouse.model_select("marts/curation_counts"), values).fetchall()
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for figure, counted, number in rows:
        counts[figure][counted] = number
    return CurationTally(
        workload_id,
        **counts["total"],
        train=counts["side"].get("train", 0),
        holdout=counts["side"].get("holdout", 0),
        validation=counts["side"].get("validation", 0),
        counts=counts["verdict"],
        flagged=counts["flagged"],
        redactions=counts["redaction"],
        replayed=replayed,
        unjudgeable=counts["unjudgeable"],
    )
