"""Preregister a workload's gate policy before a holdout is first used; record each use."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from prefect.runtime import flow_run

from components.decide import decision_log
from components.decide.approvers import ApprovalRules
from components.decide.decision_log import LogEvent
from components.evaluate import holdout_task
from components.evaluate.holdout_task import HOLDOUT_FILE
from components.gate import policy as policies
from components.gate import significance
from components.gate.judgement import Judgement, Terms
from components.gate.policy import Policy
from components.schema import Json
from components.scorecard import Scorecard
from components.store import ledger, manifest, warehouse
from components.store.ledger import Holdout, HoldoutLog, HoldoutUse, SealedPolicy
from components.store.warehouse import Connection
from flows import settings


@dataclass(frozen=True, slots=True)
class HoldoutUseTerms:
    """A permitted holdout use; ``earlier`` are those of the same challenger and policy."""

    look: HoldoutUse
    terms: Terms
    earlier: tuple[HoldoutUse, ...] = ()


def digest_holdout(workload: str, version: str, snapshot: Path, cap: int | None = None) -> Holdout:
    """Digest the requests of a snapshot's holdout, of which a cluster has at most ``cap``."""
    file = snapshot / HOLDOUT_FILE
    columns = holdout_task.with_clusters(file, ["messages", "group"])
    rows = pq.read_table(file, columns=columns).to_pylist()
    clusters = Counter(map(holdout_task.cluster_of, rows))
    digests = ledger.holdout_rows(str(row["messages"]) for row in rows)
    known = replace(digests, clusters=tuple(sorted(clusters.values())))
    return Holdout(workload, version, known, cap)


def seal_policy(policy: Policy, held: Holdout) -> None:
    """Seal the policy for a holdout, unless one is sealed; call it before anything is measured."""
    home, now = settings.load(), datetime.now(UTC)
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        _find_or_seal(con, ledger.read_holdout_log(con), policy, held, now=now)


def seal_rules(workload: str, rules: ApprovalRules) -> None:
    """Append the approval rules to the chain, unless they are its latest."""
    with warehouse.connect(settings.load().tables) as con, warehouse.transaction(con):
        decision_log.in_force(con, workload, rules, now=datetime.now(UTC))


def record_use(
    policy: Policy,
    held: Holdout,
    challenger: Scorecard,
    opponent: Scorecard,
    adapter: str,
    guards: Sequence[str] = (),
    scores: str = "",
) -> HoldoutUseTerms:
    """Record a holdout use and its alpha before it is made; idempotent.

    ``guards`` are the keys of the challenger's other scorecards that the policy judges by, and
    ``scores`` is a digest of all scores that are judged: with others it is another use, else they
    could be measured until they pass.
    """
    home, now, body = settings.load(), datetime.now(UTC), _body(policy, held)
    look = HoldoutUse(
        workload_id=held.workload,
        challenger_scorecard=challenger.key,
        opponent_scorecard=opponent.key,
        task=policy.task,
        metric=policy.metric,
        policy_digest=manifest.digest([body, *sorted(guards), scores]),
        policy=ledger.canonical_json(body),
        adapter=adapter,
        holdout_version=held.version,
        requests=len(challenger.samples),
        held=held.rows.count,
        sketch=held.rows.sketch,
        looked_at=now,
    )
    with warehouse.connect(home.tables) as con, warehouse.transaction(con):
        book = ledger.read_holdout_log(con)
        if (same := book.find(look)) is not None:
            (under,) = (seal for seal in book.seals if seal.decision == same.seal)
            return _use_terms(book.before(same), under, same, held, body)
        under = _find_or_seal(con, book, policy, held, now=now)
        look = allot_use(book, under, policy, held, look)
        if look.alpha:  # else nothing is looked at
            link = decision_log.append_event(con, _event("looked", look, look.body, now))
            look = replace(look, decision=link.sequence)
            ledger.record_holdout_use(con, look)
        return _use_terms(book, under, look, held, body)


def allot_use(
    book: HoldoutLog, under: SealedPolicy, policy: Policy, held: Holdout, look: HoldoutUse
) -> HoldoutUse:
    """Number a use, and allot it a share of the alpha that earlier uses left; pure.

    The uses of the holdout before it doubled may have chosen this challenger, so numbers go on from
    them, though their alpha is not counted; planned uses share it with so many more.
    """
    before = book.counting(under, held)
    spent = [use.alpha for use in before]
    earlier = sum(use not in before for use in book.informing(held))
    alpha, number = min(under.alpha, policy.alpha), 1 + len(before)
    if policy.looks is None:
        number += earlier
    else:
        alpha *= policy.looks / (policy.looks + earlier)
    left = significance.alpha_left(alpha, spent)
    share = significance.alpha_share(left, number, policy.looks)
    return replace(look, number=number, alpha=share, alpha_left=left, seal=under.decision)


def record_judgement(taken: HoldoutUseTerms, judgement: Judgement) -> Judgement:
    """Record the result of a use, and add its terms to the judgement."""
    if judgement.target is not None and taken.look.decision:
        with warehouse.connect(settings.load().tables) as con:
            ledger.record_result(
                con, taken.look, test=judgement.target.test, outcome=judgement.outcome
            )
    return replace(judgement, terms=taken.terms)


def _find_or_seal(
    con: Connection, book: HoldoutLog, policy: Policy, held: Holdout, *, now: datetime
) -> SealedPolicy:
    if (seal := book.sealed(held)) is not None:
        return seal
    body = _body(policy, held)
    made = SealedPolicy(
        decision=0,
        workload_id=held.workload,
        holdout_version=held.version,
        requests=held.rows.count,
        sketch=held.rows.sketch,
        policy_digest=manifest.digest(body),
        policy=ledger.canonical_json(body),
        alpha=policy.alpha,
        sealed_at=now,
    )
    link = decision_log.append_event(con, _event("sealed", made, made.body, now))
    made = replace(made, decision=link.sequence)
    ledger.record_seal(con, made)
    return made


def _body(policy: Policy, held: Holdout) -> dict[str, Json]:
    cap: dict[str, Json] = {} if held.cap is None else {ledger.CAP: held.cap}
    return policy.to_json() | cap


def _event(
    kind: ledger.Kind, about: SealedPolicy | HoldoutUse, body: str, now: datetime
) -> LogEvent:
    return LogEvent(
        kind=kind,
        workload=about.workload_id,
        evidence=about.policy_digest,
        flow_run_id=str(flow_run.id or ""),
        decided_at=now,
        body=body,
    )


def _use_terms(
    book: HoldoutLog,
    under: SealedPolicy,
    look: HoldoutUse,
    held: Holdout,
    policy: Mapping[str, Json],
) -> HoldoutUseTerms:
    """Return the terms of a holdout use; ``book`` is the log before it."""
    before = book.counting(under, held)
    changes = policies.changes(json.loads(under.policy), policy)
    used = [
        use.looked_at for use in (*before, look) if use.policy == look.policy and use.decision > 0
    ]
    terms = Terms(
        decision=under.decision,
        sealed_at=_timestamp(under.sealed_at),
        workload=under.workload_id,
        holdout_version=under.holdout_version,
        alpha=under.alpha,
        looks=len(before),
        left=look.alpha_left,
        others=tuple(sorted({use.workload_id for use in before} - {held.workload})),
        changes=changes,
        changed_at=_timestamp(min(used)) if changes and used else "",
    )
    same = (look.workload_id, look.adapter, look.task, look.policy)
    earlier = tuple(
        use for use in before if (use.workload_id, use.adapter, use.task, use.policy) == same
    )
    # If the same was measured twice, the scorecards that are kept are not those of the first use.
    measured = {(use.challenger_scorecard, use.opponent_scorecard) for use in earlier}
    return HoldoutUseTerms(look, terms, earlier if len(measured) == len(earlier) else ())


def _timestamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
