"""Versions trained on erased rows are flagged in MLflow, and can't be approved any more."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.decide import chain, decision_log
from components.decide.decision_log import LogEvent
from components.erase.subject import Subject
from components.gate import evidence_folder
from components.register import registry, tracking, version_tags
from components.release import installation, release_state
from components.release.release_state import ChampionChange
from components.store import warehouse
from flows import approval_loop
from flows.erasing import erase, erase_servers
from tests.components.erase.conftest import Eraser
from tests.support import erased_home, logs, mlflow_stores, warehouses
from tests.support.erased_home import ANN, BOB, EACH, WORKLOAD, House

OURS = {tracking.KEY_TAG: "a1"}


@pytest.fixture(scope="module")
def store(built: House, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with versions of three adapters; the third is champion."""
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow_stores.create(folder)
    with pytest.MonkeyPatch.context() as patch:
        client = connected(folder, patch)
        client.create_registered_model(WORKLOAD)
        for adapter in ("a0", "x0", "a1"):
            tags = {
                version_tags.ADAPTER_TAG: adapter,
                version_tags.EVIDENCE_TAG: f"of-{adapter}",
                version_tags.APPROVER_TAG: "zoe",
            }
            client.create_model_version(WORKLOAD, str(built.adapter), tags=tags)
        client.set_registered_model_alias(WORKLOAD, version_tags.PREVIOUS, "2")
        client.set_registered_model_alias(WORKLOAD, version_tags.CHAMPION, "3")
    return folder


@pytest.fixture
def client(home: House, store: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """MLflow in the home, as the store is."""
    shutil.copytree(store, home.settings.mlflow_home)
    return connected(home.settings.mlflow_home, monkeypatch)


def connected(folder: Path, patch: pytest.MonkeyPatch) -> MlflowClient:
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    patch.chdir(folder)
    return MlflowClient()


def crown(home: House, *numbers: int) -> None:
    """Approve all versions, and make these the champion, one after the other."""
    adapters, before = ("a0", "x0", "a1"), None
    with warehouse.connect(home.settings.warehouse) as con, warehouse.transaction(con):
        for adapter in adapters:
            approval = LogEvent(
                "approve", WORKLOAD, f"of-{adapter}", f"run-{adapter}", logs.NOW, "zoe"
            )
            decision_log.append_event(con, approval)
        for number in numbers:
            adapter, version = adapters[number - 1], str(number)
            change = ChampionChange(
                *(WORKLOAD, "promoted", f"of-{adapter}", adapter, version),
                *(before, adapters[int(before) - 1] if before else None, "zoe", "good"),
            )
            release_state.append_change(con, change, logs.NOW)
            before = version


def aliases(client: MlflowClient) -> dict[str, str]:
    versions = client.get_registered_model(WORKLOAD).aliases
    return {alias: str(number) for alias, number in versions.items()}


def test_a_tainted_version_is_flagged_and_demoted_only_if_asked(
    home: House, client: MlflowClient, eraser: Eraser
) -> None:
    written = eraser(home.settings, Subject(ANN))
    tags = client.get_model_version(WORKLOAD, "3").tags
    assert tags[version_tags.TAINTED_TAG] == written.certificate_id
    assert version_tags.TAINTED_TAG not in client.get_model_version(WORKLOAD, "2").tags
    assert aliases(client) == {"champion": "3", "previous": "2"}
    (champion,) = written.consequences.champions
    assert (champion.version, champion.now) == ("3", "3")
    page = (home.settings.certificates / f"{written.certificate_id}.md").read_text()
    assert "version 3 is tainted and still serves" in page

    again = eraser(home.settings, Subject(ANN, mentions=True), demote=True)
    assert again.consequences.champions == ()  # that erasure found nothing new to taint
    assert aliases(client)["champion"] == "3"


def test_a_demoted_champions_alias_moves_to_the_newest_clean_version(
    home: House, client: MlflowClient, eraser: Eraser
) -> None:
    crown(home, 1, 2, 3)
    written = eraser(home.settings, Subject(ANN), demote=True)
    assert aliases(client) == {"champion": "2", "previous": "1"}
    (champion,) = written.consequences.champions
    assert (champion.version, champion.now) == ("3", "2")


def test_a_version_that_was_never_champion_does_not_become_it_by_an_erasure(
    home: House, client: MlflowClient, eraser: Eraser
) -> None:
    """As a canary that was stopped, or one whose tag somebody with MLflow's login has written."""
    crown(home, 1, 3)
    client.set_model_version_tag(WORKLOAD, "2", version_tags.DECISION_TAG, "approve")
    eraser(home.settings, Subject(ANN), demote=True)
    assert aliases(client) == {"champion": "1"}


def test_without_a_clean_version_there_is_no_champion(
    home: House, client: MlflowClient, eraser: Eraser
) -> None:
    crown(home, 1, 2, 3)
    for number in ("1", "2"):
        client.set_model_version_tag(WORKLOAD, number, version_tags.TAINTED_TAG, "before")
    written = eraser(home.settings, Subject(ANN), demote=True)
    assert aliases(client) == {}
    (champion,) = written.consequences.champions
    assert (champion.version, champion.now) == ("3", None)


@pytest.mark.slow
def test_what_a_first_erasure_tainted_is_demoted_by_a_second_that_says_so(
    home: House, client: MlflowClient, eraser: Eraser
) -> None:
    crown(home, 1, 2, 3)
    eraser(home.settings, Subject(ANN))
    assert erase_servers.demote_tainted(home.settings, Subject("somebody-else")) == []
    assert aliases(client)["champion"] == "3"
    (demoted,) = erase_servers.demote_tainted(home.settings, Subject(ANN))
    assert (demoted.version, demoted.now) == ("3", "2")
    assert aliases(client)["champion"] == "2"
    assert erase_servers.demote_tainted(home.settings, Subject(ANN)) == []


@pytest.mark.slow
def test_a_promotion_in_progress_is_waited_for_so_that_its_champion_is_demoted(
    home: House, client: MlflowClient, eraser: Eraser
) -> None:
    crown(home, 1, 2, 3)
    client.set_registered_model_alias(WORKLOAD, version_tags.CHAMPION, "2")
    erasing = threading.Thread(
        target=eraser, args=(home.settings, Subject(ANN)), kwargs={"demote": True}
    )
    with installation.lock_champion(home.settings.warehouse, home.settings.locks, WORKLOAD):
        erasing.start()
        erasing.join(5)
        client.set_registered_model_alias(WORKLOAD, version_tags.CHAMPION, "3")
    erasing.join()
    assert aliases(client)["champion"] == "2"


@pytest.mark.parametrize("mentions", [False, True], ids=["mentions-stay", "mentions-go"])
@pytest.mark.slow
def test_what_people_wrote_about_the_subject_goes_from_the_tags_of_versions(
    home: House, client: MlflowClient, eraser: Eraser, mentions: bool
) -> None:
    before = {
        "1": {version_tags.COMMENT_TAG: f"worse for {ANN}", version_tags.APPROVER_TAG: "eve"},
        "2": {version_tags.ROLLED_BACK_TAG: f"to version 1 by eve: rude to {ANN}"},
        "3": {
            version_tags.COMMENT_TAG: f"worse for {BOB}",
            version_tags.APPROVER_TAG: f"eve, {ANN}",
        },
    }
    for number, tags in before.items():
        for key, text in tags.items():
            client.set_model_version_tag(WORKLOAD, number, key, text)
    written = eraser(home.settings, Subject(ANN, mentions=mentions))
    after = registry.version_tags(WORKLOAD)
    assert after["1"][version_tags.COMMENT_TAG] == "(erased)"
    assert after["1"][version_tags.APPROVER_TAG] == "eve"
    assert after["2"][version_tags.ROLLED_BACK_TAG] == "(erased)"
    assert after["3"][version_tags.COMMENT_TAG] == f"worse for {BOB}"
    approver = "(erased)" if mentions else f"eve, {ANN}"
    assert after["3"][version_tags.APPROVER_TAG] == approver
    assert written.consequences.tags == (3 if mentions else 2)
    left = erased_home.holds(home.settings.mlflow_home, ANN)
    assert bool(left) is not mentions


@pytest.mark.slow
def test_an_approver_without_rows_can_be_erased(
    home: House, client: MlflowClient, eraser: Eraser
) -> None:
    client.set_model_version_tag(WORKLOAD, "3", version_tags.APPROVER_TAG, "eve-4711")
    with warehouses.connect(home.settings.warehouse) as con:
        with warehouse.transaction(con):
            event = LogEvent("approve", WORKLOAD, "e1", "run", logs.NOW, approver="eve-4711")
            decision_log.append_event(con, event)
        con.execute("insert into raw.approver_codes values ('eve-4711', 1, now())")
    eve = Subject("eve-4711", mentions=True)
    assert erase.find_subject(home.settings, Subject("eve-4711"))[0].is_nothing
    assert erase.find_subject(home.settings, eve)[0].words == 1
    written = eraser(home.settings, eve)
    assert written.searched.left == ()
    assert registry.version_tags(WORKLOAD)["3"][version_tags.APPROVER_TAG] == "(erased)"
    with warehouses.connect(home.settings.warehouse) as con:
        links = decision_log.links(con)
        assert chain.first_broken(links, decision_log.read_head(con)) is None
        assert con.execute("from raw.approver_codes").fetchall() == []
    assert [link.approver for link in links] == [None]


@pytest.mark.slow
def test_copies_of_scorecards_and_reports_in_mlflow_go(
    home: House, client: MlflowClient, eraser: Eraser
) -> None:
    experiment = client.create_experiment(WORKLOAD)
    run, deleted = (client.create_run(experiment, tags=OURS) for _ in range(2))
    client.log_artifacts(run.info.run_id, str(home.scorecard), "scorecards/c1")
    client.log_artifacts(run.info.run_id, str(home.adapter), "scorecards/c2")
    client.log_artifacts(deleted.info.run_id, str(home.scorecard), "scorecards/c1")
    page = tracking.log_evidence(run.info.run_id, home.evidence, "pass")
    assert page.endswith(f"evidence/{home.evidence.name}")
    client.log_artifacts(run.info.run_id, str(home.adapter), "evidence/another")
    # As anybody may in MLflow, which keeps the files.
    client.delete_run(deleted.info.run_id)
    client.rename_experiment(experiment, "another name")
    written = eraser(home.settings, Subject(ANN))
    assert (written.consequences.scorecard_copies, written.consequences.pages) == (2, 1)
    for folder, kept in (("scorecards", "scorecards/c2"), ("evidence", "evidence/another")):
        left = client.list_artifacts(run.info.run_id, folder)
        assert [artifact.path for artifact in left] == [kept]
    assert erased_home.holds(home.settings.mlflow_home, "ann asks") == []


def test_evidence_on_erased_rows_can_no_longer_be_decided(
    home: House, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(home.settings.home))
    evidence = evidence_folder.read(home.evidence)
    approval_loop.require_unerased(evidence)
    written = eraser(home.settings, Subject(ANN))
    with pytest.raises(approval_loop.StaleEvidenceError, match=written.certificate_id):
        approval_loop.require_unerased(evidence)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from components.erase import certificate, delete, tables
    from components.erase.subject import Subject
    from components.store import output_folders
    from flows.erasing import erase
    from flows.settings import Settings
    from tests.support import logs

    module, name = {"clear": (delete, "clear_files"), "rewrite": (tables, "rewrite_file"),
                    "remove": (output_folders, "remove"),
                    "write": (certificate, "write")}[sys.argv[2]]
    setattr(module, name, lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL))
    asked = erase.ErasureRequest(Subject(sys.argv[3]), False, {})
    erase.erase(Settings(Path(sys.argv[1]), 1, 2), asked, now=lambda: logs.NOW, report=print)
"""


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("clear", id="before-any-file"),
        pytest.param("remove", id="between-files"),
        pytest.param("rewrite", id="before-the-bytes"),
        pytest.param("write", id="before-the-certificate"),
    ],
)
@pytest.mark.slow
def test_an_erasure_that_was_killed_is_finished_by_the_next(
    home: House, eraser: Eraser, step: str
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), home.settings.home, step, ANN],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    _, begun = erase.find_subject(home.settings, Subject(ANN))
    assert begun is not None
    written = eraser(home.settings, Subject(ANN))
    assert written.certificate_id == begun.certificate_id
    assert written.erased["raw.interactions"] == EACH
    assert {output.kind for output in written.tainted} == {
        "snapshot",
        "adapter",
        "scorecard",
        "evidence",
    }
    assert written.is_clean
    assert erased_home.holds(home.settings.home, ANN) == []
    _, begun = erase.find_subject(home.settings, Subject(ANN))
    assert begun is None
    with warehouses.connect(home.settings.warehouse) as con:
        assert con.execute("select count(*) from raw.erasures").fetchall() == [(1,)]
