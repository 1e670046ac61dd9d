import pytest

from components.curate.ray_pool import NodeProbe
from flows import settings
from flows.doctor import checks
from flows.settings import SettingsError

ADDRESS = "ray://head:10001"


def test_rows_are_judged_here_unless_a_cluster_is_named() -> None:
    assert settings.load({}).ray is None
    assert settings.load({"FLYWHEEL_RAY": ADDRESS}).ray == ADDRESS


@pytest.mark.parametrize("text", ["head:10001", "ray://head", "ray://:10001", "http://head:8265"])
def test_an_address_that_is_no_client_port_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="expected the client port"):
        settings.load({"FLYWHEEL_RAY": text})


@pytest.mark.parametrize(
    ("nodes", "is_open", "message"),
    [
        pytest.param([NodeProbe("10.0.0.2", 8, None)], True, "asks for no token", id="open"),
        pytest.param([], False, "no node with a core", id="empty"),
        pytest.param(
            [NodeProbe("10.0.0.2", 8, None), NodeProbe("10.0.0.3", 8, "has python 3.12")],
            False,
            "node 10.0.0.3 has python 3.12",
            id="other-node",
        ),
    ],
)
def test_the_doctor_names_what_is_wrong_with_a_cluster(
    nodes: list[NodeProbe], is_open: bool, message: str
) -> None:
    (result,) = checks.check_ray(ADDRESS, nodes, is_open=is_open)
    assert result.level == "wrong" and result.fix
    assert message in result.state


def test_the_doctor_counts_the_cores_of_a_cluster_that_is_right() -> None:
    nodes = [NodeProbe("10.0.0.2", 8, None), NodeProbe("10.0.0.3", 4, None)]
    (result,) = checks.check_ray(ADDRESS, nodes, is_open=False)
    assert (result.level, result.state) == (
        "fine",
        "2 node(s) with 12 core(s) judge rows as this machine",
    )
