"""The approval form, and how a waiting approval is found and answered from outside the UI."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.input import RunInput
from pydantic import Field

from flows import dispatch

GATE_KEY = "promotion-gate"
"""Prefect keeps the answer under this key; stable, so that a resumed run finds it."""


class GateInput(RunInput):
    """The form that a person fills in."""

    decision: Literal["approve", "reject"] = Field(
        description="approve: the challenger becomes champion. reject: the champion stays."
    )
    approver: str = Field(min_length=1, description="Your name; it is stored with the decision.")
    comment: str = Field(default="", description="Why; kept with the decision.")


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


def answer(
    flow_run_id: UUID, decision: Literal["approve", "reject"], approver: str, comment: str
) -> None:
    """Resume a waiting promotion with a decision, as the form in the UI does."""
    given = GateInput(decision=decision, approver=approver, comment=comment)
    with get_client(sync_client=True) as client:
        client.resume_flow_run(flow_run_id, run_input=given.model_dump())


def _pending(run: FlowRun) -> Pending:
    tagged = dict(tag.split(":", 1) for tag in run.tags if ":" in tag)
    since = run.state.timestamp if run.state else datetime.now(UTC)
    return Pending(run.id, run.name, tagged.get("workload", ""), tagged.get("evidence", ""), since)
