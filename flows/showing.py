"""Show evidence where people look: its report in MLflow, a link to it and the brief in Prefect."""

from collections.abc import Mapping

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.context import TaskRunContext

from components import warehouse
from components.dataset.card import NAME as CARD
from components.dataset.snapshot import folder_name
from components.decide import record
from components.gate import evidence
from components.gate.evidence import Evidence
from components.gate.report.write import REPORT
from components.register import tracking
from flows import approvals, settings


def _once_per_evidence(_: TaskRunContext, parameters: dict[str, Evidence]) -> str:
    return f"report-{parameters['found'].digest}"


@task(persist_result=True, cache_key_fn=_once_per_evidence)
def show(found: Evidence) -> str:
    """Add the evidence to its adapter's MLflow run, and lead there from Prefect; give the link.

    The run says where the chain of decisions ends by now, with the look at the holdout.

    Whoever is asked to approve gets the brief with the form; of what did not pass it is kept here.
    """
    workload = found.subject.workload
    run_id = tracking.find_run(workload, found.subject.adapter)
    with warehouse.connect(settings.load().warehouse) as con:
        head = record.head(con)
    if head is not None:
        tracking.anchor(run_id, head.anchor)
    page = f"{settings.load().mlflow_url}/{tracking.log_evidence(run_id, found.folder)}/{REPORT}"
    said = f"{workload}: {found.judgement.outcome}, the report"
    create_link_artifact(page, said, key=approvals.report_key(workload), description=found.digest)
    if found.judgement.outcome != "pass":
        create_markdown_artifact(
            (found.folder / evidence.BRIEF).read_text(),
            key=approvals.page_key(workload),
            description=found.digest,
        )
    return page


def links(found: Evidence) -> Mapping[str, str]:
    """Say where the whole report, the training's run and all artifacts of its kind are."""
    home, workload = settings.load(), found.subject.workload
    run_id = tracking.find_run(workload, found.subject.adapter)
    report = f"{tracking.evidence_page(run_id, found.digest)}/{REPORT}"
    return {
        "the whole report": f"{home.mlflow_url}/{report}",
        "the adapter's run in MLflow": f"{home.mlflow_url}/{tracking.run_page(run_id)}",
        "pages of earlier turns": (
            f"{home.prefect_url}/artifacts/key/{approvals.page_key(workload)}"
        ),
    }


def card(found: Evidence) -> str:
    """Read the card of the data that the challenger learned from; empty where there is none."""
    folder = settings.load().snapshots / folder_name(found.subject.workload)
    path = folder / found.subject.snapshot / CARD
    return path.read_text() if path.exists() else ""
