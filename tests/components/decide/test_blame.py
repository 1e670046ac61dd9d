"""Blamed requests are resolved, reviewed first, and held until somebody has judged them."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from components.curate import held_rows
from components.curate.settings import Rules
from components.decide import blame
from components.decide.blame import Blamed
from components.gate.report import write_report
from components.review import pick
from components.scorecard import HOLDOUT
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import cards, curations, logs, warehouses

RULES = Rules(holdout_share=0.5, split_by="conversation")
CITIES = ("Rome", "Oslo", "Lima", "Kyiv", "Bonn", "Cork")
LATER = logs.NOW + timedelta(hours=1)


@pytest.fixture
def curated(tmp_path: Path) -> Iterator[Connection]:
    """Six requests, some to learn from and some to measure on."""
    with warehouses.connect_filled(tmp_path / "warehouse.duckdb", load_and_curate) as con:
        yield con


def load_and_curate(con: Connection) -> None:
    lines = [
        logs.interaction(
            f"Shall I take an umbrella to {city} on Monday, or is it dry there?",
            response_id=f"r-{city}",
            message=logs.say(f"In {city} it is dry on Monday, so leave the umbrella at home."),
        )
        for city in CITIES
    ]
    with TemporaryDirectory() as folder:
        logs.load(con, logs.write(Path(folder) / "log.jsonl", lines), now=logs.NOW)
    curate(con)


def curate(con: Connection) -> None:
    curations.curate(con, "weather", RULES, now=logs.NOW)


def of_side(con: Connection, side: str) -> list[str]:
    values = {"side": side}
    sql = "select example_id from curated.examples where side = $side order by example_id"
    return [str(row["example_id"]) for row in warehouse.rows(con, sql, **values)]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """What two models answered to four requests; they differ on the second and the fourth."""
    ours, theirs = cards.card([1.0, 0.0, 1.0, 1.0], [1.0]), cards.card([1.0, 1.0, 1.0, 0.0], [1.0])
    path = tmp_path / "samples.parquet"
    write_report.write_answers(path, {HOLDOUT: ours}, {HOLDOUT: theirs})
    return path


def find(con: Connection, samples: Path, text: str) -> list[Blamed]:
    return blame.find_blamed(con, "weather", text, samples=samples, metric="correct_name")


def test_a_request_is_found_by_a_prefix_of_its_id(curated: Connection, samples: Path) -> None:
    (first, *_), (held_out, *_) = of_side(curated, "train"), of_side(curated, "holdout")
    assert find(curated, samples, f"  {first[:12]}\n\n{first}\n{held_out}") == [
        Blamed("request", first, is_learned=True),
        Blamed("request", held_out, is_learned=False),
    ]


REFUSED = {
    "00000000": "0 requests have an id",
    "guard=charm": "nothing was measured that is called 'charm'",
    "tool=nothing": "no request that was measured",
    "the answers": "neither the beginning of an id nor",
    "' or 1=1; drop table raw.feedback --": "neither the beginning",
    "client=' or '1'='1": "no request that was measured",
    "\n".join(["abcdef01"] * 51): "51 lines are blamed",
}


def test_blame_without_a_match_is_refused(curated: Connection, samples: Path) -> None:
    for text, message in REFUSED.items():
        with pytest.raises(LookupError, match=message):
            find(curated, samples, text)


def test_a_guard_means_the_requests_that_the_models_differ_on(
    curated: Connection, samples: Path
) -> None:
    blamed = find(curated, samples, "guard=correct_name")
    assert len(blamed) == 2
    assert {blamed_item.kind for blamed_item in blamed} == {"request"}
    assert find(curated, samples, "guard=correct_name\nguard=correct_name") == blamed


def record(con: Connection, *blamed: Blamed, decision: int = 7) -> None:
    blame.record_blamed(con, blamed, decision=decision, workload="weather", now=LATER)


def asked(con: Connection) -> list[tuple[str, str]]:
    questions = pick.choose_questions(con, "weather", 10, reviewer="rev", measured={})
    return [(question.about.example_id, question.reasons[0].text) for question in questions]


def test_blamed_requests_are_reviewed_first_with_the_reason(curated: Connection) -> None:
    last, _ = asked(curated)[-1]
    record(curated, Blamed("request", last))
    curate(curated)
    assert asked(curated)[0] == (last, "decision 7, a rejection, blames it")


def test_a_blamed_part_of_the_traffic_is_reviewed_in_the_training_side_too(
    curated: Connection,
) -> None:
    record(curated, Blamed("client", "app"))
    curate(curated)
    assert {reason for _, reason in asked(curated)} == {"decision 7, a rejection, blames it"}
    assert held_rows.waiting_rows(curated) == []


def test_blamed_training_rows_are_held_until_a_person_has_judged_them(
    curated: Connection, tmp_path: Path
) -> None:
    (first, *others), tested = of_side(curated, "train"), of_side(curated, "holdout")
    record(curated, Blamed("request", first, is_learned=True))
    curate(curated)
    assert (of_side(curated, "train"), of_side(curated, "holdout")) == (others, tested)
    assert [(row.rule, row.mark) for row in held_rows.waiting_rows(curated)] == [
        ("blamed", "decision 7")
    ]
    (about,) = (
        question.about
        for question in pick.choose_questions(curated, "weather", 10, reviewer="rev", measured={})
        if question.about.example_id == first
    )
    word = logs.feedback(
        "thumb",
        "up",
        response_id=about.response_id,
        timestamp=int(LATER.timestamp()) + 60,
        actor_id="rev",
    )
    logs.load_feedback(curated, logs.write(tmp_path / "votes.jsonl", [word]), now=LATER)
    curate(curated)
    assert of_side(curated, "train") == sorted([first, *others])
    assert held_rows.waiting_rows(curated) == []


def test_held_training_rows_may_be_released_unjudged(curated: Connection) -> None:
    before = of_side(curated, "train")
    record(curated, Blamed("request", before[0], is_learned=True))
    curate(curated)
    (row,) = held_rows.waiting_rows(curated)
    held_rows.release_held(curated, row, by="ann", note="it is right", now=LATER)
    curate(curated)
    assert of_side(curated, "train") == before
