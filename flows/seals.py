"""Seal a workload's policy before the first look at its holdout, and take each look under it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from prefect.runtime import flow_run

from components import looks, manifest, warehouse
from components.decide import record
from components.decide.record import Event
from components.decide.rules import Rules
from components.evaluate.task import FILE
from components.gate import policy as policies
from components.gate import spending
from components.gate.judgement import Judgement, Terms
from components.gate.policy import Policy
from components.looks import Book, Holdout, Look, Seal
from components.schema import Json
from components.scorecard import Scorecard
from components.warehouse import Connection
from flows import settings


@dataclass(frozen=True, slots=True)
class Taken:
    """A look that may be taken: its number, what of alpha is left for it, and under which terms.

    ``earlier`` are the looks before it at the same challenger by the same policy.
    """

    look: Look
    left: float
    terms: Terms
    earlier: tuple[Look, ...] = ()


def holdout(workload: str, version: str, snapshot: Path) -> Holdout:
    """Digest the requests of a snapshot's holdout."""
    messages = pq.read_table(snapshot / FILE, columns=["messages"])["messages"].to_pylist()
    return Holdout(workload, version, looks.rows(str(one) for one in messages))


def seal(policy: Policy, held: Holdout) -> None:
    """Seal the policy for a holdout, unless one is sealed; call it before anything is measured."""
    home, now = settings.load(), datetime.now(UTC)
    with warehouse.connect(home.warehouse) as con, warehouse.transaction(con):
        _sealed(con, looks.read(con), policy, held, now=now)


def seal_rules(workload: str, rules: Rules) -> None:
    """Put the rules for deciding into the chain, unless they are the last that it has."""
    with warehouse.connect(settings.load().warehouse) as con, warehouse.transaction(con):
        record.in_force(con, workload, rules, now=datetime.now(UTC))


def take(
    policy: Policy, held: Holdout, challenger: Scorecard, opponent: Scorecard, adapter: str
) -> Taken:
    """Enter a look before it is taken, with what it may spend; the same look is the same again.

    Args:
        policy: The workload's, as it is now.
        held: What is looked at.
        challenger: Its scorecard of the target's task.
        opponent: The opponent's.
        adapter: The challenger's.
    """
    home, now = settings.load(), datetime.now(UTC)
    body = policy.model_dump(mode="json")
    look = Look(
        workload_id=held.workload,
        challenger_scorecard=challenger.key,
        opponent_scorecard=opponent.key,
        task=policy.task,
        metric=policy.metric,
        policy_digest=manifest.digest(body),
        policy=looks.text(body),
        adapter=adapter,
        holdout_version=held.version,
        requests=len(challenger.samples),
        held=held.rows.count,
        sketch=held.rows.sketch,
        looked_at=now,
    )
    with warehouse.connect(home.warehouse) as con, warehouse.transaction(con):
        book = looks.read(con)
        if (same := book.find(look)) is not None:
            (under,) = (one for one in book.seals if one.decision == same.seal)
            return _taken(book.before(same), under, same, held, body)
        under = _sealed(con, book, policy, held, now=now)
        look = given(book, under, policy, held, look)
        if look.alpha:  # else nothing is looked at
            link = record.append(con, _event("looked", look, look.body, now))
            look = replace(look, decision=link.sequence)
            looks.enter_look(con, look)
        return _taken(book, under, look, held, body)


def given(book: Book, under: Seal, policy: Policy, held: Holdout, look: Look) -> Look:
    """Number a look, and give it its share of what all looks before it have left; pure."""
    before = book.counting(under, held, look.requests)
    spent = [
        spending.allowance(under.alpha, one.number) if one.alpha is None else one.alpha
        for one in before
    ]
    left = spending.left(min(under.alpha, policy.alpha), spent)
    number = 1 + len(before)
    alpha = spending.share(left, number, policy.looks)
    return replace(look, number=number, alpha=alpha, alpha_left=left, seal=under.decision)


def judged(taken: Taken, judgement: Judgement) -> Judgement:
    """Keep how a look came out, and say on the judgement under which terms it was taken."""
    if judgement.target is not None and taken.look.decision is not None:
        with warehouse.connect(settings.load().warehouse) as con:
            looks.enter_result(
                con, taken.look, test=judgement.target.test, outcome=judgement.outcome
            )
    return replace(judgement, terms=taken.terms)


def _sealed(con: Connection, book: Book, policy: Policy, held: Holdout, *, now: datetime) -> Seal:
    """Find the seal that holds for a holdout, or seal the policy."""
    if (found := book.sealed(held)) is not None:
        return found
    body = policy.model_dump(mode="json")
    made = Seal(
        decision=0,
        workload_id=held.workload,
        holdout_version=held.version,
        requests=held.rows.count,
        sketch=held.rows.sketch,
        policy_digest=manifest.digest(body),
        policy=looks.text(body),
        alpha=policy.alpha,
        sealed_at=now,
    )
    link = record.append(con, _event("sealed", made, made.body, now))
    made = replace(made, decision=link.sequence)
    looks.enter_seal(con, made)
    return made


def _event(kind: looks.Kind, about: Seal | Look, body: str, now: datetime) -> Event:
    return Event(
        kind=kind,
        workload=about.workload_id,
        evidence=about.policy_digest,
        flow_run_id=str(flow_run.id or ""),
        decided_at=now,
        body=body,
    )


def _taken(book: Book, under: Seal, look: Look, held: Holdout, policy: Mapping[str, Json]) -> Taken:
    """Say under which terms a look is taken; ``book`` is as it was before."""
    before = book.counting(under, held, look.requests)
    changes = policies.changes(looks.parsed(under.policy), policy)
    used = [
        one.looked_at
        for one in (*before, look)
        if one.policy_digest == look.policy_digest and (one.decision or 0) > 0
    ]
    left = look.alpha_left or 0.0
    terms = Terms(
        decision=under.decision,
        sealed_at=_moment(under.sealed_at),
        workload=under.workload_id,
        holdout_version=under.holdout_version,
        alpha=under.alpha,
        looks=len(before),
        left=left,
        others=tuple(sorted({one.workload_id for one in before} - {held.workload})),
        changes=changes,
        changed_at=_moment(min(used)) if changes and used else "",
    )
    same = (look.workload_id, look.adapter, look.task, look.policy_digest)
    earlier = tuple(
        one
        for one in before
        if (one.workload_id, one.adapter, one.task, one.policy_digest) == same
        and (one.decision or 0) > 0
        and one.alpha is not None
    )
    return Taken(look, left, terms, earlier)


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
