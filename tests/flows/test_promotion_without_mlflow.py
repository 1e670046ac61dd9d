"""An approval is not lost to a tracking server that is away."""

import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from prefect import flow

from components.register import mlflow_api, registry
from flows import promote
from tests.support.approved_versions import approved_versions, mlflow_server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

AWAY = mlflow_api.PATIENCE_SECONDS + 15
"""Longer than a request waits for a server that restarts."""


def test_a_promotion_waits_until_mlflow_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    with approved_versions(tmp_path, is_served=False) as made, ExitStack() as stack:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        with mlflow_server(tmp_path / "mlflow", port):
            evidence = made.register("support", 1, is_approved=False)
            asked = made.register("orders", 1, is_approved=False)
        decision, workload = made.approve(evidence), made.described("support")
        soon = promote.promote_task.with_options(retry_delay_seconds=1)
        # What a promotion does first when it is resumed by the answer.
        again = promote.challenge_task.with_options(retry_delay_seconds=1)

        @flow
        def promotes() -> str:
            later.start()
            resumed = again.submit(made.described("orders"), asked)
            number = soon(workload, evidence, decision).version.number
            resumed.result()
            return number

        def come_back() -> None:
            stack.enter_context(mlflow_server(tmp_path / "mlflow", port))

        later = threading.Timer(AWAY, come_back)
        stack.callback(later.cancel)
        assert promotes() == "1"
        later.join()
        champion = registry.champion_version("support")
        assert champion is not None
        assert champion.evidence == evidence.digest
