"""A turn reads its workload's file once: what is edited or deleted meanwhile changes nothing."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence, EvidenceSubject, TurnReference
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.store import manifest
from flows import home_workloads, promotion
from flows.home_workloads import ForeignPathError, RecordChangedError
from flows.settings import Settings
from flows.workload_file import WorkloadError, read_workload
from tests.support import workload_text

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PASSED = Judgement("pass", ("better",), "correct_name")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEo9pTq7Vd2o7lqvd3Bq5c6hjP3k0r1y5xQ0m3m6s6mB"
RICH: dict[str, object] = {
    "note": "Written by the operator: über",
    "sources": {"logs": ["logs/*.jsonl", {"path": "logs", "workload_id": "support"}]},
    "curate": {"validation_share": 0.1, "most_lost": 0.9},
    "train": {"r": 4, "learning_rate": 0.0003, "canaries": True},
    "search": {"over": {"r": [2, 4], "base": ["base", "other"]}, "budget": {"minutes": 2.5}},
    "evaluate": {"built_in": ["canaries"], "max_new_tokens": 12},
    "gate": {"floor": 0.25, "guards": [{"task": "canaries", "metric": "exposure", "margin": 0.1}]},
    "approve": {"approvers": [{"name": "ada", "keys": [KEY]}], "proof": "signature"},
    "cost": {"currency": "EUR"},
    "trigger": {"min_feedback": 6},
    "serve": {"rollout": {"canary": {"steps": [{"share": 0.2, "hours": 2}, {"share": 0.4}]}}},
}


def begun(home: Settings, file: Path, run_id: str = "t1") -> Path:
    """Freeze a workload as a turn that begins does."""
    folder = home.turns / "support" / run_id
    home_workloads.begin(folder, home_workloads.workload_of_run(str(file)))
    return folder


def asked(home: Settings, turn: TurnReference | None) -> Evidence:
    subject = EvidenceSubject("support", "s1", "v1", "b1", "a1", "base", "c1", "o1")
    folder = home.evidence / "support" / evidence_folder.digest(subject, PASSED, Policy())
    folder.mkdir(parents=True)
    return evidence_folder.finish(
        folder, subject, PASSED, Policy(), {}, brief="", now=NOW, turn=turn
    )


def test_a_record_is_the_workload_that_was_read_whatever_became_of_its_files(
    home: Settings, folder: Path
) -> None:
    (folder / "other").mkdir()
    (folder / "other/config.json").write_text("{}")
    file = workload_text.write(folder, **RICH)
    workload = read_workload(file)
    assert len(workload.candidates()) == 4
    record = begun(home, file) / home_workloads.RECORD
    for name in ("logs", "base", "other"):
        shutil.rmtree(folder / name)
    file.unlink()
    assert home_workloads.workload_of_run(str(record)) == workload
    assert json.loads(record.read_text())["base"] == str(folder / "base")


def delete(file: Path) -> None:
    file.unlink()


def edit(file: Path) -> None:
    workload_text.write(file.parent, note="another")


def garble(file: Path) -> None:
    file.write_text("workload: [\n")


@pytest.mark.parametrize("change", [delete, edit, garble])
def test_a_turn_that_is_retried_and_its_stages_read_what_was_frozen(
    home: Settings, folder: Path, change: Callable[[Path], None]
) -> None:
    file = workload_text.write(folder, note="as it began")
    turn = begun(home, file)
    change(file)
    assert home_workloads.under_way(home.turns, "t1") == turn
    assert home_workloads.read(turn).note == "as it began"
    assert home_workloads.workload_of_run(str(turn / home_workloads.RECORD)).note == "as it began"


def test_only_a_turn_under_way_lends_its_stages_a_record(home: Settings, folder: Path) -> None:
    turn = begun(home, workload_text.write(folder))
    copied = home.turns / "support" / "notes" / "deeper"
    copied.mkdir(parents=True)
    shutil.copy(turn / home_workloads.RECORD, copied)
    for path in (copied / home_workloads.RECORD, turn / "stages.json"):
        with pytest.raises(ForeignPathError, match="of a turn that has not ended"):
            home_workloads.workload_of_run(str(path))
    manifest.write(turn, kind="turn", now=NOW, body={})
    with pytest.raises(ForeignPathError, match="of a turn that has not ended"):
        home_workloads.workload_of_run(str(turn / home_workloads.RECORD))
    assert home_workloads.under_way(home.turns, "t1") is None  # run again, it is a new turn
    begun(home, folder / "support.yaml")
    assert home_workloads.under_way(home.turns, "t1") == turn


def test_an_approval_is_about_the_frozen_workload_under_the_rules_that_its_file_has_by_now(
    home: Settings, folder: Path
) -> None:
    file = workload_text.write(folder, base_served_as="small", gate={"floor": 0.25})
    about = asked(home, home_workloads.reference(begun(home, file)))
    people = {"approvers": [{"name": "ada"}]}
    workload_text.write(folder, base_served_as="large", gate={"floor": 0.5}, approve=people)
    held = promotion.in_force(home, about)
    assert (held.base_name, held.gate.floor) == ("small", 0.5)
    assert [person.name for person in held.approve.rules().people] == ["ada"]
    file.write_text("workload: [\n")
    with pytest.raises(WorkloadError):  # nobody knows who may approve
        promotion.in_force(home, about)
    file.unlink()
    held = promotion.in_force(home, about)
    assert (held.base_name, held.gate.floor) == ("small", 0.25)


def test_evidence_from_before_an_upgrade_that_dropped_settings_can_be_approved(
    home: Settings, folder: Path
) -> None:
    turn = begun(home, workload_text.write(folder, note="as it began"))
    record = json.loads((turn / home_workloads.RECORD).read_text())
    record["train"] |= {"adam_beta2": 0.99}
    record["train"]["objective"] |= {"gone": [1]}
    (turn / home_workloads.RECORD).write_text(json.dumps(record))
    about = asked(home, home_workloads.reference(turn))
    assert promotion.in_force(home, about).note == "as it began"


def test_a_rule_for_approvers_that_nothing_knows_any_more_approves_nothing(
    home: Settings, folder: Path
) -> None:
    turn = begun(home, workload_text.write(folder))
    record = json.loads((turn / home_workloads.RECORD).read_text())
    record["approve"] |= {"six_eyes": True}
    (turn / home_workloads.RECORD).write_text(json.dumps(record))
    with pytest.raises(ValidationError, match=r"approve\.six_eyes"):
        promotion.in_force(home, asked(home, home_workloads.reference(turn)))


def test_evidence_whose_workload_was_exchanged_approves_nothing(
    home: Settings, folder: Path
) -> None:
    turn = begun(home, workload_text.write(folder))
    about = asked(home, home_workloads.reference(turn))
    home_workloads.begin(turn, read_workload(workload_text.write(folder, base_served_as="large")))
    with pytest.raises(RecordChangedError, match="was made with another workload"):
        promotion.in_force(home, about)
