from pathlib import Path

import pytest

from flows import settings
from flows.settings import SettingsError


def test_home_and_ports_have_defaults() -> None:
    found = settings.load({"HOME": "/unused"})
    assert found.home == Path.home() / ".flywheel"
    assert found.prefect_api_url == "http://127.0.0.1:4200/api"
    assert found.mlflow_url == "http://127.0.0.1:5000"


def test_everything_lies_under_the_home_of_the_environment(tmp_path: Path) -> None:
    found = settings.load({"FLYWHEEL_HOME": str(tmp_path), "FLYWHEEL_PREFECT_PORT": "4300"})
    assert found.prefect_port == 4300
    assert found.warehouse.parent == found.prefect_home.parent == found.logs.parent == tmp_path


@pytest.mark.parametrize("port", ["no", "0", "65536", "-1", "4200.0", "²"])
def test_a_port_that_is_none_is_refused_by_the_variables_name(port: str) -> None:
    with pytest.raises(SettingsError, match=r"FLYWHEEL_MLFLOW_PORT is .*wants a port"):
        settings.load({"FLYWHEEL_MLFLOW_PORT": port})


def test_one_port_for_both_servers_is_refused() -> None:
    with pytest.raises(SettingsError, match="both want port 4200"):
        settings.load({"FLYWHEEL_MLFLOW_PORT": "4200"})
