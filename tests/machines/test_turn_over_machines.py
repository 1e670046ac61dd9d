"""A turn over machines that share a bucket and no folder, while its workers are killed."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.extensions.machines.object_store import ObjectStore
from components.gate import evidence_folder
from components.store import manifest
from flows import train
from flows.jobs import runner
from tests.support import buckets, machines, small_workload, terminal
from tests.support.machines import Machines

pytestmark = [pytest.mark.slow, pytest.mark.lake, pytest.mark.timeout(2400)]

EPOCHS = 60
STEPS = 240
"""What 60 epochs of the small workload's 27 examples, 8 a step, come to."""

STORE = ObjectStore("s3://flywheel/team")
END_LOST_RUNS = """
from flows.maintenance import maintenance
maintenance(silence_seconds=45.0, verify=False)
"""

CPU, GPU, SPARE, PERSON = "cpu", "gpu", "spare", "person"


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Machines]:
    if not machines.may_hide_folders():
        pytest.skip("hiding the machines' folders from each other wants root")
    with buckets.serving() as variables:
        store = {**variables, "FLYWHEEL_STORE": STORE.url}
        team = Machines(tmp_path / "team", store, (CPU, GPU, SPARE, PERSON))
        try:
            team.start_servers()
            yield team
        finally:
            team.stop()


def decided_on(folder: Path) -> Mapping[str, Any]:
    """What evidence binds of a turn, but for its times: by digests of rows, weights and scores.

    The scorecards' keys hold the digest of the adapter's weights; its manifest has times, too.
    """
    verdict = json.loads((folder / evidence_folder.VERDICT).read_text())
    content = {name: verdict[name] for name in ("subject", "judgement", "policy")}
    del content["subject"]["adapter_bytes"]
    for name in ("sealed_at", "changed_at"):
        del content["judgement"]["terms"][name]
    return content


def in_one_home(folder: Path, base: Path) -> Mapping[str, Any]:
    """Take the same turn in one home, where nothing is killed."""
    config = prepared(folder, base)
    shell = terminal.in_home(folder / "home")
    assert shell.run("up").returncode == 0
    try:
        turn = shell.start("turn", config)
        output = terminal.said_until_asked(turn)
        turn.terminate()
        turn.communicate()
        assert terminal.QUESTION in output, output
        (evidence,) = (shell.settings.evidence / small_workload.WORKLOAD).iterdir()
        return decided_on(evidence)
    finally:
        shell.run("down")


def prepared(folder: Path, base: Path) -> Path:
    shutil.copytree(base, folder / "base")
    return small_workload.write(folder, epochs=EPOCHS)


def steps_done() -> int:
    """How far the training is, as the store shows it to every machine."""
    names = [name for name in STORE.names("jobs") if name.startswith("train-")]
    texts = [STORE.read(f"jobs/{name}/progress.json") for name in names]
    return max((runner.PROGRESS.validate_json(text).done for text in texts if text), default=0)


def checkpoints() -> list[str]:
    places = [
        f"checkpoints/{small_workload.WORKLOAD}/{key}"
        for key in STORE.names(f"checkpoints/{small_workload.WORKLOAD}")
    ]
    return [name for place in places for name in STORE.names(place)]


def test_a_turn_ends_with_the_champion_and_the_evidence_of_one_home_although_workers_are_killed(
    team: Machines, tmp_path: Path
) -> None:
    base = small_workload.stubborn_base(tmp_path / "base")
    with ThreadPoolExecutor(1) as alone:
        expected = alone.submit(in_one_home, tmp_path / "alone", base)
        evidence = take_turn(team, base)
        assert decided_on(evidence) == expected.result()


def take_turn(team: Machines, base: Path) -> Path:
    """Take a turn whose workers are killed to its champion; return a person's copy of evidence."""
    config = prepared(team.folder / CPU / "workload", base)
    team.start_worker(CPU, "cpu", 4)
    team.start_worker(GPU, "gpu")
    turn = team.start(CPU, "turn", config)
    while steps_done() < STEPS // 4 or not checkpoints():
        assert turn.poll() is None, turn.communicate()[0]
        time.sleep(0.5)
    assert steps_done() < STEPS
    team.kill(GPU)
    team.kill(CPU)
    team.start_worker(CPU, "cpu", 4)
    team.start_worker(SPARE, "gpu")
    while turn.poll() is None:  # as the flow does by itself after an hour
        team.python(CPU, END_LOST_RUNS)
    output, _ = turn.communicate()
    assert terminal.QUESTION not in output, output

    again = team.start(CPU, "turn", config)
    output = terminal.said_until_asked(again)
    assert terminal.QUESTION in output, output + team.log(SPARE)
    (job,) = (team.folder / SPARE / "home/jobs").glob("train-*")
    assert train.read_curve(job)[0].done > 1, "it began anew"
    assert checkpoints() == [], "those of a finished adapter are deleted"

    approved = team.approve(CPU, small_workload.WORKLOAD)
    output, _ = again.communicate()
    assert again.returncode == 0, output + approved
    champion = f"models:/{small_workload.WORKLOAD}@champion"
    assert champion in output

    report = team.run(PERSON, "report", small_workload.WORKLOAD, "--no-open")
    (evidence,) = (team.folder / PERSON / "home/evidence" / small_workload.WORKLOAD).iterdir()
    assert report.strip() == str(evidence / "report.html")
    assert manifest.read_untouched(evidence)
    for name in (GPU, SPARE):
        assert not (team.folder / name / "home/warehouse.duckdb").exists()
    return evidence
