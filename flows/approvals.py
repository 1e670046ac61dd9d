"""The approval form, and how a waiting approval is found and answered from outside the UI."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import PrefectHTTPStatusError
from prefect.input import RunInput
from pydantic import Field

from components.decide.hearing import Answer
from components.decide.reasons import Reason
from components.decide.rules import Proof
from components.schema import Json
from flows import dispatch

GATE_KEY = "promotion-gate"
"""What the keys of answers begin with."""


class GateInput(RunInput):
    """The form that a person fills in."""

    decision: Literal["approve", "reject"] = Field(
        description="approve: the challenger becomes champion. reject: the champion stays."
    )
    approver: str = Field(
        min_length=1, max_length=64, description="Your name; it is stored with the decision."
    )
    comment: str = Field(default="", max_length=2000, description="Why; kept with the decision.")
    reason: Reason = Field(
        default="other", description="Of a rejection: what speaks against it. Else left as it is."
    )
    blame: str = Field(
        default="",
        max_length=4000,
        description="Of a rejection, what it is about, one a line: the beginning of a request's "
        "id, a part of the traffic such as tool=search, or guard=abstention. It comes first in the "
        "next review; what was trained on is held until then.",
    )


class CodedInput(GateInput):
    """The form where each answer carries a one-time code."""

    code: str = Field(
        default="",
        max_length=32,
        description="The six digits that your authenticator app shows now. They prove that you "
        "were here, not what you said: who can write Prefect's database can change the answer.",
    )


class SignedInput(GateInput):
    """The form where each answer carries the approver's SSH signature over what is decided."""

    signature: str = Field(
        default="",
        max_length=8000,
        description="Needed: all that the line above prints, which is what you decide and your "
        "signature over it. Decision, name, reason, comment and blame must be the same here as "
        "there.",
    )


FORMS: Mapping[Proof, type[GateInput]] = {
    "name": GateInput,
    "code": CodedInput,
    "signature": SignedInput,
}
"""The form for each kind of proof."""


def gate_key(attempt: int) -> str:
    """Name what Prefect keeps the how-manieth answer under; stable, for a run that is resumed."""
    return GATE_KEY if attempt == 1 else f"{GATE_KEY}-{attempt}"


UNDER_WAY = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED]
"""States of a promotion that has not ended."""


@dataclass(frozen=True, slots=True)
class Pending:
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


def page_key(workload: str) -> str:
    """Key of the artifacts that hold the pages of a workload's evidence."""
    return f"gate-{re.sub('[._]', '-', workload)}"


def report_key(workload: str) -> str:
    """Key of the artifacts that lead to a workload's reports."""
    return f"report-{re.sub('[._]', '-', workload)}"


def pending(*tags: str) -> list[Pending]:
    """List the approvals that wait for a person."""
    return [_pending(run) for run in dispatch.find("promote", *tags, states=[StateType.PAUSED])]


class NotTakenError(ValueError):
    """Prefect did not take an answer: it is not as the form wants it, or nobody is asked."""


def answer(flow_run_id: UUID, pause_key: str, given: Answer) -> None:
    """Resume a waiting promotion with a decision, as the form in the UI does; safe to repeat.

    Prefect's client asks again when the server dies before it has answered, and is then told that
    nobody waits any more. So what Prefect holds as the answer decides whether it was taken.

    Args:
        flow_run_id: The promotion.
        pause_key: What it waits for.
        given: The decision.

    Raises:
        NotTakenError: The run does not wait, or its form has no such fields.
        PrefectHTTPStatusError: The server is in trouble.
    """
    proofs = ("code", "signature")
    said = {name: text for name, text in asdict(given).items() if name not in proofs or text}
    with get_client(sync_client=True) as client:
        try:
            found = client.resume_flow_run(flow_run_id, run_input=said)
        except PrefectHTTPStatusError as error:
            if error.response.is_server_error:
                raise
            why = error.response.text
            raise NotTakenError(f"answering flow run {flow_run_id}: {why}") from error
        if found.status == SetStateStatus.ACCEPT or _held(client, flow_run_id, pause_key) == said:
            return
    why = getattr(found.details, "reason", None) or found.status.value.lower()
    raise NotTakenError(f"answering flow run {flow_run_id}: Prefect did not take it ({why})")


def _held(client: SyncPrefectClient, flow_run_id: UUID, pause_key: str) -> Json:
    """Read the answer that Prefect holds; ``None`` if it holds none."""
    key = f"suspended-{pause_key}-response"
    found = client.filter_flow_run_input(flow_run_id, key, limit=1, exclude_keys=set())
    return json.loads(found[0].value) if found else None


def answered_at(flow_run_id: UUID, attempt: int) -> datetime:
    """Tell when an answer was given: a run that is resumed may have to wait for its worker.

    Raises:
        LookupError: Prefect holds no answer.
    """
    key = f"suspended-{gate_key(attempt)}-response"
    with get_client(sync_client=True) as client:
        found = client.filter_flow_run_input(flow_run_id, key, limit=1, exclude_keys=set())
    if not found or found[0].created is None:
        raise LookupError(f"looking up the answer to flow run {flow_run_id}: there is no {key}")
    # Prefect's own kind of datetime forgets its zone when something is taken from it.
    return datetime.fromtimestamp(found[0].created.timestamp(), UTC)


def tagged(run: FlowRun, name: str) -> str:
    """Read what a promotion's tag says: its ``workload`` or its ``evidence``."""
    found = (tag.removeprefix(f"{name}:") for tag in run.tags if tag.startswith(f"{name}:"))
    return next(found, "")


def _pending(run: FlowRun) -> Pending:
    workload, evidence = tagged(run, "workload"), tagged(run, "evidence")
    since = run.state.timestamp if run.state else datetime.now(UTC)
    return Pending(run.id, run.name, workload, evidence, since, pause_key(run) or "")


def pause_key(run: FlowRun) -> str | None:
    """Name what a waiting run waits for; ``None`` if it doesn't wait."""
    if run.state is None or not run.state.is_paused():
        return None
    return run.state.state_details.pause_key
