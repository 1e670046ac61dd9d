"""From an approval to the verdict and its consequences, with the real gateway and a tiny model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import yaml
from prefect.logging import disable_run_logger

from components.decide import decision_log
from components.receive import client_tokens
from components.register import registry
from components.register.registry import Aliases
from components.release import releases
from components.serve import response_id
from components.store import warehouse
from flows import gateway_status, home_workloads, promotion, release_home
from flows.canary import canary_rollouts, settle_rollouts
from flows.promotion import PromotedVersion
from tests.support import logs
from tests.support.approved_versions import ApprovedVersions, approved_versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COMMAND = "from flows.cli.main import main; main()"

NAME = "support"
SERVE = {
    "rollout": {
        "canary": {
            "steps": [{"share": 0.5}],
            "deadline_hours": 0.1,
            "margin": 20.0,
            "alpha": 0.05,
            "windows": {},
        }
    }
}


def until(is_so: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@dataclass
class Application:
    """An application that talks to the gateway, and people who vote on its answers."""

    home: Path
    url: str
    token: str
    begun: int = 0

    def converse(self, is_disliked: Callable[[bool, int], bool]) -> bool:
        """Ask in a new conversation, vote, and return whether the canary answered."""
        self.begun += 1
        headers = {"authorization": f"Bearer {self.token}"}
        answer = httpx.post(
            f"{self.url}/v1/chat/completions",
            headers=headers | {"x-conversation-id": f"conversation {self.begun}"},
            json={
                "model": NAME,
                "max_tokens": 4,
                "messages": [{"role": "user", "content": f"Hello {self.begun}"}],
            },
            timeout=60,
        ).raise_for_status()
        is_canary = self._is_canary(answer.json()["id"])
        if is_disliked(is_canary, self.begun):
            vote = {"response_id": answer.json()["id"], "kind": "thumb", "value": "down"}
            sent = {**vote, "actor_id": f"person {self.begun}"}
            httpx.post(
                f"{self.url}/v1/feedback", headers=headers, json=sent, timeout=60
            ).raise_for_status()
        return is_canary

    def _is_canary(self, answer_id: str) -> bool:
        """Return whether the canary gave an answer, by its evidence: the client can't tell."""
        given = f'"r":"{response_id.short(answer_id)}"'
        paths = (self.home / "serve" / "rollouts").glob("*.jsonl")
        lines = [line for path in paths for line in path.read_text().splitlines() if given in line]
        return any(json.loads(line)["a"] == "canary" for line in lines)

    def state(self) -> str:
        """Return what the gateway says of the canary."""
        file = self.home / "serve" / "rollouts" / f"{NAME}.json"
        return json.loads(file.read_text())["state"] if file.exists() else ""


@contextmanager
def gateway(made: ApprovedVersions) -> "Generator[tuple[subprocess.Popen[str], str]]":
    """Run `flywheel serve` in the home; yield it and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FLYWHEEL_MLFLOW_PORT": made.url.rpartition(":")[2]},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2]
        until(lambda: _serves(made))
        yield process, url
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def _serves(made: ApprovedVersions) -> bool:
    try:
        route = gateway_status.read_status(made.home)["routes"].get(NAME)
    except gateway_status.NotServingError:
        return False
    return bool(route and route["champion"]["replicas"])


@pytest.fixture
def made(tmp_path: Path) -> Generator[ApprovedVersions]:
    with approved_versions(tmp_path) as versions, disable_run_logger():
        file = tmp_path / f"{NAME}.yaml"
        content = {"workload": NAME, "base": str(versions.base), "serve": SERVE}
        file.write_text(yaml.safe_dump(content))
        home_workloads.adopt(versions.home, NAME, file)
        (versions.home.serve).mkdir(parents=True)
        versions.home.serve_settings.write_text("engine: {threads: 1}\n")
        versions.register(NAME, 1)
        yield versions


def approve(made: ApprovedVersions, number: int) -> PromotedVersion:
    """Ask about a version against the champion, approve it, and carry that out."""
    champion = registry.champion_version(NAME)
    assert champion is not None
    evidence = made.ask(NAME, number, opponent=champion.number)
    decision = made.approve(evidence)
    described = promotion.in_force(made.home, evidence)
    return promotion.promote_version(described, evidence, decision, lambda: None)


def collect(made: ApprovedVersions) -> None:
    """Load what the gateway logged, as the scheduled flow does."""
    with warehouse.connect(made.home.warehouse) as con:
        logs.load_spool(con, made.home.spool, now=datetime.now(UTC))


def events(made: ApprovedVersions, number: str) -> list[str]:
    """Return what the chain says of a version's canary."""
    evidence = registry.version_numbered(NAME, number).evidence
    with warehouse.connect(made.home.warehouse) as con:
        links = decision_log.links(con, evidence=evidence)
    return [
        decision_log.body_value(link, "event")
        for link in links
        if decision_log.body_value(link, "proof") == decision_log.POLICY
    ]


def half(is_canary: bool, number: int) -> bool:
    return number % 4 < 2


def test_a_worse_version_is_rolled_back_and_a_sound_one_becomes_champion(
    made: ApprovedVersions,
) -> None:
    token = client_tokens.add_token(made.home.tokens, "app", now=datetime.now(UTC))
    app = Application(made.home.home, "", token)
    with gateway(made) as (_, app.url):
        assert not any(app.converse(half) for _ in range(60))
    collect(made)
    with gateway(made) as (process, app.url):
        promoted = approve(made, 2)
        assert promoted.became.startswith("answers a share beside version 1 (canary ")
        begun = canary_rollouts.rollouts_of(made.home, NAME)[-1]
        assert "disliked" in canary_rollouts.order_of(begun).plan.decisive
        until(lambda: app.state() == "running")
        # People dislike whatever the canary says, and a quarter of the rest.
        worse = [app.converse(lambda canary, n: canary or n % 4 == 0) for _ in range(8)]
        assert settle_rollouts.settle(made.home, NAME) is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    with gateway(made) as (_, app.url):
        until(lambda: app.state() == "running")
        while app.state() == "running" and len(worse) < 400:
            worse.append(app.converse(lambda canary, n: canary or n % 4 == 0))
            time.sleep(0.05)
        until(lambda: app.state() == "roll back", 60)
        assert not app.converse(half)
        done = settle_rollouts.settle(made.home, NAME)
        assert done is not None
        assert (done.outcome, done.version) == ("roll back", "2")
        assert done.reason.startswith("disliked: ")
        assert registry.read_aliases(NAME) == Aliases(champion="1")
        assert events(made, "2") == ["start", "roll back"]
        assert registry.version_numbered(NAME, "2").rolled_back
        assert 0 < sum(worse) < len(worse)

        assert approve(made, 3).became.startswith("answers a share beside version 1")
        until(lambda: app.state() == "running")
        sound = list[bool]()
        while app.state() == "running" and len(sound) < 400:
            sound.append(app.converse(half))
            time.sleep(0.05)
        until(lambda: app.state() == "hold", 600)
        done = settle_rollouts.settle(made.home, NAME)
        assert done is not None
        assert (done.outcome, done.version) == ("hold", "3")
        assert registry.read_aliases(NAME) == Aliases(champion="3", previous="1")
        assert events(made, "3") == ["start", "hold"]
        until(lambda: _champion(made) == "3")
        assert not releases.release_status(release_home.of(made.home), NAME).objections
        assert settle_rollouts.settle(made.home, NAME) is None
        collect(made)
    (newest, older) = canary_rollouts.read_canaries(made.home, NAME)
    assert (newest.state, older.state) == ("hold", "roll back")
    assert newest.history
    assert older.history


def _champion(made: ApprovedVersions) -> str:
    return gateway_status.read_status(made.home)["routes"][NAME]["champion"]["version"]
