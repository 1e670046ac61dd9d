"""The file ``serve.yaml``, and what commands read of the gateway."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.serve.settings import OpenAiFallback
from flows import gateway_status, settings
from flows.cli import main
from flows.gateway_status import NotServingError, ServeFileError
from flows.settings import Settings

NOW = "2026-11-27T09:00:00+00:00"
SERVED = {
    "version": "7",
    "since": NOW,
    "proved_at": NOW,
    "unproved": False,
    "replicas": ["embedded"],
    "model": "support.v7-0123456789ab",
    "precision": "fp32",
}


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    (tmp_path / "serve").mkdir()
    return settings.load({"FLYWHEEL_HOME": str(tmp_path)})


def write_status(home: Settings, **changes: object) -> None:
    status = {"routes": {"support": {"epoch": 1, "champion": SERVED}}, "refused": []} | changes
    (home.serve / "status.json").write_text(json.dumps(status))


def test_every_mistake_of_the_file_is_listed(home: Settings):
    home.serve_settings.write_text(
        "engine: {kind: vllm}\nloging: required\nswap: {min_ready: -1}\n"
    )
    with pytest.raises(ServeFileError) as raised:
        gateway_status.read_serve_settings(home, None)
    text = str(raised.value)
    assert "serve.yaml: 3 mistake(s)" in text
    for mistake in ("engine: vllm needs `replicas`", "loging: no such", "swap.min_ready: "):
        assert mistake in text


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        pytest.param(
            "engine: {kind: nim, replicas: [{name: a, url: 'http://x:1'},"
            " {name: a, url: 'http://x:1/'}]}",
            ["needs `adapters`", "the same name: a, a", "one server: http://x:1, http://x:1"],
            id="replicas",
        ),
        pytest.param(
            "swap: {min_ready: 2}",
            ["`swap.min_ready` is 2, and `engine` has 1"],
            id="nothing-would-serve",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_mistakes(
    home: Settings, text: str, mistakes: list[str]
):
    home.serve_settings.write_text(text)
    with pytest.raises(ServeFileError) as raised:
        gateway_status.read_serve_settings(home, None)
    assert all(mistake in str(raised.value) for mistake in mistakes), raised.value


def test_a_key_that_is_there_twice_is_no_setting(home: Settings):
    home.serve_settings.write_text(
        "workloads:\n  support: {fallbacks: [replica]}\n  support: {fallbacks: []}\n"
    )
    with pytest.raises(ServeFileError, match="is not YAML: `support` is there twice") as raised:
        gateway_status.read_serve_settings(home, None)
    assert 'serve.yaml", line 3' in str(raised.value)


def test_the_file_on_the_page_is_right_and_serves_every_workload(home: Settings):
    text = (Path(__file__).parents[2] / "infra" / "gateway.md").read_text()
    (example,) = re.findall(r"## Serving\n.*?```yaml\n(.*?)```", text, re.DOTALL)
    home.serve_settings.write_text(example)
    options = gateway_status.read_serve_settings(home, None)
    assert options.only is None
    assert options.fallbacks_of("billing") == ("replica",)
    assert [type(each) for each in options.fallbacks_of("support")] == [str, OpenAiFallback]
    assert len(options.fallbacks_of("any-other")) == 3


def test_without_a_file_the_base_is_embedded(home: Settings):
    assert gateway_status.read_serve_settings(home, None).engine.kind == "embedded"


def test_a_file_that_is_named_must_exist(home: Settings):
    with pytest.raises(ServeFileError, match="can't be read: No such file"):
        gateway_status.read_serve_settings(home, home.home / "other.yaml")


def test_the_page_says_who_serves_and_what_was_refused(home: Settings):
    refusal = {"workload": "support", "version": "8", "reason": "it answers as its base", "at": NOW}
    write_status(home, refused=[refusal])
    assert gateway_status.describe(home, "support") == (
        "version 7 since 2026-11-27 09:00, proved at 2026-11-27 09:00; "
        "version 8 is refused: it answers as its base"
    )
    coming = {"workload": "billing", "version": "1", "step": "verifying"}
    write_status(home, preparing=[coming])
    assert gateway_status.describe(home, "billing") == (
        "not served; version 1 is being prepared (verifying)"
    )


def test_what_the_gateway_says_of_its_engine_is_read(home: Settings):
    out = {"name": "b", "condition": "out", "reason": "connection refused"}
    write_status(home, engine="vllm", replicas=[out])
    serving = gateway_status.read_serving(home, "support")
    assert (serving.engine, serving.replicas_out) == ("vllm", [("b", "connection refused")])


def test_a_canary_is_named_while_it_is_under_way(home: Settings):
    canary = {"workload": "support", "version": "8", "share": 0.1, "state": "running"}
    write_status(home, rollouts=[canary, canary | {"workload": "other", "version": "9"}])
    assert gateway_status.describe(home, "support").endswith(
        "; version 8 is a canary beside it: running"
    )
    write_status(home, rollouts=[])
    assert "canary" not in gateway_status.describe(home, "support")


def test_the_status_names_each_canary_and_its_share(
    home: Settings, monkeypatch: pytest.MonkeyPatch
):
    canary = {"workload": "support", "version": "8", "share": 0.1, "state": "running"}
    write_status(home, rollouts=[canary], knowledge_age_seconds=1.0)
    monkeypatch.setenv("FLYWHEEL_HOME", str(home.home))
    shown = CliRunner().invoke(main.app, ["serve", "status"])
    assert "canary support@8 at a share of 0.1: running" in shown.output


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 1, "routes": {"support": 5}}'])
def test_damaged_files_of_the_gateway_stop_nobody_who_asks(home: Settings, text: str):
    (home.serve / "status.json").write_text(text)
    serving = gateway_status.read_serving(home, "support")
    assert (serving.is_running, serving.champion) == (False, None)


def test_a_gateway_that_has_ended_does_not_count_as_serving(home: Settings):
    write_status(home)
    long_ago = time.time() - 3600
    os.utime(home.serve / "status.json", (long_ago, long_ago))
    with pytest.raises(NotServingError, match=r"3,600 s ago and has ended"):
        gateway_status.read_status(home)
    assert gateway_status.describe(home, "support") == "no gateway of this home runs"
