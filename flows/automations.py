"""Prefect automations: start requested turns, notify people, crash dead runs."""

from collections.abc import Sequence
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.events.schemas.automations import AutomationCore

from components.schema import Json
from flows import trials
from flows.monitor import REGRESSED, TURN_WANTED

NOTIFIER = "flywheel"  # the name of blocks (Slack, e-mail, any webhook) that receive notifications

REMINDER = timedelta(days=1)  # how long an approval waits before a second notification

SILENCE = timedelta(hours=1)
"""How long a running run may be silent: longer than any outage of a Prefect server. With 90 s a
healthy run was taken for dead after an outage of 2 minutes."""

RUN = "prefect.flow-run."
BEAT, SUSPENDED = f"{RUN}heartbeat", f"{RUN}Suspended"
ENDS = [f"{RUN}{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")]
RESTS = [SUSPENDED, *(f"{RUN}{state}" for state in ("Paused", "AwaitingRetry", "Scheduled"))]
GOES_ON = [f"{RUN}{state}" for state in ("Resuming", "Pending", "Running")]


def install_automations() -> list[str]:
    """Create or update all automations; return their names."""
    with get_client(sync_client=True) as client:
        turn = str(client.read_deployment_by_name("turn/turn").id)
        automations = [
            _start_automation(turn),
            _crash_automation(),
            *_notify_automations(_find_notifiers(client)),
        ]
        for automation in automations:
            _upsert(client, automation)
    return [automation.name for automation in automations]


def _upsert(client: SyncPrefectClient, automation: AutomationCore) -> None:
    if existing := client.read_automations_by_name(automation.name):
        kept = automation.model_copy(update={"enabled": existing[0].enabled})
        client.update_automation(automation_id=existing[0].id, automation=kept)
    else:
        client.create_automation(automation=automation)


def _automation(
    name: str, description: str, trigger: dict[str, Json], actions: Sequence[dict[str, Json]]
) -> AutomationCore:
    posture: Json = "Proactive" if "within" in trigger else "Reactive"
    event: Json = {"type": "event", "posture": posture, "threshold": 1, **trigger}
    return AutomationCore.model_validate(
        {
            "name": f"flywheel: {name}",
            "description": description,
            "trigger": event,
            "actions": [*actions],
        }
    )


def _start_automation(turn: str) -> AutomationCore:
    parameters: Json = {
        name: {"__prefect_kind": "jinja", "template": f"{{{{ event.payload.{name} }}}}"}
        for name in ("config", "start")
    }
    return _automation(
        "start a turn that is wanted",
        "`consider` requests it; the page of `monitor` shows the reason.",
        {"expect": [TURN_WANTED]},
        [{"type": "run-deployment", "deployment_id": turn, "parameters": parameters}],
    )


def _crash_automation() -> AutomationCore:
    message = f"No heartbeat for {SILENCE}: nothing runs it"
    # Nothing else notices that the machine of a run is gone.
    return _automation(
        "crash runs without a heartbeat",
        f"Silent for {SILENCE}: the machine that ran it is gone.",
        {
            "after": [BEAT],
            "expect": [BEAT, *ENDS, *RESTS],
            "for_each": ["prefect.resource.id"],
            "within": SILENCE.total_seconds(),
        },
        [{"type": "change-flow-run-state", "state": "CRASHED", "message": message}],
    )


def _notify_automations(notifiers: Sequence[BlockDocument]) -> list[AutomationCore]:
    """Return the notifications, each sent through every notifier; empty without notifiers."""
    if not notifiers:
        return []
    waits = "An approval waits: {{ flow_run.name }}, {{ flow_run|ui_url }}"
    ended = (
        "{{ flow_run.name }} ended {{ flow_run.state.name }}: {{ flow_run.state.message }}, "
        "{{ flow_run|ui_url }}"
    )
    notices: dict[str, tuple[dict[str, Json], str]] = {
        "an approval waits": ({"expect": [SUSPENDED], **_match_flow("promote")}, waits),
        "an approval has waited for a day": (
            {
                "after": [SUSPENDED],
                "expect": [*GOES_ON, *ENDS],
                "for_each": ["prefect.resource.id"],
                "within": REMINDER.total_seconds(),
                **_match_flow("promote"),
            },
            f"Still: {waits}",
        ),
        "a champion is liked less than what was before it": (
            {"expect": [REGRESSED]},
            "{{ event.payload.workload }}, version {{ event.payload.version }}: "
            "{{ event.payload.reason }}; `flywheel rollback {{ event.payload.workload }}`",
        ),
        "a canary ended, or is undecided": (
            {"expect": [trials.CHANGED]},
            "{{ event.payload.workload }}, canary of version {{ event.payload.version }}: "
            "{{ event.payload.outcome }}: {{ event.payload.reason }}; "
            "`flywheel serve canary show {{ event.payload.workload }}`",
        ),
        "a turn crashed or failed": (
            {"expect": [f"{RUN}Crashed", f"{RUN}Failed"], **_match_flow("turn")},
            ended,
        ),
    }
    return [
        _automation(
            f"say that {what}",
            f"Notifies the blocks called `{NOTIFIER}`.",
            trigger,
            [_notify_action(notifier, what, body) for notifier in notifiers],
        )
        for what, (trigger, body) in notices.items()
    ]


def _match_flow(flow: str) -> dict[str, Json]:
    return {"match_related": {"prefect.resource.role": "flow", "prefect.resource.name": flow}}


def _notify_action(notifier: BlockDocument, what: str, body: str) -> dict[str, Json]:
    block: Json = str(notifier.id)
    if notifier.block_type and notifier.block_type.slug == "webhook":
        return {"type": "call-webhook", "block_document_id": block, "payload": body}
    action: dict[str, Json] = {"type": "send-notification", "block_document_id": block}
    return action | {"subject": f"Flywheel: {what}", "body": body}


def _find_notifiers(client: SyncPrefectClient) -> list[BlockDocument]:
    return [block for block in client.read_block_documents(limit=200) if block.name == NOTIFIER]
