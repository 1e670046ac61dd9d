"""The signs and the log of starts, read from a warehouse."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest

from components.collect.source import Input
from components.monitor import signs, turn_starts
from components.monitor.settings import Trigger
from components.monitor.turn_starts import TurnStart
from components.schema import Json
from components.store import ledger, manifest
from components.store.warehouse import Connection
from tests.support import logs, warehouses

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
CHANGE = 1_760_000_000

Row: TypeAlias = dict[str, Json]


def load(con: Connection, folder: Path, kind: str, lines: list[dict[str, Json]]) -> None:
    path = logs.write(folder / f"{kind}.jsonl", lines)
    source = "fivekey" if kind == "interactions" else "feedback"
    logs.load_input(con, Input(str(path), source), now=NOW)


def asked(number: int, question: str, **changes: Json) -> dict[str, Json]:
    at: Json = CHANGE - 1000 + number
    return logs.interaction(question, response_id=f"r{number}", timestamp=at, **changes)


def test_feedback_counts_from_its_loading_time(con: Connection, tmp_path: Path) -> None:
    load(con, tmp_path, "feedback", [logs.feedback(actor_id=f"a{n}") for n in range(7)])
    for since, count in ((NOW - timedelta(1), 7), (NOW, 0)):
        sign = signs.feedback_sign(con, "weather", since, Trigger(min_feedback=5))
        assert sign and sign.figure == count
    assert signs.feedback_sign(con, "weather", NOW, Trigger(min_feedback=None)) is None


def test_only_the_first_request_of_a_conversation_is_an_input(
    con: Connection, tmp_path: Path
) -> None:
    lines = [asked(n, "Is it cold in Rome?", conversation_id=f"c{n // 2}") for n in range(400)]
    new = [asked(1500 + n, "Sell my shares", conversation_id="c-new") for n in range(50)]
    load(con, tmp_path, "interactions", lines + new)
    sign = signs.input_sign(con, "weather", datetime.fromtimestamp(CHANGE, UTC), Trigger())
    assert sign and "1 new requests against 200 earlier ones" in sign.text


@pytest.mark.parametrize("conversation_id", ["undefined", "the application"])
def test_an_id_of_no_conversation_hides_no_request(
    con: Connection, tmp_path: Path, conversation_id: str
) -> None:
    lines = [asked(n, "Is it cold in Rome?", conversation_id=conversation_id) for n in range(100)]
    new = [asked(1500 + n, "Sell my shares", conversation_id=conversation_id) for n in range(50)]
    load(con, tmp_path, "interactions", lines + new)
    sign = signs.input_sign(con, "weather", datetime.fromtimestamp(CHANGE, UTC), Trigger())
    assert sign and "50 new requests against 100 earlier ones" in sign.text


def test_the_last_vote_of_a_person_counts_by_the_time_of_the_answer(
    con: Connection, tmp_path: Path
) -> None:
    load(con, tmp_path, "interactions", [asked(n * 10, f"Day {n}?") for n in range(200)])
    cast = [
        logs.feedback(
            response_id=f"r{n * 10}", timestamp=CHANGE + 9000, value="up", actor_id=f"p{n}"
        )
        for n in range(200)
    ]
    changed = [
        logs.without(
            logs.feedback(
                target_id=f"r{n * 10}", timestamp=CHANGE + 9001, value="down", actor_id=f"p{n}"
            ),
            "response_id",
        )
        for n in range(100, 200)
    ]
    taken_back: list[dict[str, Json]] = [
        vote | {"timestamp": CHANGE + 9001, "value": None} for vote in cast[:40]
    ]
    load(con, tmp_path, "feedback", cast + changed + taken_back)
    since = datetime.fromtimestamp(CHANGE, UTC)
    sign = signs.vote_sign(con, "weather", "7", since, Trigger(), now=NOW)
    assert sign and sign.is_reached
    assert "thumbs down 0 of 60 before the champion, 100 of 100 on its answers" in sign.text


def answered(
    first: int, count: int, version: str | None, arm: str, down: bool, actor: str = "person {}"
) -> tuple[list[Row], list[Row]]:
    """Write answers as the gateway logs them, one a second, and a vote on each."""
    numbers = range(first, first + count)
    served: dict[str, Json] = {"version": version, "arm": arm}
    lines = [asked(number, f"Day {number}?", served=served) for number in numbers]
    value = "down" if down else "up"
    return lines, [
        logs.feedback(response_id=f"r{number}", value=value, actor_id=actor.format(number))
        for number in numbers
    ]


def vote_text(con: Connection, folder: Path, *parts: tuple[list[Row], list[Row]]) -> str | None:
    """Load answers and votes, and return what the sign of version 7 says of them."""
    load(con, folder, "interactions", [line for lines, _ in parts for line in lines])
    load(con, folder, "feedback", [vote for _, votes in parts for vote in votes])
    return sign_text(con)


def sign_text(con: Connection, now: float = CHANGE + 100_000) -> str | None:
    """Return what the sign of version 7 says of the votes when it is looked at ``now``."""
    since, looked_at = (datetime.fromtimestamp(at, UTC) for at in (CHANGE, now))
    sign = signs.vote_sign(con, "weather", "7", since, Trigger(), now=looked_at)
    return sign.text.split(": evidence")[0] if sign else None


def test_votes_on_other_versions_answers_are_not_the_champions(
    con: Connection, tmp_path: Path
) -> None:
    text = vote_text(
        con,
        tmp_path,
        answered(0, 40, "6", "champion", down=False),
        answered(1000, 30, "7", "champion", down=False),
        answered(1100, 50, "8", "canary", down=True),
        answered(1200, 20, None, "fallback", down=True),
        answered(1300, 20, "6", "fallback", down=True),
    )
    assert text == "thumbs down 0 of 40 before the champion, 0 of 30 on its answers"


def test_an_answer_counts_once_however_many_vote_on_it(con: Connection, tmp_path: Path) -> None:
    lines, votes = answered(1000, 30, "7", "champion", down=False)
    crowds = [
        ("r1000", 100, "down"),
        ("r1001", 1, "down"),
        ("r1002", 2, "down"),
        ("r1002", 3, "up"),
    ]
    votes += [
        logs.feedback(response_id=answer, value=value, actor_id=f"{value} {number}")
        for answer, count, value in crowds
        for number in range(count)
    ]
    before = answered(0, 40, "6", "champion", down=False)
    text = vote_text(con, tmp_path, before, (lines, votes))
    assert text == "thumbs down 0 of 40 before the champion, 1 of 30 on its answers"


@pytest.mark.parametrize(
    ("actor", "counted"),
    [
        pytest.param("ann", 1, id="one-person"),
        pytest.param("Anonymous", 40, id="anonymous-people"),
        pytest.param("API", 40, id="people-of-an-application-at-langfuse"),
        pytest.param("app", 40, id="the-client-for-its-people"),
    ],
)
def test_of_one_person_one_vote_counts(
    con: Connection, tmp_path: Path, actor: str, counted: int
) -> None:
    text = vote_text(
        con,
        tmp_path,
        answered(0, 40, "6", "champion", down=False),
        answered(1000, 30, "7", "champion", down=False),
        answered(1100, 40, "7", "champion", down=True, actor=actor),
    )
    shares = f"0 of 40 before the champion, {counted} of {30 + counted} on its answers"
    assert text == f"thumbs down {shares}"


@pytest.mark.slow
@pytest.mark.parametrize("concentration", [2.0, 0.5, 0.05])
def test_people_who_vote_in_a_row_reach_the_bound_no_more_often_than_promised(
    tmp_path: Path, concentration: float
) -> None:
    """Each has a tendency (Beta, mean 0.2), and gives three votes one after the other."""
    reached, draws = 0, 60
    for seed in range(draws):
        draw = random.Random(seed)
        tendencies = [
            draw.betavariate(0.2 * concentration, 0.8 * concentration) for _ in range(140)
        ]
        parts = [
            answered(
                3 * person + vote + (580 if person >= 70 else 0),
                *(1, "7" if person >= 70 else "6", "champion"),
                down=draw.random() < tendency,
                actor=f"person {person}",
            )
            for person, tendency in enumerate(tendencies)
            for vote in range(3)
        ]
        folder = tmp_path / str(seed)
        folder.mkdir()
        with warehouses.connect(folder / "warehouse.duckdb") as con:
            load(con, folder, "interactions", [line for lines, _ in parts for line in lines])
            load(con, folder, "feedback", [vote for _, votes in parts for vote in votes])
            since = datetime.fromtimestamp(CHANGE - 300, UTC)
            sign = signs.vote_sign(con, "weather", "7", since, Trigger(), now=NOW)
        reached += sign is not None and sign.is_reached
    assert reached / draws <= 0.05 + 2 * (0.05 * 0.95 / draws) ** 0.5


def voted(
    first: int, waits: Sequence[tuple[int, bool]], version: str
) -> tuple[list[Row], list[Row]]:
    """Write answers of a version, and on each a vote so many seconds later, down or up."""
    lines: list[Row] = []
    votes: list[Row] = []
    for number, (wait, down) in enumerate(waits, first):
        answers, cast = answered(number, 1, version, "champion", down=down)
        lines += answers
        votes += [cast[0] | {"timestamp": CHANGE - 1000 + number + wait}]
    return lines, votes


def test_bad_votes_that_come_sooner_are_not_compared_with_all_votes_of_before(
    con: Connection, tmp_path: Path
) -> None:
    half_down = [(500, False), (5, True)] * 20
    load_votes = voted(0, half_down, "6"), voted(1000, half_down, "7")
    now = CHANGE + 60  # no thumb up on a new answer has come
    lines, votes = ([row for part in load_votes for row in part[index]] for index in (0, 1))
    load(con, tmp_path, "interactions", lines)
    load(con, tmp_path, "feedback", [vote for vote in votes if int(str(vote["timestamp"])) <= now])
    text = sign_text(con, now)
    assert text == "thumbs down 20 of 40 before the champion, 0 of 0 on its answers"
    load(con, tmp_path, "feedback", votes)
    text = sign_text(con, now=CHANGE + 519)  # of 20 answers all that is waited for has come
    assert text == "thumbs down 20 of 40 before the champion, 10 of 20 on its answers"


def test_a_vote_that_comes_later_than_most_of_before_counts_on_neither_side(
    con: Connection, tmp_path: Path
) -> None:
    soon = [(60, False)] * 38
    parts = voted(0, [*soon, (940, True), (930, True)], "6"), voted(1000, [*soon, (61, True)], "7")
    text = vote_text(con, tmp_path, *parts)
    assert text == "thumbs down 0 of 38 before the champion, 0 of 38 on its answers"


def test_votes_that_name_another_workload_are_not_the_champions(
    con: Connection, tmp_path: Path
) -> None:
    lines, votes = answered(1000, 60, "7", "champion", down=True)
    foreign = [vote | {"workload_id": "billing"} for vote in votes[:30]]
    before = answered(0, 40, "6", "champion", down=False)
    text = vote_text(con, tmp_path, before, (lines, foreign + votes[30:]))
    assert text == "thumbs down 0 of 40 before the champion, 30 of 30 on its answers"


def test_votes_on_a_canary_count_for_its_version_from_its_first_answer(
    con: Connection, tmp_path: Path
) -> None:
    text = vote_text(
        con,
        tmp_path,
        answered(0, 40, "6", "champion", down=False),
        answered(50, 25, "7", "canary", down=True),
        answered(1000, 30, "7", "champion", down=True),
    )
    assert text == "thumbs down 0 of 40 before the champion, 55 of 55 on its answers"


def test_a_champion_is_compared_with_the_version_before_it_alone(
    con: Connection, tmp_path: Path
) -> None:
    text = vote_text(
        con,
        tmp_path,
        answered(0, 60, "5", "champion", down=False),
        answered(100, 40, "6", "champion", down=True),
        answered(150, 10, "5", "fallback", down=False),
        answered(200, 10, "8", "canary", down=False),
        answered(1000, 30, "7", "champion", down=True),
    )
    assert text == "thumbs down 40 of 40 before the champion, 30 of 30 on its answers"


def test_answers_without_a_version_are_what_the_first_champion_replaces(
    con: Connection, tmp_path: Path
) -> None:
    lines, votes = answered(0, 40, None, "fallback", down=False)
    imported = [{**line, "served": None} for line in lines]
    stand_in = answered(50, 30, None, "fallback", down=True)
    champion = answered(1000, 30, "7", "champion", down=False)
    text = vote_text(con, tmp_path, (imported, votes), stand_in, champion)
    assert text == "thumbs down 30 of 70 before the champion, 0 of 30 on its answers"


def start(start_id: str, *, started: bool, run: str | None = None) -> TurnStart:
    return TurnStart(start_id, "weather", "trigger", started, "why", NOW, run)


def test_starts_and_non_starts_are_logged(con: Connection) -> None:
    turn_starts.record_start(con, start("s1", started=False))
    turn_starts.record_start(con, start("s2", started=True))
    turn_starts.record_start(con, start("s2", started=True))
    assert {
        (entry.start_id, entry.started) for entry in turn_starts.read_starts(con, "weather", None)
    } == {
        ("s1", False),
        ("s2", True),
    }


def end_turn(con: Connection, folder: Path, curated: datetime, *, ending: str = "asked") -> None:
    """End a turn that collected an hour before it curated, and trained an hour after."""
    hour, stages = timedelta(hours=1), list[Json]()
    for name, began in (
        ("collect", curated - hour),
        ("curate", curated),
        ("train", curated + hour),
    ):
        stages.append({"name": name, "seconds": 9.0, "began": began.isoformat()})
    folder.mkdir()
    manifest.write(folder, kind="turn", now=LATER, body={"ending": ending, "stages": stages})
    ledger.record_output(con, "weather", folder, now=LATER)


def test_traffic_is_new_until_a_turn_that_saw_it_has_completed(
    con: Connection, tmp_path: Path
) -> None:
    """What a turn itself collects is not new after it."""
    turn_starts.record_start(con, start("s1", started=True, run="run-1"))
    assert turn_starts.learned_until(con, "weather", LATER) is None
    end_turn(con, tmp_path / "run-1", NOW)
    assert turn_starts.learned_until(con, "weather", LATER) == NOW
    later = NOW + timedelta(hours=3)
    turn_starts.record_start(con, replace(start("s2", started=True, run="run-2"), looked_at=later))
    assert turn_starts.learned_until(con, "weather", LATER) == NOW
    assert turn_starts.learned_until(con, "other", LATER) is None


def test_a_turn_whose_data_set_was_held_has_learned_nothing(
    con: Connection, tmp_path: Path
) -> None:
    end_turn(con, tmp_path / "run-1", NOW)
    end_turn(con, tmp_path / "run-2", NOW + timedelta(hours=3), ending="held")
    assert turn_starts.learned_until(con, "weather", LATER) == NOW


def test_a_turn_from_before_the_clock_was_set_back_hides_no_traffic(
    con: Connection, tmp_path: Path
) -> None:
    for run, at in (("run-1", NOW), ("run-2", LATER)):
        end_turn(con, tmp_path / run, at)
    assert turn_starts.learned_until(con, "weather", LATER - timedelta(hours=1)) == NOW


def test_a_lost_start_is_claimed_by_one_turn_only(con: Connection) -> None:
    turn_starts.record_start(con, start("s1", started=True))
    later = NOW + timedelta(hours=1)
    assert [entry.start_id for entry in turn_starts.unclaimed_starts(con, "weather", later)] == [
        "s1"
    ]
    assert turn_starts.claim_start(con, "s1", "run-1")
    assert not turn_starts.claim_start(con, "s1", "run-2")
    assert turn_starts.claim_start(con, "s1", "run-1")  # the same run, after a crash
    assert turn_starts.unclaimed_starts(con, "weather", later) == []


def test_only_a_start_that_was_requested_for_the_workload_stands_for_a_starter(con: Connection):
    """Attack: with Prefect's login one names a start of no turn's, instead of who starts one."""
    turn_starts.record_start(con, start("s1", started=True))
    turn_starts.record_start(con, start("s2", started=False))
    workload = start("s1", started=True).workload_id
    assert turn_starts.is_requested(con, "s1", workload)
    assert not turn_starts.is_requested(con, "s1", "another")
    assert not turn_starts.is_requested(con, "s2", workload)
    assert not turn_starts.is_requested(con, "made up", workload)
