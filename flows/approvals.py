"""The approval form; list, find and answer waiting approvals."""

import json
import re
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias
from uuid import UUID

import httpx

from components.decide.record_answer import TypedAnswer
from components.schema import WORKLOAD_ID, Json
from components.store import manifest
from flows import prefect_api
from flows.prefect_api import Run

ArtifactKind: TypeAlias = Literal["canary", "gate", "loss", "monitor", "report", "search"]

GATE_KEY = "promotion-gate"  # prefix of the keys of answers

NO_FORM_YET = "Run input schema not found."
"""Prefect's reason where a run waits, and its form, which is stored after that, is not there."""

FORM_SECONDS = 30.0


def gate_key(attempt: int) -> str:
    """Return Prefect's key of the nth answer; stable, since a resumed run looks it up."""
    return GATE_KEY if attempt == 1 else f"{GATE_KEY}-{attempt}"


UNDER_WAY = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED"]  # of a promotion
OVER = ["CANCELLING", *sorted(prefect_api.FINAL)]


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """An approval that waits for a person."""

    flow_run_id: UUID
    name: str
    workload: str
    evidence: str
    since: datetime
    pause_key: str


def workload_tag(workload: str) -> str:
    """Tag of the flow runs that belong to a workload."""
    return f"workload:{workload}"


def evidence_tag(digest: str) -> str:
    """Tag of the promotion that asks about an evidence."""
    return f"evidence:{digest}"


def artifact_key(kind: ArtifactKind, workload: str) -> str:
    """Key under which a workload's artifacts of a kind form a history in Prefect.

    Prefect takes no dot and no underscore: a digest tells ``a.b`` from ``a_b`` and ``a-b``.
    """
    name = re.sub("[._]", "-", workload)
    return f"{kind}-{name}" + (f"-{manifest.digest(workload)[:8]}" if name != workload else "")


def pending_approvals(*tags: str) -> list[PendingApproval]:
    """List the approvals that wait for a person."""
    return [_pending_of_run(run) for run in prefect_api.find("promote", *tags, states=["PAUSED"])]


class NotTakenError(ValueError):
    """Prefect refused an answer: it does not fit the form, or the run does not wait."""


def answer_approval(flow_run_id: UUID, pause_key: str, answer: TypedAnswer) -> None:
    """Resume a waiting promotion with a decision, as the form in the UI does; idempotent.

    Raises:
        NotTakenError: The run does not wait for ``pause_key``, or its form has no such fields.
        httpx.HTTPStatusError: The server is in trouble.
    """
    proofs = ("code", "signature")
    run_input = {name: text for name, text in asdict(answer).items() if name not in proofs or text}
    until = time.monotonic() + FORM_SECONDS
    while True:
        try:
            reply = prefect_api.server().post(
                f"/flow_runs/{flow_run_id}/resume", {"run_input": run_input}
            )
        except httpx.HTTPStatusError as error:
            if error.response.is_server_error:
                raise
            why = error.response.text
            raise NotTakenError(f"answering flow run {flow_run_id}: {why}") from error
        # A request that is retried, because the server died before it answered, is refused: the run
        # no longer waits. The answer stored in Prefect decides whether it was accepted.
        if reply["status"] == "ACCEPT" or _stored_answer(flow_run_id, pause_key) == run_input:
            return
        why = (reply["details"] or {}).get("reason") or reply["status"].lower()
        if why == NO_FORM_YET and time.monotonic() < until:
            time.sleep(0.2)
            continue
        raise NotTakenError(f"answering flow run {flow_run_id}: Prefect did not take it ({why})")


def _stored_answer(flow_run_id: UUID, pause_key: str) -> Json:
    held = prefect_api.answer_held(flow_run_id, pause_key)
    return json.loads(held["value"]) if held else None


def answered_at(flow_run_id: UUID, attempt: int) -> datetime:
    """Return when an answer was submitted; a resumed run may have waited for its worker."""
    held = prefect_api.answer_held(flow_run_id, gate_key(attempt))
    if held is None or held["created"] is None:
        raise LookupError(
            f"looking up the answer to flow run {flow_run_id}: Prefect holds none to "
            f"{gate_key(attempt)}"
        )
    return datetime.fromisoformat(held["created"]).astimezone(UTC)


def tag_value(run: Run, name: str) -> str:
    """Return the value of a promotion's ``workload`` or ``evidence`` tag; empty if missing.

    With Prefect's login a tag can say anything, and this is shown, filtered by and recorded: empty,
    too, if it can be neither.
    """
    values = (tag.removeprefix(f"{name}:") for tag in run.tags if tag.startswith(f"{name}:"))
    return next((value for value in values if re.fullmatch(WORKLOAD_ID, value)), "")


def asked_evidence(run: Run) -> str:
    """Return the digest that a promotion asks about: its parameters decide, whatever its tags."""
    named = run.parameters.get("evidence")
    if not named:
        return tag_value(run, "evidence")
    digest = str(named)
    return digest if re.fullmatch(WORKLOAD_ID, digest) else ""


def start_or_find(workload: str, evidence: str) -> Run:
    """Start the promotion that asks about an evidence, or return the one that is under way.

    Of several turns that come to the same evidence at once, one starts it.
    """
    tags = [workload_tag(workload), evidence_tag(evidence)]
    runs = prefect_api.find("promote", *tags, states=[*UNDER_WAY, *OVER])
    if waiting := [run for run in runs if run.state_type in UNDER_WAY]:
        return waiting[-1]
    return start_after(runs[0].id if runs else None, workload, evidence)


def start_after(ended: UUID | None, workload: str, evidence: str) -> Run:
    """Start the promotion that follows one that ended, or return the one that did; idempotent.

    ``ended`` is ``None`` for the first on an evidence.
    """
    tags = [workload_tag(workload), evidence_tag(evidence)]
    parameters = {"workload": workload, "evidence": evidence}
    while True:
        # Prefect makes one run for a key. Runs are not counted for it, as people delete them.
        key = f"after {ended}" if ended else f"{workload} {evidence}"
        run = prefect_api.start("promote/promote", parameters, tags, key)
        if not (run.state and run.state.is_final()):
            return run
        ended = run.id


def asked_by(evidence: str, run_id: UUID, lapsed: Collection[str] = ()) -> Run | None:
    """Return the older promotion that asks about the same evidence as this one, if any.

    Anybody with Prefect's login may start a second one, and of two that ask people only one is
    answered. One that was answered by now carries on: an older one that had crashed may be retried.
    ``lapsed`` are the runs that ask no more.
    """
    if prefect_api.answer_held(run_id, gate_key(1)) is not None:
        return None
    own = prefect_api.read(run_id)
    runs = prefect_api.find("promote", states=UNDER_WAY)
    older = [
        run
        for run in runs
        if asked_evidence(run) == evidence
        and str(run.id) not in lapsed
        and (run.created, str(run.id)) < (own.created, str(own.id))
    ]
    return older[-1] if older else None


def _pending_of_run(run: Run) -> PendingApproval:
    workload, evidence = tag_value(run, "workload"), asked_evidence(run)
    since = run.state.timestamp if run.state else datetime.now(UTC)
    return PendingApproval(run.id, run.name, workload, evidence, since, pause_key(run) or "")


def pause_key(run: Run) -> str | None:
    """Return the key a suspended run waits for, or ``None``."""
    if run.state is None or not run.state.is_paused():
        return None
    return run.state.pause_key
