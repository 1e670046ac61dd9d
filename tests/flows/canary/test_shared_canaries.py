"""Canaries that gateways on other machines answer: started, seen and settled through a store."""

import json
import time
from collections.abc import Generator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from components.extensions.canary import shared_rollouts
from components.extensions.canary.shared_rollouts import SharedEvidence
from components.extensions.machines.object_store import ObjectStore
from components.register.registry import Aliases
from components.serve import seen_gateways
from components.serve.seen_gateways import SeenChampion, SeenGateway
from flows.canary import canary_rollouts, rollout_reports, settle_rollouts
from flows.canary.canary_rollouts import RolloutError
from flows.settings import Settings
from tests.support import buckets, canary_home
from tests.support.canary_home import CanaryHome

pytestmark = [pytest.mark.slow, pytest.mark.lake]

STORE = ObjectStore("s3://flywheel/team")
NUMBERS = count(1)
LIVE = SeenChampion("1", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", False, ())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Generator[Settings]:
    with (
        buckets.serving(),
        canary_home.empty_home(tmp_path_factory.mktemp("canaries")) as made,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("FLYWHEEL_STORE", STORE.url)
        yield replace(made, store=STORE)


@pytest.fixture
def running(home: Settings) -> CanaryHome:
    """A canary of version 2 that a gateway on another machine could answer."""
    made = CanaryHome(home, f"canary-{next(NUMBERS)}")
    made.describe()
    seen_gateways.write(STORE, SeenGateway("there", "box", time.time(), {made.workload: LIVE}, {}))
    made.approve(1)
    made.approve(2)
    made.make_decisive()
    return made


def send(running: CanaryHome, folder: Path, slow: tuple[int, int], state: str = "") -> None:
    """Write as two gateways do what they saw, and how one of them says that it ended."""
    alone = CanaryHome(replace(running.home, store=None), running.workload)
    alone.report_counts(slow)
    rollout = running.rollout().id
    file = rollout_reports.evidence_file(alone.home, rollout)
    lines = file.read_bytes().splitlines(keepends=True)
    half = len(lines) // 2
    for name, part in {"a": lines[:half], "b": lines[half:]}.items():
        own = folder / f"{name}.own"
        own.write_bytes(b"".join(part))
        shared = SharedEvidence(STORE, rollout, folder / f"{name}.jsonl", own, name)
        shared.exchange(is_sending=True)
    report = rollout_reports.rollout_file(alone.home, running.workload)
    content = json.loads(report.read_text())
    report.unlink()
    file.unlink()
    if state or content["state"] != "running":
        shared_rollouts.end_once(STORE, rollout, content | ({"state": state} if state else {}))
    else:
        shared_rollouts.write_standing(STORE, rollout, content)


def test_what_two_gateways_saw_makes_a_version_champion(running: CanaryHome, tmp_path: Path):
    assert running.aliases() == Aliases(champion="1", canary="2")
    assert settle_rollouts.settle(running.home, running.workload) is None
    send(running, tmp_path, (400, 400))
    (shown,) = canary_rollouts.read_canaries(running.home, running.workload)
    assert shown.state == "hold"
    done = settle_rollouts.settle(running.home, running.workload)
    assert done is not None and done.outcome == "hold"
    assert running.aliases() == Aliases(champion="2", previous="1")
    assert [*(running.home.serve / rollout_reports.EVIDENCE).iterdir()] == []


def test_what_they_say_without_its_evidence_does_not(running: CanaryHome, tmp_path: Path):
    send(running, tmp_path, (3, 3), state="hold")
    with pytest.raises(RolloutError, match="don't show it"):
        settle_rollouts.settle(running.home, running.workload)
    assert running.aliases() == Aliases(champion="1", canary="2")


def test_what_is_worse_at_both_is_rolled_back(running: CanaryHome, tmp_path: Path):
    send(running, tmp_path, (300, 60))
    done = settle_rollouts.settle(running.home, running.workload)
    assert done is not None and done.outcome == "roll back"
    assert running.aliases() == Aliases(champion="1")


def test_without_a_gateway_that_runs_no_canary_starts(home: Settings):
    made = CanaryHome(home, f"canary-{next(NUMBERS)}")
    made.describe()
    seen_gateways.write(STORE, SeenGateway("there", "box", time.time(), {made.workload: LIVE}, {}))
    buckets.aged(f"{STORE.url}/{seen_gateways.PLACE}/there.json", 3600)
    made.approve(1)
    _, promoted = made.approve(2)
    assert "canary" not in promoted.became
    assert made.aliases().champion == "2"
