"""The alert rules and figures before promtool, the dashboard before Grafana's own SDK."""

import json
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from components.store import counters
from components.store.counters import Count
from flows.settings import Settings
from flows.stack import prometheus
from tests.production.composed import INFRA

pytestmark = pytest.mark.production

MONITORING = INFRA / "monitoring"


def promtool(*arguments: str | Path, text: bytes = b"") -> str:
    """Run Prometheus' own checker, which must find nothing."""
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return (done.stdout + done.stderr).decode()


def test_prometheus_takes_the_rules_and_each_is_raised_when_it_should_be() -> None:
    assert "SUCCESS" in promtool("check", "rules", MONITORING / "alerts.yaml")
    assert "SUCCESS" in promtool("test", "rules", MONITORING / "alerts_test.yaml")


def test_prometheus_takes_the_figures_of_a_home(tmp_path: Path) -> None:
    counters.create(tmp_path)
    ended = {"stage": "turn", "workload": 'a "b"\\\n', "outcome": "success"}
    counts = [Count(prometheus.COUNT, 1, ended), Count(prometheus.SUM, 7.0, ended)]
    counters.add(tmp_path, counts)
    page = prometheus.metrics_page(Settings(home=tmp_path, prefect_port=1, mlflow_port=2))
    assert not promtool("check", "metrics", text=page)


def test_grafanas_own_model_of_a_dashboard_takes_all_of_ours() -> None:
    sdk = "grafana_foundation_sdk"
    import_module(f"{sdk}.cog.plugins").register_default_plugins()
    dashboard = import_module(f"{sdk}.models.dashboard").Dashboard
    encoder = import_module(f"{sdk}.cog.encoder").JSONEncoder()
    ours = json.loads((MONITORING / "dashboard.json").read_text())
    taken = json.loads(encoder.encode(dashboard.from_json(ours)))
    assert lost(ours, taken) == []


def lost(ours: object, taken: object, path: str = "") -> list[str]:
    """Name what is in one thing of JSON and not in the other."""
    if isinstance(ours, dict) and isinstance(taken, dict):
        if missing := [f"{path}/{key}" for key in ours if key not in taken]:
            return missing
        return [one for key in ours for one in lost(ours[key], taken[key], f"{path}/{key}")]
    if isinstance(ours, list) and isinstance(taken, list) and len(ours) == len(taken):
        pairs = enumerate(zip(ours, taken, strict=True))
        return [one for at, (mine, its) in pairs for one in lost(mine, its, f"{path}/{at}")]
    return [] if ours == taken else [path]
