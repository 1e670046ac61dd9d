import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows import settings
from flows.cli.main import app
from flows.settings import SettingsError
from flows.stack import control, stack_services


def test_home_and_ports_have_defaults() -> None:
    result = settings.load({"HOME": "/unused"})
    assert result.home == Path.home() / ".flywheel"
    assert result.prefect_api_url == "http://127.0.0.1:4200/api"
    assert result.mlflow_url == "http://127.0.0.1:5000"


def test_everything_lies_under_the_home_of_the_environment(tmp_path: Path) -> None:
    result = settings.load({"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_PREFECT_PORT": "4300"})
    assert result.prefect_port == 4300
    assert result.warehouse.parent == result.prefect_home.parent == result.logs.parent == tmp_path


@pytest.mark.parametrize("port", ["no", "0", "65536", "-1", "4200.0", "²"])
def test_a_port_that_is_none_is_refused_by_the_variables_name(port: str) -> None:
    with pytest.raises(SettingsError, match=r"FLYWHEEL_MLFLOW_PORT is .*expected a port"):
        settings.load({"FLYWHEEL_MLFLOW_PORT": port})


def test_one_port_for_both_servers_is_refused() -> None:
    with pytest.raises(SettingsError, match="both use port 4200"):
        settings.load({"FLYWHEEL_MLFLOW_PORT": "4200"})


KUBERNETES = {
    "FLYWHEEL_MLFLOW_PORT": "tcp://10.0.0.7:5000",
    "FLYWHEEL_MLFLOW_SERVICE_HOST": "10.0.0.7",
    "FLYWHEEL_MLFLOW_SERVICE_PORT": "5000",
    "FLYWHEEL_MLFLOW_PORT_5000_TCP": "tcp://10.0.0.7:5000",
    "FLYWHEEL_MLFLOW_PORT_5000_TCP_PORT": "5000",
}
"""What every pod beside a service `flywheel-mlflow` has, as with `helm install flywheel`."""


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_setting() -> None:
    assert settings.load(KUBERNETES).mlflow_port == 5000
    assert settings.unknown_variables(KUBERNETES) == {}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FLYWHEEL_STOER", "FLYWHEEL_STORE"),
        ("FLYWHEEL_STOR", "FLYWHEEL_STORE"),
        ("FLYWEEL_HOME", "FLYWHEEL_HOME"),
        ("FLYWHEEL_WEARHOUSE", "FLYWHEEL_WAREHOUSE"),
        ("FLYWHEEL_SERVER_PORT", "FLYWHEEL_SERVE_PORT"),
        ("FLYWHEEL_DATABASE", None),
    ],
)
def test_a_variable_that_nothing_reads_is_known(name: str, meant: str | None) -> None:
    ours = dict.fromkeys(settings.VARIABLES, "x")
    others = {"FLY_REGION": "ams", "PATH": "/bin"}
    assert settings.unknown_variables({**ours, **others, name: "x"}) == {name: meant}
    assert len(settings.misspelt_variables({name: "x"})) == (meant is not None)


def test_a_misspelt_variable_is_named_by_every_command(tmp_path: Path) -> None:
    env = {"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_STOER": "s3://bucket"}
    done = CliRunner().invoke(app, ["audit"], env=env)
    assert "did you mean FLYWHEEL_STORE?" in done.stderr


def test_every_variable_that_something_reads_is_known() -> None:
    root = Path(settings.__file__).parents[1]
    texts = [
        path.read_text()
        for folder in ("flows", "components", "infra")
        for path in (root / folder).rglob("*")
        if path.suffix in {".py", ".yaml", ".json", ".sh"}
    ]
    read = {name for text in texts for name in re.findall(r"\bFLYWHEEL_[A-Z_]*[A-Z]\b", text)}
    assert read == {*settings.VARIABLES}


ELSEWHERE = {
    "PREFECT_API_URL": "https://prefect.example.com/api/",
    "MLFLOW_TRACKING_URI": "https://mlflow.example.com",
}


def test_servers_elsewhere_are_the_ones_that_prefects_and_mlflows_variables_name() -> None:
    result = settings.load(ELSEWHERE)
    assert result.prefect_url == "https://prefect.example.com"
    assert result.prefect_api_url == "https://prefect.example.com/api"
    assert result.mlflow_url == "https://mlflow.example.com"


def test_the_variables_of_the_homes_own_stack_name_nothing_elsewhere() -> None:
    own = settings.load({})
    assert settings.load(stack_services.client_environment(own)) == own


def test_what_points_clients_elsewhere_points_them_there_again() -> None:
    result = settings.load(ELSEWHERE)
    assert settings.load(stack_services.client_environment(result)) == result


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        pytest.param({"MLFLOW_TRACKING_URI": ""}, "set MLFLOW_TRACKING_URI", id="no-mlflow"),
        pytest.param(
            {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"},
            "set MLFLOW_TRACKING_URI to the http",
            id="mlflow-is-a-file",
        ),
        pytest.param(
            {"PREFECT_API_URL": "https://prefect.example.com"}, "ending in /api", id="no-api"
        ),
        pytest.param(
            {"PREFECT_API_URL": "prefect.example.com/api"}, "expected http", id="no-scheme"
        ),
    ],
)
def test_one_server_elsewhere_without_the_other_is_refused(wrong: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        settings.load(ELSEWHERE | wrong)


def test_a_stack_whose_servers_are_elsewhere_is_not_started_here(tmp_path: Path) -> None:
    result = settings.load(ELSEWHERE | {"FLYWHEEL_HOME": str(tmp_path)})
    with pytest.raises(control.StackError, match=r"unset PREFECT_API_URL"):
        control.up(result, lambda _: None)
    assert not list(tmp_path.iterdir())


def test_the_state_of_servers_elsewhere_is_whether_they_answer(tmp_path: Path) -> None:
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "MLFLOW_TRACKING_URI": "http://[::1]:9"}
    result = control.stack_status(settings.load(nowhere | {"FLYWHEEL_HOME": str(tmp_path)}))
    assert result.phase == "elsewhere"
    assert not result.is_up
    assert {each.name: each.condition for each in result.services} == {
        "prefect": "gone",
        "mlflow": "gone",
    }
