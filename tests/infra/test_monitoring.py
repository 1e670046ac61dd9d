"""Rules and dashboard name only series that we show; their checkers are in test-production."""

import json
import re
from pathlib import Path

import pytest
import yaml

from components.extensions.canary.rollouts import Rollouts
from components.receive.intake import Metrics
from components.serve.routes import Current
from components.serve.serve_metrics import ServeMetrics
from components.serve.settings import SwapSettings
from components.serve.swap import AdapterSwap
from components.store import counters
from components.store.counters import GAVE_UP, WAITED, Count
from flows.settings import Settings
from flows.stack import prometheus
from flows.workload_file import Workload
from tests.infra.pages import INFRA

MONITORING = INFRA / "monitoring"


def exported(home: Path) -> set[str]:
    """Return the names of all series that a home, a receiver and a gateway show."""
    settings = Settings(home=home, prefect_port=1, mlflow_port=2)
    receiver = Metrics()
    for name in ("held_bytes", "spooled_bytes", "spooled_oldest_seconds"):
        receiver.watch(name, "text", lambda: 0.0)
    gateway = ServeMetrics()
    gateway.watch_serving(Current(), dict)
    swap = AdapterSwap(home / "serve", {}, Current(), SwapSettings())
    gateway.collect(Rollouts(swap, home / "keys").metrics)
    for name in ("open_requests", "workloads", "can_log"):
        gateway.watch(name, "text", lambda: 0.0)
    pages = (prometheus.metrics_page(settings) + receiver.page() + gateway.page()).decode()
    kinds: dict[str, str] = dict(re.findall(r"(?m)^# TYPE (\w+) (\w+)$", pages))
    histogram = {f"{name}_{part}" for name in kinds for part in ("bucket", "sum", "count")}
    return {*kinds, *(name for name in histogram if kinds[name.rpartition("_")[0]] == "histogram")}


def expressions() -> list[str]:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    board = json.loads((MONITORING / "dashboard.json").read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    found += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return found + [one["query"] for one in board["templating"]["list"] if one["type"] == "query"]


def test_every_series_that_a_rule_or_a_panel_names_is_shown(tmp_path: Path) -> None:
    named = {name for text in expressions() for name in re.findall(r"flywheel_\w+", text)}
    assert len(named) >= 15
    assert not named - exported(tmp_path)


def test_each_rule_says_what_to_do_and_is_tried(tmp_path: Path) -> None:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    tried = yaml.safe_load((MONITORING / "alerts_test.yaml").read_text())["tests"]
    raised = {
        test["alertname"] for one in tried for test in one["alert_rule_test"] if test["exp_alerts"]
    }
    assert {rule["alert"] for rule in rules} == raised
    assert all(rule["annotations"].keys() == {"summary", "action"} for rule in rules)


@prometheus.count_stage("collect")
def collected(workload: Workload, fail: bool = False) -> str:
    if fail:
        raise ValueError(workload.workload)
    return "ok"


def test_stages_are_counted_by_workload_and_by_how_they_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Settings(home=tmp_path / "home", prefect_port=1, mlflow_port=2)
    monkeypatch.setenv("FLYWHEEL_HOME", str(home.home))
    workload = Workload(workload="gone", base=tmp_path)
    assert collected(workload) == "ok"
    with pytest.raises(ValueError, match="gone"):
        collected(workload=workload, fail=True)
    shown = prometheus.metrics_page(home).decode()
    where = 'stage="collect",workload="gone"'
    assert f"flywheel_stage_starts_total{{{where}}} 2.0" in shown
    assert f'flywheel_stage_seconds_count{{outcome="failed",{where}}} 1.0' in shown
    assert f'flywheel_stage_seconds_bucket{{le="1.0",outcome="success",{where}}} 1.0' in shown
    assert f"flywheel_stage_last_success_timestamp_seconds{{{where}}} 1" in shown


def test_waits_are_counted_where_a_home_counts_and_nowhere_else(tmp_path: Path) -> None:
    counters.add(tmp_path, [Count(WAITED, 1.0)])
    assert not list(tmp_path.iterdir())
    counters.create(tmp_path)
    for seconds in (1.5, 2.0):
        counters.add(tmp_path, [Count(WAITED, seconds), Count(GAVE_UP, 1.0)])
    shown = prometheus.metrics_page(Settings(home=tmp_path, prefect_port=1, mlflow_port=2)).decode()
    assert "flywheel_warehouse_wait_seconds_total 3.5" in shown
    assert "flywheel_warehouse_gave_up_total 2.0" in shown
