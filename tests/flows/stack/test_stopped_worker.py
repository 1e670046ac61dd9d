"""A worker that is the first process of its container, as in the images, is told to stop."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_URL

from flows import deploy
from flows.deployments import Spec
from flows.settings import load
from tests.flows.stack.conftest import MODULES

CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.skipif(os.geteuid() != 0, reason="a namespace of processes wants root")
def test_what_runs_is_saved_and_reported_before_the_container_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(MODULES))
    deploy.deploy_specs([Spec("tiny_flows:saving", "gpu")], load({"FLYWHEEL_HOME": str(tmp_path)}))
    file = tmp_path / "checkpoint"
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("saving/saving")
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters={"config": str(file)}
        )
        env = os.environ | {
            "PREFECT_API_URL": str(PREFECT_API_URL.value()),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "FLYWHEEL_HOME": str(tmp_path),
        }
        worker = [sys.executable, "-m", "flows.stack.worker", "gpu", "1"]
        with subprocess.Popen([*CONTAINER, *worker], env=env) as container:
            until(file.exists)
            (first,) = psutil.Process(container.pid).children()
            first.terminate()
            ended = container.wait(60)
        assert file.read_text() == "saved"
        state = client.read_flow_run(run.id).state
    assert state is not None
    assert state.is_crashed(), "and not running until nothing was heard of it for an hour"
    assert ended == 0


def until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.1)
