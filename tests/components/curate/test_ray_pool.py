"""Rows are judged on the nodes of a Ray cluster as they are here; `make test-lake` runs this."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.components.curate.test_judgement_cache import lines, parts
from tests.support import logs, ray_cluster, warehouses
from tests.support.ray_cluster import ADDRESS, HEAD, Cluster

pytestmark = [pytest.mark.lake, pytest.mark.timeout(1500)]

DRIVER = ("-m", "tests.support.ray_driver")
IMPATIENT = {  # Ray's own limits, of 5 and of 30 s
    "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "5",
    "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "1",
}
ROWS = 9000  # more than a file of kept judgements has


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster.started() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with warehouses.connect(tmp_path / "warehouse.duckdb") as con:
        log = logs.write(tmp_path / "log.jsonl", lines(range(ROWS)))
        logs.load(con, log, now=logs.NOW)
    return tmp_path


def drive(cluster: Cluster, *arguments: str, **env: str) -> "subprocess.Popen[bytes]":
    driver = cluster.start(*DRIVER, *arguments, env={**ray_cluster.TOKEN, **env})
    assert printed(driver)["begins"]
    return driver


def printed(driver: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """Read its next line of JSON; Ray prints others."""
    assert driver.stdout is not None
    seen: list[str] = []
    for line in driver.stdout:
        if line.startswith(b"{"):
            return json.loads(line)
        seen.append(line.decode())
    raise AssertionError("the driver ended: " + "".join(seen))


def result(cluster: Cluster, *arguments: str, **env: str) -> dict[str, Any]:
    driver = drive(cluster, *arguments, **env)
    last = printed(driver)
    driver.communicate()
    return last


def is_judging(cluster: Cluster, node: str) -> bool:
    titles = [" ".join(process.cmdline()) for process in alive(cluster, node)]
    return any(title.startswith("ray::_run") for title in titles)


def alive(cluster: Cluster, node: str) -> Iterator[psutil.Process]:
    for process in cluster.processes(node):
        try:
            if process.cmdline():
                yield process
        except psutil.NoSuchProcess:
            continue


def wait_until(is_so: Any) -> None:
    while not is_so():
        time.sleep(0.05)


def files(snapshot: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(snapshot).iterdir()}


def test_results_are_in_input_order(cluster: Cluster) -> None:
    assert result(cluster, "total", "doubled", "5000") == {"results": [*range(0, 10_000, 2)]}


def test_items_are_read_lazily(cluster: Cluster) -> None:
    assert result(cluster, "lazy")["taken"] < 10_000


def test_an_error_of_the_work_is_raised_as_it_was(cluster: Cluster) -> None:
    assert result(cluster, "total", "quotients", "1000")["kind"] == "ZeroDivisionError"


def test_a_row_has_its_limit_of_time_on_a_node_too(cluster: Cluster) -> None:
    assert result(cluster, "total", "interrupted", "1")["results"] == [True]


def test_a_node_killed_during_a_curation_changes_no_byte(cluster: Cluster, home: Path) -> None:
    here = result(cluster, "curate", str(home), "here", "")
    cluster.start_node("127.0.0.3")
    driver = drive(cluster, "curate", str(home), "there", ADDRESS)
    wait_until(lambda: is_judging(cluster, "127.0.0.3"))
    cluster.kill_node("127.0.0.3")
    there = printed(driver)
    assert there["judged"] == here["judged"] == ROWS
    assert files(there["snapshot"]) == files(here["snapshot"])


def wrong(cluster: Cluster) -> str:
    """Return the only thing that the doctor finds wrong."""
    ((level, state),) = result(cluster, "probe")["results"]
    assert level == "wrong"
    return state


def test_a_node_with_other_code_is_refused_and_the_doctor_names_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    # One that another test has killed may be known a little longer.
    wait_until(lambda: [level for level, _ in result(cluster, "probe")["results"]] == ["fine"])
    other = tmp_path / "other"
    for package in ("components", "flows", "tests"):
        shutil.copytree(ray_cluster.ROOT / package, other / package)
    with (other / "components/curate/row_judgement.py").open("a") as file:
        file.write("# other\n")
    cluster.start_node("127.0.0.4", env={**ray_cluster.TOKEN, "PYTHONPATH": str(other)})
    try:
        assert "node 127.0.0.4 has our code" in result(cluster, "unlike", ADDRESS)["error"]
        # Busy cores answer late.
        wait_until(lambda: "node 127.0.0.4 has our code" in wrong(cluster))
    finally:
        cluster.kill_node("127.0.0.4")


def test_an_interrupt_ends_what_runs_on_the_nodes(cluster: Cluster) -> None:
    driver = drive(cluster, "total", "endless", "1000")
    wait_until(lambda: is_judging(cluster, HEAD))
    (inside,) = psutil.Process(driver.pid).children()
    inside.send_signal(signal.SIGINT)
    driver.communicate()
    wait_until(lambda: not is_judging(cluster, HEAD))


def test_a_killed_curation_leaves_nothing_running(cluster: Cluster) -> None:
    driver = drive(cluster, "total", "endless", "1000", **IMPATIENT)
    wait_until(lambda: is_judging(cluster, HEAD))
    (inside,) = psutil.Process(driver.pid).children()
    inside.kill()
    driver.communicate()
    wait_until(lambda: not is_judging(cluster, HEAD))


def test_without_the_token_nobody_runs_code(cluster: Cluster) -> None:
    assert result(cluster, "stranger")["is_open"] is False
    brief = {"RAY_AUTH_MODE": "disabled", **IMPATIENT}
    refused = cluster.start(*DRIVER, "total", "doubled", "1000", env=brief)
    assert printed(refused)["begins"]
    assert printed(refused)["kind"] == "RayPoolError"
    refused.communicate()


def test_a_lost_head_ends_the_curation_and_keeps_what_was_judged(home: Path) -> None:
    with ray_cluster.started(env={"RAY_AUTH_MODE": "disabled"}) as cluster:
        assert result(cluster, "stranger", RAY_AUTH_MODE="disabled")["is_open"] is True
        brief = {"RAY_AUTH_MODE": "disabled", **IMPATIENT}
        driver = drive(cluster, "curate", str(home), "lost", ADDRESS, **brief)
        kept = home / "lost" / "judgements"
        wait_until(lambda: [path for path in parts(kept) if path.suffix == ".parquet"])
        cluster.kill_node(HEAD)
        assert "what was judged before is kept" in printed(driver)["error"]
        driver.communicate()
        assert 0 < result(cluster, "curate", str(home), "lost", "")["judged"] < ROWS
