"""While one workload is curated for long, another one is decided on, rolled back and collected."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from components.collect.source import Input
from components.decide import record_answer
from components.decide.approvers import OPEN
from components.decide.record_answer import ProofContext, Question, TypedAnswer
from components.register import registry
from components.release import champions, release_state
from components.release.rollback_rules import Order
from components.schema import Json
from components.store import counters, warehouse
from flows import release_home, sources
from flows.settings import Settings
from tests.support import logs, tiny, warehouses
from tests.support.versions import crowned

LONGEST_SECONDS = 2.0
"""What nobody waits longer than, whatever another workload is at."""

ROWS = 10_000
"""Their curation computes for 10 to 20 s on two idle cores."""

TOPICS = ("invoice", "parcel", "password", "refund", "contract", "printer", "holiday", "delivery")


@pytest.fixture
def home(home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    counters.create(home.home)
    return home


def requests() -> Iterator[dict[str, Json]]:
    """Requests that differ, long enough that every rule has to read them."""
    for number in range(ROWS):
        first, second = TOPICS[number % 8], TOPICS[number // 8 % 8]
        words = f"my {first} number {number} and the {second} of {number * 7919 % 100_003}"
        question = f"Good morning, {words}; what about {words[::-1]}? " * 3
        answer = logs.say(f"We looked at {words} and will send the {second} {number} tomorrow.")
        yield logs.interaction(
            question, message=answer, response_id=f"r{number}", conversation_id=f"c{number}"
        )


def waited(home: Settings) -> float:
    """Return for how long processes of the home have waited for the warehouse so far."""
    counts = counters.read(home.home)
    return sum(count.value for count in counts if count.name == counters.WAITED)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nobody_waits_for_a_long_curation_of_another_workload(
    home: Settings, tmp_path: Path
) -> None:
    with warehouses.connect(home.warehouse) as con:
        path = logs.write(tmp_path / "long.jsonl", requests())
        logs.load_input(con, Input(str(path), "fivekey"), now=datetime.now(UTC))
    crowned("other", 2, home)
    base, file = tiny.build(tmp_path / "base"), tmp_path / "weather.yaml"
    file.write_text(yaml.safe_dump({"workload": "weather", "base": str(base)}))
    before = waited(home)
    waits: dict[str, list[float]] = {"decided": [], "rolled back": [], "collected": []}

    def decide(number: int) -> None:
        question = Question("other", f"asked-{number}", f"run-{number}", 1)
        with warehouses.connect(home.warehouse) as con:
            answer = TypedAnswer("approve", "ann")
            record_answer.record(con, question, answer, OPEN, ProofContext(), now=datetime.now(UTC))

    def roll_back(number: int) -> None:
        to = "1" if number % 2 == 0 else "2"
        champions.roll_back(
            release_home.of(home), Order("other", to, "bob", f"for the {number}. time")
        )
        assert registry.read_aliases("other").champion == to

    def collect(number: int) -> None:
        line = logs.interaction(
            f"Question {number}?", workload_id="other", response_id=f"o{number}"
        )
        place = logs.write(tmp_path / f"{number}.jsonl", [line])
        (loaded,) = sources.load_inputs(home.warehouse, [Input(str(place))], now=datetime.now(UTC))
        assert loaded.new == 1

    steps: dict[str, Callable[[int], None]] = {
        "decided": decide,
        "rolled back": roll_back,
        "collected": collect,
    }
    number, log = 0, tmp_path / "curate.log"
    with log.open("w") as out:
        curation = subprocess.Popen(
            [sys.executable, "-c", "from flows.cli.main import main; main()", "curate", str(file)],
            env=os.environ | {"FLYWHEEL_HOME": str(home.home)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    while curation.poll() is None:
        for name, step in steps.items():
            step(number)
            after = waited(home)
            waits[name].append(after - before)
            before = after
        number += 1
    assert curation.returncode == 0, log.read_text()
    assert number >= 3, "curation was too short to be in anybody's way"
    assert {name: max(each) for name, each in waits.items() if max(each) > LONGEST_SECONDS} == {}
    with warehouses.connect(home.warehouse) as con:
        assert len(release_state.read_state(con, "other").changes) == 2 + number
        assert warehouse.rows(
            con, "select count(*) as n from curated.verdicts where workload_id = 'weather'"
        ) == [{"n": ROWS}]
