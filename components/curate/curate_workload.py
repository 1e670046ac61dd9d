"""Curate one workload in one transaction: judge every interaction and build the examples."""

from collections import defaultdict
from collections.abc import Generator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from components import gc_pause
from components.curate import (
    client_limits,
    decontamination,
    held_rows,
    interaction,
    judgement_cache,
    parsed_rows,
    row_clusters,
    row_judgement,
    split,
    training_side,
)
from components.curate.client_limits import ClientRows, Clients
from components.curate.decontamination import AskedTexts
from components.curate.judged_rows import JudgedRows
from components.curate.near import near_requests, request_words
from components.curate.parsed_rows import ParsedRows
from components.curate.placed_rows import PlacedRows, near_objection
from components.curate.preferences import weigh
from components.curate.redaction import conversations, surrogate_keys
from components.curate.redaction.clean_exchanges import CleanExchanges
from components.curate.row_budget import CountsTokens
from components.curate.row_clusters import Relations
from components.curate.rules import bad_answers
from components.curate.settings import Rules
from components.curate.split import SIDES, Members, SettledSides, Shares
from components.curate.text_codes import MISSING, TextCodes
from components.curate.worker_pool import UNJUDGEABLE
from components.schema import ANONYMOUS, Paraphrases
from components.store import warehouse
from components.store.warehouse import Connection


@dataclass(frozen=True, slots=True)
class CurationTally:
    """Counts of one curation of a workload.

    ``counts`` is by verdict, including ``kept``; ``feedback_waiting`` counts feedback whose
    response has not arrived. ``flagged`` counts rule findings that were not dropped, by rule and
    action: ``hold``, ``weigh`` or ``flag``. ``redactions`` counts replacements by kind.
    ``replayed`` counts training rows from other sets. ``feedback_held_back`` counts the signals of
    bursts and of actors over the cap, ``feedback_ambiguous`` those about different requests.
    ``unjudgeable`` counts rows on which a rule raised an error, by error and place. ``judged``
    counts the interactions whose judgement was not kept from an earlier curation, ``screened``
    those that only the quality rules judged again. ``paraphrases`` counts the held-out requests
    that a training row paraphrases.
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
    feedback_ambiguous: int = 0
    unjudgeable: dict[str, int] = field(default_factory=dict[str, int])
    judged: int = 0
    screened: int = 0
    paraphrases: Paraphrases = field(default_factory=Paraphrases)


def curate(
    con: Connection,
    workload_id: str,
    rules: Rules,
    *,
    now: datetime,
    counter: CountsTokens | None = None,
    judgements_folder: Path | None = None,
    parsed: ParsedRows | None = None,
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
        parsed: What the folder has of parsed rows, if it was read before their copy.
        ray_address: A Ray cluster that judges the rows, ``ray://host:port``; this machine's cores
            if ``None``.

    Raises:
        RayPoolError: The cluster can't be reached or was lost, or has nodes with other code.
        SplitChangedError: A snapshot was frozen with another ``split_by``.
        NoTokenizerError: A token budget is set and ``counter`` is ``None``.
        ReplayError: A replay source is unreadable.
        CheckFailedError: A check found invalid rows; nothing is changed.
    """
    with (
        _folder(judgements_folder) as folder,
        warehouse.transaction(con),
        gc_pause.released(),
    ):
        if parsed is None and judgements_folder is not None:
            parsed = parsed_rows.read(judgements_folder)
        # First: joined to itself, a row kept twice would fill the memory.
        warehouse.check(con, "checks/raw", workload_id=workload_id)
        parsed_rows.stage(con, workload_id, parsed)
        warehouse.build(
            con,
            "staging/interactions",
            workload_id=workload_id,
            together=[*rules.clients.together],
            anonymous=[*sorted(ANONYMOUS)],
        )
        for model in ("staging/given", "staging/feedback"):
            warehouse.build(con, model, workload_id=workload_id)
        warehouse.build(con, "staging/shared_names")
        weighed = weigh.weigh_workload(con, workload_id, rules.preferences)
        warehouse.build(con, "staging/answers")
        settled = split.read_settled(con, workload_id, rules.split_by)
        fixed = _instructions(con)
        judged = judgement_cache.judge_rows(con, workload_id, rules, folder, ray_address, fixed)
        clients = client_limits.read(con, workload_id, rules.clients.first)
        with _compared(con, judged, clients, settled, rules, folder) as (asked, relations):
            warehouse.build(con, "staging/redacted")
            warehouse.build(con, "staging/blamed", workload_id=workload_id)
            values = {
                "split": rules.split_by,
                "judged_at": now,
                "lift": rules.preferences.lift,
            }
            warehouse.refresh(con, "curated/verdicts", workload_id=workload_id, **values)
            with warehouse.present(con, "clusters", _clusters(con, workload_id, judged, relations)):
                warehouse.refresh(con, "curated/standings", workload_id=workload_id, **values)
                if rules.holdout_per_cluster is not None:
                    _cap_clusters(con, workload_id, rules.holdout_per_cluster)
                keyring = surrogate_keys.open_keyring(
                    con,
                    workload_id,
                    rules.redaction,
                    judged.conversations(rules.redaction.seed),
                    judged.turns(rules.redaction.seed),
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
        exchanges = CleanExchanges(folder, row_judgement.redaction_digest(rules), redact)
        weigh.write_results(
            con,
            workload_id,
            weighed,
            exchanges.redact,
            partial(row_judgement.answer_objection, rules=rules, instructions=fixed),
        )
        exchanges.save()
        keyring.save(con)
        with warehouse.present(con, "redacted", judged.replacements()):
            warehouse.refresh(con, "curated/redactions", workload_id=workload_id)
        warehouse.check(con, workload_id=workload_id)
        tally = _tally(con, workload_id, replayed, _count_paraphrased(con, workload_id, asked))
        tally = replace(tally, judged=judged.new, screened=judged.screened)
        held_rows.record_losses(con, workload_id, rules.most_lost)
        return tally


@contextmanager
def _folder(kept: Path | None) -> Generator[Path]:
    """Provide a folder for judgements, a temporary one where none are kept."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with TemporaryDirectory(prefix="judgements-") as folder:
        yield Path(folder)


def _instructions(con: Connection) -> frozenset[str]:
    """Return the sentences of the workload's fixed system messages, by a sample of its rows."""
    sampled = warehouse.texts(con, _SAMPLED, rows=SAMPLED_ROWS)
    return bad_answers.instructions([interaction.system_texts(text) for text in sampled])


SAMPLED_ROWS = 200

_SAMPLED = """
    with sampled as (
        select interaction_id
        from staging.interactions
        order by interaction_id
        limit $rows
    )

    select messages
    from staging.texts
    semi join sampled using (interaction_id)
    order by interaction_id
"""


@contextmanager
def _compared(
    con: Connection,
    judged: JudgedRows,
    clients: Clients,
    settled: SettledSides,
    rules: Rules,
    folder: Path,
) -> Generator[tuple[AskedTexts, Relations]]:
    """Compare the rows with each other, and show the table ``judgements`` in the block."""
    # In the folder, where the next curation, or an erasure, deletes what a killed one left.
    with TemporaryDirectory(dir=folder) as shown:
        table = Path(shown) / "judgements.parquet"
        with gc_pause.paused(), warehouse.spilled(con):
            placed = place(judged, settled, rules, folder)
            placed = clean_by_client(placed, clients, settled, rules)
            placed.write(table, clients.ahead)
            asked, relations = placed.asked, placed.relations
            del placed
        with warehouse.present_file(con, "judgements", table):
            yield asked, relations


def _clusters(
    con: Connection, workload_id: str, judged: JudgedRows, relations: Relations
) -> dict[str, Sized]:
    """Return the clusters of the rows that stand for themselves or for others, too, in columns.

    A cluster is named by its first row.
    """
    ids = con.sql(_STANDING, params={"workload_id": workload_id}).to_arrow_table().column(0)
    rows = np.sort(TextCodes(ids).find(judged.ids))
    first = relations.dependent(rows)
    return {"interaction_id": judged.ids.take(rows), "component_id": judged.ids.take(first)}


_STANDING = """
    select interaction_id
    from curated.verdicts
    where workload_id = $workload_id and representative_id = interaction_id
"""


def _count_paraphrased(con: Connection, workload_id: str, asked: AskedTexts) -> Paraphrases:
    table = con.sql(_OF_SIDES, params={"workload_id": workload_id}).to_arrow_table()
    rows, is_held_out = TextCodes(table.column(0)).find(asked.ids), table.column(1).to_numpy()
    return decontamination.count_paraphrased(
        asked, np.sort(rows[~is_held_out]), np.sort(rows[is_held_out])
    )


_OF_SIDES = """
    select
        standings.interaction_id,
        standings.side = 'holdout' as is_held_out
    from curated.standings as standings
    inner join curated.verdicts as verdicts using (workload_id, interaction_id)
    where
        workload_id = $workload_id
        and verdicts.objection is null
        and standings.side != 'validation'
"""


def _cap_clusters(con: Connection, workload_id: str, most: int) -> None:
    warehouse.build(con, "temp/over_cluster_cap", workload_id=workload_id, holdout_per_cluster=most)
    con.execute(
        "update curated.verdicts set objection = 'over_cluster_cap', mark = over_cap.mark"
        " from temp.over_cluster_cap as over_cap"
        " where verdicts.interaction_id = over_cap.interaction_id"
    )


def place(judged: JudgedRows, settled: SettledSides, rules: Rules, scratch: Path) -> PlacedRows:
    """Compare, tie and place the accepted rows.

    Rows tied to a stricter side get an objection. Texts are compared in files of the folder
    ``scratch``.
    """
    requests = judged.requests
    has_guards = bool(rules.overlap.guards)
    words = request_words.separate(requests, scratch, with_whole=has_guards)
    places = near_requests.place(judged.order, requests, words, rules.near.jaccard)
    clusters, twins, equals = map(judged.numbers_at, places[:3])
    own, whole = (column.at(judged.order) for column in (words.asked, words.whole))
    asked = AskedTexts(judged.ids, own, whole, places.are_fixed[judged.order])
    del requests, words, places
    origins = judged.origins
    names, relations = row_clusters.tie(origins, clusters, rules.split_by, settled)
    label_texts, labels = judged.labels
    members = Members(
        names=names,
        ties=relations.ties,
        clusters=clusters,
        former_groups=origins.former_group,
        by_tools=origins.tools != MISSING,
        label_texts=label_texts,
        labels=labels,
        logged_us=judged.logged_us,
    )
    shares = Shares(rules.split_by, rules.holdout_share, rules.validation_share)
    placements = split.place(members, settled, shares)
    near = [None, *(near_objection(side) for side in range(1, len(SIDES)))]
    strictest = np.where(placements.strictest > placements.sides, placements.strictest, 0)
    objections = [near[side] for side in strictest.tolist()]
    return PlacedRows(judged, members, relations, placements, twins, equals, objections, {}, asked)


def clean_by_client(
    placed: PlacedRows, clients: Clients, settled: SettledSides, rules: Rules
) -> PlacedRows:
    """Object to rows that overlap with tested rows, and to rows that crowd out other clients."""
    if not clients.are_several:
        return clean(placed, rules)
    shares, rows = rules.clients, ClientRows(placed, clients, settled)
    placed = client_limits.cap_tested(rows, placed, shares)
    cleaned = clean(placed, rules)
    displacing = client_limits.displacing(
        rows,
        placed,
        cleaned,
        split_by=rules.split_by,
        overlap=rules.overlap,
        most=shares.displaced,
    )
    if displacing:
        placed = client_limits.leave_out(rows, placed, displacing, "displaces_other_client")
        cleaned = clean(placed, rules)
    return client_limits.cap_trained(rows, cleaned, shares)


def clean(placed: PlacedRows, rules: Rules) -> PlacedRows:
    """Object to rows that overlap with holdout, validation or guard texts."""
    accepted = np.array([not objection for objection in placed.objections], np.bool_)
    sides = placed.placements.sides
    held_out = sides == SIDES.index("holdout")
    validated = sides == SIDES.index("validation")
    overlaps = decontamination.decontaminate(
        placed.asked,
        np.flatnonzero(accepted & ~held_out),
        np.flatnonzero(accepted & held_out),
        rules.overlap,
        np.flatnonzero(accepted & validated),
    )
    objections, marks = [*placed.objections], dict(placed.marks)
    for row, overlap in overlaps.items():
        objections[row], marks[row] = overlap.objection, overlap.mark
    return replace(placed, objections=objections, marks=marks)


def _tally(
    con: Connection, workload_id: str, replayed: int, paraphrases: Paraphrases
) -> CurationTally:
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
        paraphrases=paraphrases,
    )
