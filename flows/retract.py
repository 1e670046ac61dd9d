"""Take back from Prefect what shows erased rows, and what people wrote about who is erased."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelled

from flows import approvals, dispatch

PAGE = 200
"""Artifacts and inputs that are asked for at once."""

WRITTEN_IN = ("promote", "rollback")
"""Flows that people write something to."""

ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]


@dataclass(frozen=True, slots=True)
class Retracted:
    """The approvals that were cancelled, by flow run, and how many pages and forms went."""

    approvals: tuple[str, ...]
    pages: int


def retract(workload: str, digests: Iterable[str], certificate_id: str) -> Retracted:
    """Cancel every promotion on the evidence that has not ended, and delete all its pages.

    Safe to repeat: what was cancelled for this certificate before is told again.
    """
    wanted = set(digests)
    runs = [
        run
        for digest in sorted(wanted)
        for run in dispatch.find("promote", approvals.evidence_tag(digest), states=[*StateType])
    ]
    said = f"the data of its evidence was erased (certificate {certificate_id})"
    with get_client(sync_client=True) as client:
        cancelled = [str(run.id) for run in runs if _cancel(client, run, said)]
        pages = sum(_drop_forms(client, run.id) for run in runs)
        pages += _drop_artifacts(client, workload, wanted)
    return Retracted(tuple(cancelled), pages)


def forget(is_about: Callable[[str], bool], workload: str | None = None) -> int:
    """Delete ended promotions and rollbacks in which somebody is written about; return how many.

    What was decided stands in the chain. One that still waits for an answer stays.

    Args:
        is_about: Tells whether a text is.
        workload: Whose runs; those of all when left out.
    """
    ended = [run for flow in WRITTEN_IN for run in dispatch.find(flow, states=ENDED)]
    with get_client(sync_client=True) as client:
        found = [
            run.id
            for run in ended
            if workload in (None, _workload(run)) and any(map(is_about, _texts(client, run)))
        ]
        for run_id in found:
            client.delete_flow_run(run_id)
    return len(found)


def _workload(run: FlowRun) -> str:
    return approvals.tagged(run, "workload") or str(run.parameters.get("workload", ""))


def _texts(client: SyncPrefectClient, run: FlowRun) -> Iterator[str]:
    """Give what people wrote: in forms and answers, to a rollback, and as the word at the end."""
    yield (run.state.message if run.state else None) or ""
    yield from map(str, run.parameters.values())
    answers = client.filter_flow_run_input(run.id, key_prefix="", limit=PAGE, exclude_keys=set())
    yield from (str(one.value) for one in answers)


def _cancel(client: SyncPrefectClient, run: FlowRun, said: str) -> bool:
    if run.state is not None and run.state.is_final():
        return run.state.is_cancelled() and run.state.message == said
    client.set_flow_run_state(run.id, Cancelled(message=said), force=True)
    return True


def _drop_forms(client: SyncPrefectClient, run_id: UUID) -> int:
    """Delete what a promotion asks with: the form's description is the page."""
    found = client.filter_flow_run_input(run_id, key_prefix="", limit=PAGE, exclude_keys=set())
    for one in found:
        client.delete_flow_run_input(run_id, one.key)
    return len(found)


def _drop_artifacts(client: SyncPrefectClient, workload: str, digests: set[str]) -> int:
    """Delete the pages, and the links to reports, among the workload's artifacts.

    Their description is the digest.
    """
    keys = [approvals.page_key(workload), approvals.report_key(workload)]
    key = ArtifactFilterKey(any_=keys)
    dropped, offset = 0, 0
    while True:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=key), limit=PAGE, offset=offset
        )
        for one in found:
            if one.description in digests:
                client.delete_artifact(one.id)
                dropped += 1
            else:
                offset += 1
        if len(found) < PAGE:
            return dropped
