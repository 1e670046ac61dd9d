"""Flow `rollback`: make an earlier champion the champion again, from the Prefect UI."""

from datetime import datetime

from prefect import flow, task
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from components.release import champions
from components.release.rollback_rules import Order
from flows import release_home, settings

UNNAMED = "somebody in the Prefect UI"  # the default for ``by``: Prefect knows no users


@flow(flow_run_name="{workload}")
def rollback(
    workload: str,
    to: str = "",
    by: str = UNNAMED,
    reason: str = "",
    code: str = "",
    signature: str = "",
) -> State[None]:
    """Make the previous champion the champion again, and record who ordered it.

    Args:
        workload: Whose champion.
        to: A version's number; the one that has the alias `previous` if left empty.
        by: Your name.
        reason: What the champion did wrong.
        code: Your one-time code, where the workload's rules require one. It proves that you were
            there, not what you ordered.
        signature: The output of the signing command, where the rules require a signature; a run
            without it fails and shows the command.
    """
    context = FlowRunContext.get()
    created = context.flow_run.created if context and context.flow_run else None
    summary = roll_back_task(workload, to, by, reason, code, signature, created)
    return Completed(message=summary)


@task
def roll_back_task(
    workload: str,
    to: str,
    by: str,
    reason: str,
    code: str = "",
    signature: str = "",
    ordered_at: datetime | None = None,
) -> str:
    """Roll back, each step written down; return a summary."""
    order = Order(
        workload,
        to.strip() or None,
        by.strip() or UNNAMED,
        reason,
        code=code,
        signature=signature,
        flow_run_id=str(flow_run.id or ""),
        ordered_at=ordered_at,
    )
    entry = champions.roll_back(release_home.of(settings.load()), order, get_run_logger().info)
    summary = champions.describe_rollback(entry)
    get_run_logger().info(summary)
    return summary
