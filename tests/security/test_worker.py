"""Whoever may use Prefect's API chooses one of our flows and its parameters, and no command."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import jsonschema
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.workers.process import ProcessWorker

from flows import deployments, settings
from flows.deploy import process_template
from flows.stack.worker import FlowRefusedError, SealedJob, entrypoint_of

COMMAND = "touch /tmp/owned"
HOSTILE = {"command": COMMAND, "working_dir": "/tmp", "env": {"PYTHONPATH": "/tmp/evil"}}


def deployment(entrypoint: str | None, **more: object) -> DeploymentResponse:
    now = datetime.now(UTC)
    fields: dict[str, Any] = {"id": uuid4(), "created": now, "updated": now, "name": "x"}
    return DeploymentResponse.model_validate(
        fields | {"flow_id": uuid4(), "entrypoint": entrypoint} | more
    )


def started(template: dict[str, Any], named: DeploymentResponse) -> SealedJob:
    """Prepare a run as the worker does, with all that an attacker may set."""
    no_server = cast("PrefectClient", object())
    job = asyncio.run(SealedJob.from_template_and_values(template, HOSTILE, client=no_server))
    job.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="run"), named)
    return job


@pytest.mark.parametrize(
    "template",
    [
        pytest.param(process_template(settings.load({})), id="ours"),
        pytest.param(ProcessWorker.get_default_base_job_template(), id="changed-back-to-prefects"),
    ],
)
def test_a_run_starts_our_engine_whatever_template_deployment_and_run_say(
    template: dict[str, Any],
) -> None:
    job = started(template, deployment("flows.turn.turn", path="/tmp/evil"))
    assert job.command is not None
    assert job.command.endswith("-m flows.stack.engine")
    assert COMMAND not in job.command
    assert job.working_dir is None
    assert job.env["PREFECT__FLOW_ENTRYPOINT"] == "flows.turn.turn"
    assert job.env.get("PYTHONPATH") == os.environ.get("PYTHONPATH")


@pytest.mark.parametrize(
    "named",
    [
        pytest.param("/tmp/evil.py:flow", id="a-file"),
        pytest.param("evil.py:flow", id="a-relative-file"),
        pytest.param("flows/../../tmp/evil.py:flow", id="a-file-below-a-package"),
        pytest.param("os.system", id="another-module"),
        pytest.param("flows", id="no-flow"),
        pytest.param("flows.turn.turn:x", id="neither"),
        pytest.param("flows_evil.turn.turn", id="a-longer-name"),
        pytest.param("", id="empty"),
        pytest.param(None, id="none"),
    ],
)
def test_a_deployment_of_other_code_is_refused(named: str | None) -> None:
    with pytest.raises(FlowRefusedError, match="this worker runs flows of the packages flows"):
        entrypoint_of(deployment(named))


def test_steps_that_fetch_code_are_refused() -> None:
    step = {"prefect.deployments.steps.run_shell_script": {"script": COMMAND}}
    with pytest.raises(FlowRefusedError, match="has pull steps, which run commands"):
        entrypoint_of(deployment("flows.turn.turn", pull_steps=[step]))
    with pytest.raises(FlowRefusedError):
        entrypoint_of(None)


def test_all_our_own_flows_may_run(tmp_path: Path) -> None:
    for spec in deployments.specs(tmp_path):
        named = spec.flow.replace(":", ".")
        assert entrypoint_of(deployment(named)) == named


def test_an_operator_may_name_more_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_FLOWS", "flows,theirs")
    assert entrypoint_of(deployment("theirs.nightly.report")) == "theirs.nightly.report"


LOADS = """
import os, sys
from contextlib import suppress
from pathlib import Path
from prefect.results import ResultRecord, ResultRecordMetadata
from prefect.states import Completed
from flows.stack import engine

class Evil:
    def __reduce__(self):
        return os.system, ("touch owned",)

metadata = ResultRecordMetadata(storage_key=str(Path("kept").absolute()))
Path("kept").write_bytes(ResultRecord(result=Evil(), metadata=metadata).serialize())
if sys.argv[1] == "ours":
    with suppress(KeyError):  # no run is named
        engine.main()
Completed(data=metadata).result(retry_result_failure=False)
"""


@pytest.mark.parametrize(
    ("whose", "is_run"), [pytest.param("prefects", True, marks=pytest.mark.slow), ("ours", False)]
)
def test_our_engine_unpickles_nothing_that_a_state_in_prefect_names(
    tmp_path: Path, whose: str, is_run: bool
) -> None:
    command = [sys.executable, "-c", LOADS, whose]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (tmp_path / "owned").exists() == is_run
    assert ("somebody typed it" in done.stderr) != is_run


@pytest.mark.parametrize("name", list(HOSTILE))
def test_prefect_itself_refuses_a_run_that_chooses_how_it_starts(name: str) -> None:
    schema = process_template(settings.load({}))["variables"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({name: HOSTILE[name]}, schema)
