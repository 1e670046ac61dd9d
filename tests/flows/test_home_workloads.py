"""The rules are those of the workload's own file in the home, whatever a flow run names."""

import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence, EvidenceSubject
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from flows import home_workloads, promote, promotion
from flows.home_workloads import ForeignPathError, WorkloadFileError
from flows.promotion import ForeignEvidenceError
from flows.settings import Settings
from flows.workload_file import WorkloadError
from tests.support import workload_text

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PASSED = Judgement("pass", ("better",), "correct_name")


def asked(home: Settings, workload: str, judged: Judgement = PASSED) -> Evidence:
    subject = EvidenceSubject(workload, "s1", "v1", "b1", "a1", "base", "c1", "o1")
    folder = home.evidence / workload / evidence_folder.digest(subject, judged, Policy())
    folder.mkdir(parents=True)
    return evidence_folder.finish(folder, subject, judged, Policy(), {}, brief="", now=NOW)


def test_a_workload_has_a_file_while_it_is_given_another(home: Settings, folder: Path) -> None:
    one, other = (folder / f"{name}.yaml" for name in ("one", "other"))
    for file in (one, other):
        file.write_text("workload: support\n")
    home_workloads.adopt(home, "support", one)
    missing = list[int]()

    def look() -> None:
        while not is_over.is_set():
            missing.extend([] if home_workloads.find(home, "support") else [1])

    is_over = threading.Event()
    with ThreadPoolExecutor() as threads:
        threads.submit(look)
        for _ in range(200):
            for file in (other, one):
                home_workloads.adopt(home, "support", file)
        is_over.set()
    assert not missing
    assert [*(home.workloads / "unscheduled").iterdir()] == [
        home.workloads / "unscheduled" / "support.yaml"
    ]


def test_a_scheduled_file_is_the_workloads_and_no_turn_changes_that(
    home: Settings, folder: Path
) -> None:
    file = workload_text.write(folder)
    home.workloads.mkdir(parents=True)
    (home.workloads / "support.yaml").symlink_to(file)
    assert home_workloads.require(home, "support") == file
    other = folder / "laxer.yaml"
    other.write_text(file.read_text())
    with pytest.raises(WorkloadFileError, match="this home's file of it is"):
        home_workloads.enter(home, "support", other)
    with pytest.raises(WorkloadFileError, match="flywheel schedule"):
        home_workloads.adopt(home, "support", other)
    (home.workloads / "b.yaml").write_text("workload: support\n")
    with pytest.raises(WorkloadFileError, match="are both of it"):
        home_workloads.require(home, "support")


def test_the_first_turn_of_a_workload_makes_its_file_known_and_a_later_one_does_not(
    home: Settings, folder: Path
) -> None:
    file = workload_text.write(folder)
    home_workloads.enter(home, "support", file)
    assert home_workloads.require(home, "support") == file
    other = folder / "laxer.yaml"
    other.write_text(file.read_text())
    with pytest.raises(WorkloadFileError, match="run at this home, changes that"):
        home_workloads.enter(home, "support", other)
    home_workloads.adopt(home, "support", other)  # somebody at the home says so
    assert home_workloads.require(home, "support") == other


def test_a_workload_with_evidence_and_no_file_waits_for_somebody_at_the_home(
    home: Settings, folder: Path
) -> None:
    file = workload_text.write(folder)
    evidence = asked(home, "support")
    with pytest.raises(WorkloadFileError, match="knows none"):
        home_workloads.enter(home, "support", file)
    with pytest.raises(WorkloadFileError, match="knows none"):
        promotion.in_force(home, evidence)


def test_the_file_of_another_workload_approves_nothing(home: Settings, folder: Path) -> None:
    file = workload_text.write(folder)
    home_workloads.adopt(home, "support", file)
    evidence = asked(home, "support")
    assert promotion.in_force(home, evidence).workload == "support"
    file.write_text(file.read_text().replace("support", "beta"))
    with pytest.raises(ForeignEvidenceError, match="its file describes beta"):
        promotion.in_force(home, evidence)


def test_evidence_is_of_this_home_and_of_the_workload_that_is_named(
    home: Settings, tmp_path: Path
) -> None:
    evidence = asked(home, "support")
    assert promote.read_own_evidence(home, "support", evidence.digest) == evidence
    elsewhere = tmp_path / "elsewhere" / "support" / evidence.digest
    elsewhere.parent.mkdir(parents=True)
    evidence.folder.rename(elsewhere)
    for workload, digest in (
        ("", str(elsewhere)),
        ("../../elsewhere/support", evidence.digest),
        ("support", "../../../elsewhere/support/" + evidence.digest),
        ("", ""),
        ("support", evidence.digest),
    ):
        with pytest.raises(ForeignEvidenceError):
            promote.read_own_evidence(home, workload, digest)
    (home.evidence / "beta").mkdir()
    elsewhere.rename(home.evidence / "beta" / evidence.digest)
    with pytest.raises(ForeignEvidenceError, match="it is evidence on support"):
        promote.read_own_evidence(home, "beta", evidence.digest)


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_nobody_is_asked_about_evidence_that_the_gate_did_not_pass(
    home: Settings, verdict: Literal["fail", "inconclusive"]
) -> None:
    """Attack: with Prefect's login a promotion is started by hand, on what no turn asks about."""
    judged = Judgement(verdict, ("worse",), "correct_name")
    evidence = asked(home, "support", judged)
    with pytest.raises(ForeignEvidenceError, match=f"verdict on it is {verdict}, expected pass"):
        promote.read_own_evidence(home, "support", evidence.digest)


def test_evidence_that_is_a_link_to_elsewhere_is_not_of_this_home(
    home: Settings, tmp_path: Path
) -> None:
    evidence = asked(home, "support")
    elsewhere = tmp_path / "outside"
    evidence.folder.rename(elsewhere)
    evidence.folder.symlink_to(elsewhere)
    with pytest.raises(ForeignEvidenceError, match="not evidence of this home"):
        promote.read_own_evidence(home, "support", evidence.digest)


def test_a_file_that_a_server_keeps_is_nobodys_and_not_even_read(
    home: Settings, folder: Path
) -> None:
    text = workload_text.write(folder).read_text()
    for kept in (home.mlflow_home / "artifacts", home.prefect_home):
        kept.mkdir(parents=True)
        for words in (text, "workload: [\n"):
            (kept / "support.yaml").write_text(words)
            with pytest.raises(WorkloadFileError, match="keeps what its clients send"):
                home_workloads.workload_of_run(str(kept / "support.yaml"))
        with pytest.raises(WorkloadFileError, match="keeps what its clients send"):
            home_workloads.adopt(home, "support", kept / "support.yaml")
    assert home_workloads.find(home, "support") is None


def test_flows_take_only_what_lies_in_the_homes_own_folders(home: Settings) -> None:
    below = home.snapshots / "support" / "5af1"
    assert home_workloads.path_within(home.snapshots, str(below), "snapshot") == below
    for path in ("/tmp/5af1", str(home.snapshots), f"{home.snapshots}/../adapters/a1"):
        with pytest.raises(ForeignPathError, match="expected one below"):
            home_workloads.path_within(home.snapshots, path, "snapshot")


def test_flows_name_paths_as_a_home_behind_a_link_does(home: Settings, tmp_path: Path) -> None:
    home.snapshots.mkdir(parents=True)
    (tmp_path / "link").symlink_to(home.home)
    linked = tmp_path / "link" / "snapshots"
    for path in (linked / "support" / "5af1", home.snapshots / "support" / "5af1"):
        within = home_workloads.path_within(linked, str(path), "snapshot")
        assert within == linked / "support" / "5af1"


@pytest.mark.parametrize("content", ["user: root:x:0\n- secret", "{}", None], ids=["", "", "none"])
def test_who_starts_a_flow_learns_nothing_of_a_file_that_is_no_workloads_here(
    home: Settings, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "shadow"
    if content is not None:
        file.write_text(content)
    expected = f"starting a flow with the workload's file {file}: this home knows no such file"
    with pytest.raises(ForeignPathError, match=expected) as caught:
        home_workloads.workload_of_run(str(file))
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    assert home_workloads.find(home, "support") is None


def test_the_mistakes_in_a_workloads_own_file_are_named(home: Settings, folder: Path) -> None:
    file = workload_text.write(folder)
    home_workloads.adopt(home, "support", file)
    workload_text.write(folder, train={"r": 0})
    with pytest.raises(WorkloadError, match=r"train\.r: Input should be greater"):
        home_workloads.workload_of_run(str(file))
    other = folder / "other.yaml"
    other.write_text("workload: support\nbase: base\n")
    with pytest.raises(ForeignPathError, match="this home knows no such file"):
        home_workloads.workload_of_run(str(other))
