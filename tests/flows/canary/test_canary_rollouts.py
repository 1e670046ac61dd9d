"""An approved version answers a share first, and what its evidence shows is carried out."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from components.decide import chain, decision_log
from components.extensions.canary import rollout_evidence, rollout_order
from components.extensions.canary.rollout_evidence import AnswerLine
from components.register import registry, taint, version_tags
from components.register.registry import Aliases
from components.register.version_tags import CANARY
from components.release import champions, release_state, releases
from components.release.release_state import RollbackError
from components.release.rollback_rules import Order
from components.store import warehouse
from flows import promotion, release_home
from flows.approval_loop import StaleEvidenceError
from flows.canary import canary_rollouts, rollout_reports, settle_rollouts
from flows.canary.canary_rollouts import RolloutError
from flows.cli import main
from flows.promotion import RolledBackError
from flows.settings import Settings
from flows.workload_file import WorkloadError
from tests.support import canary_home
from tests.support.canary_home import CanaryHome


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Generator[Settings]:
    with canary_home.empty_home(tmp_path_factory.mktemp("canaries")) as made:
        yield made


ROOT = Path(__file__).parents[3]

NUMBERS = count(1)


@pytest.fixture
def running(home: Settings) -> CanaryHome:
    """A canary of version 2 beside champion 1, in a workload of this test's own."""
    made = CanaryHome(home, f"canary-{next(NUMBERS)}")
    made.describe()
    made.serve()
    made.approve(1)
    made.approve(2)
    return made


@pytest.mark.slow
def test_an_approved_version_answers_a_share(running: CanaryHome) -> None:
    assert running.aliases() == Aliases(champion="1", canary="2")
    order = rollout_order.read(running.tags("2")[version_tags.ROLLOUT_TAG])
    assert (order.plan.version, order.plan.champion, order.plan.decisive) == ("2", "1", ())
    assert running.version("2").decision == "approve"
    assert running.rollout().order == order.to_text()
    assert [*running.rollout().entries] == ["intended", "started"]
    assert rolled_back(running, "2") is None


def rolled_back(made: CanaryHome, number: str) -> str | None:
    return release_state.rolled_back(made.home.tables, made.workload, made.version(number).adapter)


def kinds_of(home: CanaryHome) -> list[tuple[str, str]]:
    """Return the links about the canary's evidence, with what each was."""
    with warehouse.connect(home.home.warehouse) as con:
        links = decision_log.links(con, evidence=home.rollout().intention.evidence_digest)
        assert chain.first_broken(decision_log.links(con), decision_log.read_head(con)) is None
        assert decision_log.first_unproved(decision_log.links(con)) is None
    return [(link.kind, decision_log.body_value(link, "event")) for link in links]


def settle(home: CanaryHome) -> str | None:
    """Settle, and return what was done."""
    done = settle_rollouts.settle(home.home, home.workload)
    return done.outcome if done else None


def journal_of(home: CanaryHome) -> list[tuple[str, str, str | None, str | None, bool]]:
    with warehouse.connect(home.home.warehouse) as con:
        changes = [each.change for each in release_state.read_state(con, home.workload).changes]
    return [
        (c.kind, c.asked_by, c.champion_before, c.version, c.rollout_id is not None)
        for c in changes
    ]


def test_what_holds_becomes_champion_by_rule(running: CanaryHome) -> None:
    running.make_decisive()
    assert settle(running) is None
    running.report("running")
    assert settle(running) is None
    assert running.report_counts((400, 400)) == "hold"
    evidence = rollout_reports.evidence_file(running.home, running.rollout().id)
    with evidence.open("ab") as file:  # what comes after the look changes nothing any more
        for number in range(400):
            line = AnswerLine(3600, f"x{number}", 0.5, "canary", frozenset({"slow"}), None)
            file.write(rollout_evidence.to_bytes(line))
    assert settle(running) == "hold"
    assert settle(running) is None
    assert running.aliases() == Aliases(champion="2", previous="1")
    assert version_tags.ROLLOUT_TAG not in running.tags("2")
    assert running.tags("2")[version_tags.APPROVER_TAG] == "ann"
    assert journal_of(running)[-1] == ("promoted", canary_rollouts.RULE, "1", "2", True)
    assert kinds_of(running) == [
        ("approve", ""),
        ("released", ""),
        ("canary", "start"),
        ("canary", "hold"),
        ("promoted", ""),
    ]
    assert not releases.release_status(release_home.of(running.home), running.workload).objections


@pytest.mark.slow
def test_what_is_worse_is_rolled_back_by_rule_and_not_asked_about_again(
    running: CanaryHome,
) -> None:
    assert running.report_counts((300, 60)) == "roll back"
    assert settle(running) == "roll back"
    assert settle(running) is None
    assert running.aliases() == Aliases(champion="1")
    assert journal_of(running)[-1] == ("rollback", canary_rollouts.RULE, "2", "1", True)
    assert kinds_of(running)[-1] == ("rollback", "roll back")
    assert running.version("2").rolled_back.startswith(
        f"to version 1 by {canary_rollouts.RULE}: slow: 300"
    )
    why = rolled_back(running, "2")
    assert why is not None
    assert "answered a share as version 2 and was rolled back by canary" in why
    assert rolled_back(running, "1") is None
    ending = running.rollout().ending
    assert ending is not None
    assert len(ending.content()["history"]) == 1  # type: ignore[arg-type]
    assert champions.chain_anchors()  # the version that was left names the order
    assert not releases.release_status(release_home.of(running.home), running.workload).objections
    with pytest.raises(RolledBackError):
        running.promote(running.evidence("2"))
    with pytest.raises(RolloutError, match="no version may answer"):
        settle_rollouts.start_by_order(running.home, running.describe(), None, print)


@pytest.mark.slow
def test_people_are_told_once_of_what_is_undecided_and_it_may_be_decided_later(
    running: CanaryHome,
) -> None:
    running.report("undecided", "no kind was frequent enough")
    assert [settle(running), settle(running)] == ["undecided", None]
    assert running.aliases().canary == "2"
    assert kinds_of(running)[-1] == ("canary", "undecided")
    running.report_counts((300, 60))
    assert settle(running) == "roll back"


@pytest.mark.slow
@pytest.mark.parametrize("state", ["void", "stopped"])
def test_what_became_void_leaves_the_version_as_approved_as_it_was(
    running: CanaryHome, state: str
) -> None:
    running.report(state)
    assert settle(running) == "stopped"
    assert running.aliases() == Aliases(champion="1")
    assert rolled_back(running, "2") is None
    begun = settle_rollouts.start_by_order(running.home, running.describe(), None, print)
    assert begun.intention.version == "2"
    assert running.aliases().canary == "2"


@pytest.mark.slow
def test_without_champion_or_gateway_a_version_becomes_champion_at_once_and_why(
    home: Settings,
) -> None:
    made = CanaryHome(home, "at-once")
    made.describe()
    made.stop_serving()
    _, first = made.approve(1)
    assert first.became == (
        "is champion at once: there is no champion yet that a canary could be compared with"
    )
    _, second = made.approve(2)
    assert "at once: no gateway of this home runs" in second.became
    made.serve("another")
    _, third = made.approve(3)
    assert "at once: the gateway does not serve this workload" in third.became
    made.describe(serve={"rollout": "immediate"})
    made.serve()
    _, fourth = made.approve(4)
    assert fourth.became == "is champion"
    assert made.aliases() == Aliases(champion="4", previous="3")


def test_an_approval_while_the_gateway_restarts_skips_no_canary(home: Settings) -> None:
    made = CanaryHome(home, "restarting")
    rules = made.describe().serve
    made.serve()
    for minutes, is_skipped in ((10, False), (120, True)):  # as after a reboot, or for good
        last = time.time() - 60 * minutes
        os.utime(home.serve / "status.json", (last, last))
        why = canary_rollouts.immediate_reason(home, rules, "1", made.workload)
        assert (why is not None) is is_skipped, why


@pytest.mark.slow
def test_what_is_tested_does_not_pass_because_the_gateway_restarts(running: CanaryHome) -> None:
    running.stop_serving()
    again = running.promote(running.evidence("2"))  # the nightly turn asks about the same adapter
    assert again.became.startswith("answers a share")
    assert running.aliases() == Aliases(champion="1", canary="2")
    assert [*running.rollout().entries] == ["intended", "started"]


@pytest.mark.slow
def test_a_newer_approval_replaces_a_canary(running: CanaryHome) -> None:
    first = running.rollout()
    _, newer = running.approve(3)
    assert newer.became.startswith("answers a share")
    assert running.aliases() == Aliases(champion="1", canary="3")
    (older,) = [
        each
        for each in canary_rollouts.rollouts_of(running.home, running.workload)
        if each.id == first.id
    ]
    assert older.ending is not None
    assert older.ending.note == "version 3 was approved, and its canary begins"
    assert version_tags.ROLLOUT_TAG not in running.tags("2")
    with pytest.raises(StaleEvidenceError, match="version 3, which was approved after it"):
        running.promote(running.evidence("2"))  # it had crashed, or somebody runs it again
    assert running.aliases() == Aliases(champion="1", canary="3")
    running.describe(serve={"rollout": "immediate"})
    running.approve(4)
    assert running.aliases() == Aliases(champion="4", previous="1")


@pytest.mark.slow
def test_a_rollback_of_the_champion_stops_a_canary(home: Settings) -> None:
    made = canary_home.canary_of_a_third(home, "earlier")
    assert made.aliases() == Aliases(champion="2", previous="1", canary="3")
    champions.roll_back(release_home.of(home), Order("earlier", None, "bob", "rude"))
    assert made.aliases() == Aliases(champion="1")
    assert made.rollout().is_settled
    assert rolled_back(made, "3") is None


@pytest.mark.slow
def test_the_end_of_a_canary_outdates_no_order_to_roll_the_champion_back(home: Settings) -> None:
    made = canary_home.canary_of_a_third(home, "ordered")
    ordered_at = datetime.now(UTC)
    canary_rollouts.record_end(home, made.rollout(), "roll back", "worse")
    assert settle(made) == "roll back"
    champions.roll_back(
        release_home.of(home), Order("ordered", None, "bob", "rude", ordered_at=ordered_at)
    )
    assert made.aliases() == Aliases(champion="1")


@pytest.mark.slow
def test_an_erasure_ends_a_canary(running: CanaryHome) -> None:
    adapter = running.version("2").adapter
    taint.flag_tainted(running.workload, {adapter}, "c1")
    assert running.aliases().canary is None
    assert settle(running) == "stopped"
    ending = running.rollout().ending
    assert ending is not None
    assert "rows that were erased (certificate c1)" in ending.note


@pytest.mark.slow
def test_a_report_without_the_evidence_of_the_order_makes_no_champion(running: CanaryHome) -> None:
    running.report("hold")
    with pytest.raises(RolloutError, match="says `hold` for version 2, and the 0 lines of"):
        settle(running)
    assert running.report_counts((10, 10)) == "running"
    kinds = [{"kind": "slow", "within": 1e9}]
    running.make_decisive()
    running.report("hold", verdict={"outcome": "hold", "elapsed": 3600, "kinds": kinds})
    with pytest.raises(RolloutError, match="the 20 lines of"):
        settle(running)
    assert running.aliases() == Aliases(champion="1", canary="2")


@pytest.mark.slow
def test_a_hold_by_another_order_makes_no_champion(running: CanaryHome) -> None:
    running.make_decisive()
    running.report_counts((400, 400))
    order = json.loads(running.rollout().order)
    order["plan"]["margin"] = 100.0
    tags = {version_tags.ROLLOUT_TAG: json.dumps(order)}
    registry.tag_version(running.workload, "2", tags)
    assert settle(running) == "stopped"
    ending = running.rollout().ending
    assert ending is not None
    assert ending.note == "somebody changed its order in MLflow"


def test_a_forged_hold_makes_nothing_champion_that_nobody_approved(running: CanaryHome) -> None:
    running.make_decisive()
    running.report_counts((400, 400))
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEo9pTq7Vd2o7lqvd3Bq5c6hjP3k0r1y5xQ0m3m6s6mB"
    running.describe(approve={"approvers": [{"name": "ada", "keys": [key]}], "proof": "signature"})
    assert settle(running) == "stopped"  # the approval was ann's, who proves nothing
    assert running.aliases() == Aliases(champion="1")


@pytest.mark.slow
def test_what_is_no_report_changes_nothing(running: CanaryHome) -> None:
    file = running.report("hold")
    deep = "[" * 100_000
    for content in ("", "{", "[]", '{"id": 3}', file.read_text().replace("null", "NaN"), deep):
        file.write_text(content)
        assert settle(running) is None
    assert running.aliases() == Aliases(champion="1", canary="2")


@pytest.mark.slow
def test_a_report_about_an_older_order_changes_nothing(running: CanaryHome) -> None:
    running.report("roll back", id="0" * 12)
    assert settle(running) is None


@pytest.mark.slow
def test_an_alias_that_somebody_moved_ends_it_and_the_audit_says_so(running: CanaryHome) -> None:
    running.approve(3)
    registry.put_alias(running.workload, CANARY, "2")
    status = releases.release_status(release_home.of(running.home), running.workload)
    (objection,) = status.objections
    assert "stands on version 2, but no canary of it was started: somebody moved it" in objection
    assert settle(running) == "stopped"
    assert running.aliases().canary == "2"  # which is not ours to judge: the audit goes on


@pytest.mark.slow
def test_a_canary_that_somebody_deleted_ends_and_keeps_no_other_from_beginning(
    running: CanaryHome,
) -> None:
    MlflowClient().delete_model_version(running.workload, "2")
    assert settle(running) == "stopped"
    assert running.rollout().is_settled
    _, newer = running.approve(3)
    assert newer.became.startswith("answers a share")


@pytest.mark.slow
def test_a_broken_file_keeps_nothing_bad_and_promotes_nothing(running: CanaryHome) -> None:
    running.make_decisive()
    running.report_counts((400, 400))
    file = running.home.home.parent / f"{running.workload}.yaml"
    text = file.read_text()
    file.write_text(text + "gate: 3\n")
    with pytest.raises(WorkloadError):
        settle(running)
    assert running.aliases() == Aliases(champion="1", canary="2")
    running.report_counts((300, 60))
    assert settle(running) == "roll back"


@pytest.mark.slow
def test_another_policy_since_the_approval_stops_it_at_the_end(running: CanaryHome) -> None:
    running.make_decisive()
    running.report_counts((400, 400))
    running.describe(gate={"floor": 0.9})
    assert settle(running) == "stopped"
    assert running.aliases() == Aliases(champion="1")


@pytest.mark.slow
def test_a_person_sends_an_undecided_one_on(running: CanaryHome) -> None:
    order = Order(running.workload, None, "bob", "thin traffic")
    done = settle_rollouts.stop_by_order(running.home, order, "canary")
    assert done.outcome == "sent on"
    assert running.aliases() == Aliases(champion="2", previous="1")
    assert journal_of(running)[-1] == ("promoted", "bob", "1", "2", True)
    assert kinds_of(running)[-2:] == [("canary", ""), ("promoted", "")]
    with pytest.raises(RolloutError, match="none runs"):
        settle_rollouts.stop_by_order(running.home, order, "champion")


@pytest.mark.slow
def test_a_person_sends_one_back(running: CanaryHome) -> None:
    order = Order(running.workload, None, "bob", "rude " * 30_000)  # MLflow takes 100,000
    assert settle_rollouts.stop_by_order(running.home, order, "champion").outcome == "roll back"
    assert running.aliases() == Aliases(champion="1")
    assert running.rollout().is_settled
    assert running.version("2").rolled_back.startswith("to version 1 by bob: rude rude")
    assert kinds_of(running)[-1] == ("rollback", "")
    assert rolled_back(running, "2") is not None


@pytest.mark.slow
def test_who_may_not_decide_ends_no_canary(running: CanaryHome) -> None:
    running.describe(approve={"approvers": [{"name": "ann"}]})
    with pytest.raises(RollbackError, match="this name is not on the list"):
        settle_rollouts.stop_by_order(
            running.home, Order(running.workload, None, "eve", ""), "champion"
        )
    with pytest.raises(RollbackError, match=r"sending the canary on of .* this name is not on"):
        settle_rollouts.stop_by_order(
            running.home, Order(running.workload, None, "eve", ""), "canary"
        )
    assert running.aliases() == Aliases(champion="1", canary="2")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["order", "tag"])
def test_an_interrupted_start_is_finished(running: CanaryHome, step: str) -> None:
    with warehouse.connect(running.home.warehouse) as con:  # as a kill leaves it
        con.execute(
            "delete from raw.rollouts where workload_id = $name and step = 'started'",
            {"name": running.workload},
        )
    registry.put_alias(running.workload, CANARY, None)
    if step == "order":
        registry.tag_version(running.workload, "2", {version_tags.ROLLOUT_TAG: None})
    assert settle(running) == "started"
    assert running.aliases() == Aliases(champion="1", canary="2")
    assert running.tags("2")[version_tags.ROLLOUT_TAG] == running.rollout().order
    assert running.promote(running.evidence("2")).became.startswith("answers a share")
    assert len(canary_rollouts.rollouts_of(running.home, running.workload)) == 1


@pytest.mark.parametrize(
    "outcome", ["hold", "roll back", pytest.param("stopped", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_an_interrupted_end_is_finished(running: CanaryHome, outcome: str) -> None:
    canary_rollouts.record_end(running.home, running.rollout(), outcome, "why")  # type: ignore[arg-type]
    canary_rollouts.record_end(running.home, running.rollout(), "stopped", "a second end")
    assert settle(running) == outcome
    champion = "2" if outcome == "hold" else "1"
    assert running.aliases().champion == champion
    assert running.aliases().canary is None
    ending = running.rollout().ending
    assert ending is not None
    assert (ending.outcome, ending.note) == (outcome, "why")
    assert not releases.release_status(release_home.of(running.home), running.workload).objections


@pytest.mark.slow
def test_a_hold_cut_off_after_the_change_of_champion_is_finished(running: CanaryHome) -> None:
    home, rollout = running.home, running.rollout()
    canary_rollouts.record_end(home, rollout, "hold", "why")
    evidence = running.evidence("2")
    described = promotion.in_force(home, evidence)
    promotion.crown(home, described, evidence, by="r", reason="why", rollout_id=rollout.id)
    assert running.aliases().canary == "2"
    assert settle(running) == "hold"
    assert running.aliases() == Aliases(champion="2", previous="1")
    assert len(journal_of(running)) == 2


@pytest.mark.slow
def test_the_form_says_what_an_approval_starts(running: CanaryHome) -> None:
    asked, described = running.ask(3), running.describe()
    running.serve()
    text = canary_rollouts.form_text(running.home, asked, described)
    assert "On approval** it answers a share first, as a canary, and stops the canary of" in text
    assert ": 0.5 of the conversations; undecided after 24 h." in text
    running.stop_serving()
    text = canary_rollouts.form_text(running.home, asked, described)
    assert "it becomes champion at once: no gateway of this home runs" in text
    assert canary_rollouts.form_text(running.home, asked, running.describe(serve={})) == ""


@pytest.mark.slow
def test_show_has_the_evidence_while_it_runs_and_after(running: CanaryHome) -> None:
    def shown(*options: str) -> str:
        ended = CliRunner().invoke(main.app, ["serve", "canary", "show", *options])
        assert ended.exit_code == 0, ended.output
        return ended.output

    assert f"{running.workload}: version 2 beside version 1: waiting: no gateway" in shown()
    running.report_counts((30, 28))
    assert "at a share of 0.5: running: no kind was frequent" in shown(running.workload)
    running.report_counts((300, 60))
    settle(running)
    assert "version 2 beside version 1: roll back: slow: 300" in shown(running.workload)
    running.report("running").unlink()
    (known,) = json.loads(shown(running.workload, "--json"))[running.workload]
    assert known["history"][0]["kinds"]["slow"]["canary"] == 300
    audited = CliRunner().invoke(main.app, ["audit", "--workload", running.workload]).output
    assert f"(by rule, canary {running.rollout().id}, roll back, " in audited.replace(";", ",")
    assert "slow 300 of the canary, 60 of the champion" in audited


@pytest.mark.slow
def test_the_doctor_finds_canaries_that_nobody_answers_decides_or_started(
    running: CanaryHome,
) -> None:
    def about() -> list[str]:
        results = canary_rollouts.check(running.home, 3.0)
        return [each.state for each in results if f"of {running.workload}" in each.state]

    running.serve()
    assert about() == []
    running.report("undecided", "too few")
    settle(running)
    (state,) = about()
    assert "is undecided since" in state
    assert state.endswith(": too few")
    running.stop_serving()
    (state,) = about()
    assert "is a canary, and no gateway of this home serves the workload" in state
    canary_rollouts.record_end(running.home, running.rollout(), "stopped", "why")
    assert about() == [f"the canary of version 2 of {running.workload} was interrupted"]
    file = running.report("running", id="f" * 12)
    strange = [each.state for each in canary_rollouts.check(running.home, 3.0)]
    assert f"{file} is of canary {'f' * 12}, which nobody started here" in strange


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["hold", "roll back"])
def test_settling_that_is_killed_anywhere_and_twice_at_once_ends_as_if_it_was_not(
    running: CanaryHome, outcome: str
) -> None:
    running.make_decisive()
    running.report_counts((400, 400) if outcome == "hold" else (300, 60))
    command = [sys.executable, "-m", "tests.support.settle_process"]
    kills = 0
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()

        def begin() -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{running.workload}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        begin()
        whole = time.monotonic()
        assert process.stdout.readline().strip() == "1"
        whole = time.monotonic() - whole
        assert running.rollout().is_settled
        running.approve(3)
        running.make_decisive()
        running.report_counts((400, 400) if outcome == "hold" else (300, 60))
        while not running.rollout().is_settled and kills < 60:
            child = begin()
            time.sleep(whole * (1 + kills) / 20)  # each is killed a little later than the last
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            kills += process.stdout.readline().strip() == str(-signal.SIGKILL)
        process.stdin.close()
    champion = {"hold": "3", "roll back": "1"}[outcome]
    with ThreadPoolExecutor() as threads:
        again = [*threads.map(settle, [running] * 3)]
    assert again == [None] * 3
    assert kills >= 3
    assert running.rollout().is_settled
    assert (running.aliases().champion, running.aliases().canary) == (champion, None)
    ended = [change for change in journal_of(running) if change[4]]
    assert len(ended) == 2
    assert len([event for event in kinds_of(running) if event[1] == outcome]) == 1
    assert not releases.release_status(release_home.of(running.home), running.workload).objections
