"""A name that another account of MLflow took is said to be theirs; a reserved one is nobody's."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient

from components.register import mlflow_api, registry
from components.register.registry import ModelNameTakenError
from flows.doctor import checks
from flows.stack import health
from tests.support import mlflow_stores

ADMIN, ANN = ("flywheel", "correct-horse-1"), ("ann", "battery-staple-2")
PROMPT = {"mlflow.prompt.is_prompt": "true"}  # the tag of MLflow's prompts


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """An MLflow without accounts."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_stores.create(tmp_path))
    return MlflowClient()


def test_a_model_is_reserved_once(store: MlflowClient) -> None:
    registry.reserve_model("support")
    registry.reserve_model("support")
    assert [model.name for model in store.search_registered_models()] == ["support"]


def test_a_prompt_with_a_workloads_name_is_said_to_be_in_the_way(store: MlflowClient) -> None:
    store.create_prompt("support")
    with pytest.raises(ModelNameTakenError, match="MLflow has a prompt of that name; delete it"):
        registry.reserve_model("support")


def test_doctor_names_who_else_may_change_a_model_and_what_helps() -> None:
    (found,) = checks.check_owners({"routing": [], "support": ["ann", "bob"]})
    assert (found.level, found.about) == ("wrong", "MLflow")
    assert "ann and bob may change the registered model support" in found.state
    assert "`flywheel account --remove` takes that from ann and bob" in str(found.fix)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An MLflow with accounts, as a team's, where this process is the admin."""
    settings = Path(__file__).parents[3] / "infra/mlflow_auth.ini"
    own = tmp_path / "auth.ini"
    own.write_text(
        settings.read_text().replace(
            "postgresql+psycopg2:///mlflow_auth", f"sqlite:///{tmp_path}/auth.db"
        )
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    variables = {
        "MLFLOW_AUTH_CONFIG_PATH": str(own),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN[0],
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--app-name=basic-auth", "--workers=1"),
        *("--host=127.0.0.1", f"--port={port}", f"--backend-store-uri=sqlite:///{tmp_path}/m.db"),
    )
    with subprocess.Popen(command, env={**os.environ, **variables}, cwd=tmp_path) as process:
        try:
            health.wait_until_answering(f"{url}/health")
            monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN[0])
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN[1])
            yield f"{url}/api/2.0/mlflow"
        finally:
            process.terminate()


@pytest.mark.production
def test_who_took_a_name_first_is_found_and_a_reserved_one_cannot_be_taken(server: str) -> None:
    def answer(path: str, body: dict[str, object], auth: tuple[str, str] = ANN) -> int:
        return httpx.post(f"{server}/{path}", json=body, auth=auth).status_code

    account: dict[str, object] = {"username": ANN[0], "password": ANN[1]}
    assert answer("users/create", account, ADMIN) == 200
    tags = [{"key": key, "value": value} for key, value in PROMPT.items()]
    assert answer("registered-models/create", {"name": "support"}) == 200
    assert answer("registered-models/create", {"name": "routing", "tags": tags}) == 200
    assert registry.owners("support") == registry.owners("routing") == ["ann"]
    with pytest.raises(ModelNameTakenError, match="ann may change routing in MLflow"):
        registry.reserve_model("routing")

    registry.reserve_model("shop")
    assert registry.owners("shop") == []
    assert answer("registered-models/create", {"name": "shop"}) == 400
    assert answer("registered-models/set-tag", {"name": "shop", "key": "a", "value": "b"}) == 403

    gone = httpx.request("DELETE", f"{server}/users/delete", json={"username": ANN[0]}, auth=ADMIN)
    assert gone.is_success
    assert answer("users/create", account, ADMIN) == 200
    assert registry.owners("support") == []


def test_without_accounts_nobody_else_owns_a_model(store: MlflowClient) -> None:
    store.create_registered_model("support")
    assert mlflow_api.rest("") is None
    assert registry.owners_note("support") == ""
