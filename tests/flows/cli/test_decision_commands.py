"""``flywheel audit`` and ``flywheel approver`` as a person types them."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.decide import decision_log
from components.decide.approvers import Approver
from components.decide.decision_log import LogEvent
from components.gate.policy import Policy
from components.store import ledger, warehouse
from components.store.ledger import Holdout
from flows import approver_keys, preregistration
from tests.support import terminal, warehouses
from tests.support.cards import pair
from tests.support.terminal import Terminal

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
HOSTILE = "\x1b[2J[red]fine[/red] $(touch owned) <b>"


@pytest.fixture
def shell(tmp_path: Path) -> Terminal:
    (tmp_path / "home").mkdir()
    return terminal.in_home(tmp_path / "home", is_forked=True)


def decide(shell: Terminal, *runs: str) -> None:
    with warehouses.connect(shell.settings.warehouse) as con:
        for run in runs:
            event = LogEvent("reject", "support", "e1", run, NOW, "ann", HOSTILE, reason="cost")
            with warehouse.transaction(con):
                decision_log.append_event(con, event)


@pytest.mark.slow
def test_decisions_are_listed_verified_exported_and_tampering_is_found(
    shell: Terminal, tmp_path: Path
) -> None:
    assert shell.run("audit").stdout == "nothing was decided yet\n"
    decide(shell, "run-1", "run-2")
    listed = shell.run("audit").stdout
    assert listed.splitlines()[0] == (
        "   1  support  evidence e1  2026-01-01 12:30 UTC  reject cost by ann "
        "\\u001b[2J[red]fine[/red] $(touch owned) <b>"
    )
    assert shell.run("audit", "--workload", "other").stdout == "nothing was decided yet\n"
    path = tmp_path / "auditors" / "decisions.jsonl"
    exported = shell.run("audit", "--verify", "--export", path)
    assert "2 decisions, the chain holds; MLflow was not asked; 0 texts" in exported.stdout
    assert [json.loads(line)["sequence"] for line in path.read_text().splitlines()] == [1, 2]
    decide(shell, "run-3")
    assert shell.run("audit", "--verify", "--against", path).returncode == 0
    with warehouses.connect(shell.settings.warehouse) as con:
        con.execute("update raw.decision_chain set kind = 'approve' where sequence = 2")
    broken = shell.run("audit", "--verify")
    assert broken.returncode == 1
    assert broken.stderr.startswith("decision 2 was changed: its content has another digest")
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.slow
def test_seals_and_looks_are_listed_and_verified_with_the_decisions(
    shell: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(shell.settings.home))
    ours, theirs = pair(40, 2, 40, 10)
    held = Holdout("support", "v1-abc", ledger.holdout_rows(map(str, range(132))))
    preregistration.seal_policy(Policy(), held)
    preregistration.record_use(Policy(), held, ours, theirs, "a1")
    sealed, looked = shell.run("audit").stdout.splitlines()
    assert sealed.endswith("sealed holdout version v1-abc, alpha 0.05")
    assert looked.endswith(
        "looked holdout version v1-abc, look 1 by correct_name, given alpha 0.025 under the policy "
        "that was sealed as 1"
    )
    assert "  support  policy " in looked
    verified = shell.run("audit", "--verify")
    assert "; 1 sealed policies, 1 looks under them; names" in verified.stdout
    with warehouses.connect(shell.settings.warehouse) as con:
        con.execute("update raw.looks set alpha = 0")
    broken = shell.run("audit", "--verify")
    assert broken.returncode == 1
    assert broken.stderr.startswith("decision 2 was changed: the look that is kept is not the one")


def test_a_secret_is_shown_once_and_kept_for_its_owner_only(shell: Terminal) -> None:
    enrolled = shell.run("approver", "add", "ada")
    assert enrolled.returncode == 0, enrolled.stderr
    (secret,) = re.findall(r"secret=([A-Z2-7]+)", enrolled.stdout)
    path = approver_keys.secret_file(shell.settings, "ada")
    assert path.stat().st_mode & 0o777 == 0o600
    assert approver_keys.find_secret(shell.settings, Approver(name="ada")) == secret
    again = shell.run("approver", "add", "ada")
    assert (again.returncode, secret in again.stdout) == (2, False)
    assert "--again replaces it" in again.stderr
    assert shell.run("approver", "add", "ada", "--again").returncode == 0
    assert approver_keys.find_secret(shell.settings, Approver(name="ada")) != secret


def test_a_secret_that_others_may_read_is_not_used(shell: Terminal) -> None:
    approver_keys.enrol_approver(shell.settings, "ada", again=False)
    approver_keys.secret_file(shell.settings, "ada").chmod(0o644)
    with pytest.raises(approver_keys.SecretError, match="others than its owner may read"):
        approver_keys.find_secret(shell.settings, Approver(name="ada"))


def test_a_secret_comes_from_the_environment(shell: Terminal) -> None:
    listed = Approver(name="ada", secret_env="ADAS_CODES")
    assert approver_keys.find_secret(shell.settings, listed, {}) is None
    env = {"ADAS_CODES": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"}
    assert approver_keys.find_secret(shell.settings, listed, env) == env["ADAS_CODES"]
    with pytest.raises(approver_keys.SecretError, match="ADAS_CODES holds no secret"):
        approver_keys.find_secret(shell.settings, listed, {"ADAS_CODES": "hunter2"})


@pytest.mark.parametrize(
    "name",
    [
        "../ada",
        *(pytest.param(it, marks=pytest.mark.slow) for it in ("ada\n", "<b>ada", "-ada", "a/b")),
        pytest.param("x" * 70, marks=pytest.mark.slow),
    ],
)
def test_a_name_that_is_none_is_not_enrolled(shell: Terminal, name: str) -> None:
    refused = shell.run("approver", "add", "--", name)
    assert refused.returncode == 2
    assert not shell.settings.approvers.exists()
