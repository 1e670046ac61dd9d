"""One client of a workload can't affect another's rows beyond the limits."""

import json
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from components.curate import split
from components.curate.curate_workload import CurationTally
from components.curate.settings import Rules
from components.schema import ALWAYS, ClientShares, Json
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import curations, logs

LATER = logs.NOW + timedelta(days=1)
TRAINED = Rules(split_by="conversation", holdout_share=0.001, validation_share=0)
"""A holdout so small that all rows are trained on."""

CITIES = ("Rome", "Oslo", "Lima", "Kyiv", "Bern", "Doha", "Bonn", "Cork", "Nice", "Pisa")


class Loader:
    """Loads files of several clients, each at its time."""

    def __init__(self, con: Connection, folder: Path) -> None:
        self._con, self._folder, self._files = con, folder, 0

    def log(self, lines: Iterable[dict[str, Json]], *, now: datetime = logs.NOW) -> None:
        logs.load(self._con, self._file(lines), now=now)

    def say(self, lines: Iterable[dict[str, Json]], *, now: datetime = logs.NOW) -> None:
        logs.load_feedback(self._con, self._file(lines), now=now)

    def _file(self, lines: Iterable[dict[str, Json]]) -> Path:
        self._files += 1
        return logs.write(self._folder / f"{self._files}.jsonl", lines)


@pytest.fixture
def load(con: Connection, tmp_path: Path) -> Loader:
    return Loader(con, tmp_path)


def curate(con: Connection, rules: Rules = TRAINED, *, now: datetime = LATER) -> CurationTally:
    return curations.curate(con, "weather", rules, now=now)


def question(city: str) -> str:
    return f"Please tell me what the weather in {city} is going to be like tomorrow afternoon"


def ask(client: str, city: str, answer: str, number: int = 0, **changes: Json) -> dict[str, Json]:
    """Return the log of a question about a city and its answer."""
    response_id = f"{client} {city} {number}"
    return logs.interaction(
        question(city),
        message=logs.say(answer),
        response_id=response_id,
        **{"client_id": client, **changes},
    )


def honest() -> list[dict[str, Json]]:
    return [ask("app", city, f"Sunny in {city}.") for city in CITIES]


def rows(con: Connection, client: str) -> set[tuple[str, str, str]]:
    """Give what is learned of a client: side, question and answer."""
    return {
        (
            str(row["side"]),
            str(json.loads(str(row["messages"]))[-1]["content"]),
            str(json.loads(str(row["answer"]))["text"]),
        )
        for row in warehouse.rows(con, "select * from curated.examples")
        if row["client_id"] == client
    }


def verdicts(con: Connection, client: str) -> Counter[str]:
    rows = con.execute(
        "select coalesce(objection, 'kept') from curated.verdicts"
        " inner join raw.interactions using (interaction_id) where client_id = $client",
        {"client": client},
    ).fetchall()
    return Counter(verdict for (verdict,) in rows)


@pytest.mark.parametrize(
    "answer",
    ["It snows.", pytest.param("It snows, and that for a long time: " * 3, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("copies", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("is_first", [False, True])
def test_wrong_answers_to_another_clients_requests_change_none_of_its_rows(
    con: Connection, load: Loader, answer: str, copies: int, is_first: bool
):
    wrong = [
        ask("rogue", city, answer, number, timestamp=1_760_000_500 + number)
        for city in CITIES
        for number in range(copies)
    ]
    if is_first:
        load.log(wrong)
    load.log(honest(), now=LATER)
    curate(con)
    before = {(side, asked, f"Sunny in {asked.split()[7]}.") for side, asked, _ in rows(con, "app")}
    assert len(before) == len(CITIES)
    load.log(wrong, now=LATER)
    curate(con)
    assert rows(con, "app") == before
    assert verdicts(con, "app") == {"kept": len(CITIES)}
    assert {answered for _, _, answered in rows(con, "rogue")} == {answer}


def test_near_copies_do_not_push_out_another_clients_rows(con: Connection, load: Loader):
    load.log(honest())
    near = [
        logs.interaction(
            f"{question(city)}, please!",
            message=logs.say("It snows."),
            response_id=f"rogue {city}",
            client_id="rogue",
            timestamp=1_760_000_500,
        )
        for city in CITIES
    ]
    load.log(near, now=LATER)
    curate(con)
    assert verdicts(con, "app") == {"kept": len(CITIES)}


def test_corrections_and_thumbs_of_another_client_decide_nothing(con: Connection, load: Loader):
    load.log(honest())
    load.log([ask("rogue", city, f"Sunny in {city}.") for city in CITIES], now=LATER)
    feedback = [
        logs.feedback(kind, value, response_id=f"rogue {city} 0", client_id="rogue", actor_id=actor)
        for city in CITIES
        for actor in ("mallory", "oscar")
        for kind, value in (("thumb", "down"), ("correction", logs.say("It snows.")))
    ]
    load.say(feedback, now=LATER)
    curate(con)
    assert {answer for _, _, answer in rows(con, "app")} == {f"Sunny in {city}." for city in CITIES}
    assert verdicts(con, "app") == {"kept": len(CITIES)}


@pytest.mark.slow
def test_dislikes_of_another_client_reach_no_equal_answer(con: Connection, load: Loader):
    load.log(honest())
    load.log([ask("rogue", city, f"Sunny in {city}.") for city in CITIES], now=LATER)
    feedback = [
        logs.feedback(response_id=f"rogue {city} 0", client_id="rogue", actor_id=actor)
        for city in CITIES
        for actor in ("mallory", "oscar", "trudy")
    ]
    load.say(feedback, now=LATER)
    curate(con)
    assert verdicts(con, "app") == {"kept": len(CITIES)}
    assert verdicts(con, "rogue") == {"thumbs_down": len(CITIES)}


def test_equal_answers_of_several_clients_are_one_row_of_the_first(con: Connection, load: Loader):
    load.log(honest())
    load.log([ask("other", city, f"Sunny in {city}.") for city in CITIES], now=LATER)
    assert curate(con).counts == {"kept": len(CITIES), "duplicate": len(CITIES)}
    assert len(rows(con, "app")) == len(CITIES)
    ids = [row["interaction_ids"] for row in warehouse.rows(con, "select * from curated.examples")]
    assert [
        len(interaction_ids) for interaction_ids in ids if isinstance(interaction_ids, list)
    ] == [2] * len(CITIES)


def test_a_time_in_the_future_outranks_nothing_and_is_counted(con: Connection, load: Loader):
    load.log([ask("app", "Rome", "from the future", timestamp=logs.NOW.timestamp() + 40_000)])
    load.log([ask("app", "Rome", "newest", 1, timestamp=logs.NOW.timestamp() + 60)], now=LATER)
    tally = curate(con)
    assert {answer for _, _, answer in rows(con, "app")} == {"newest"}
    assert tally.flagged == {"future_timestamp flag": 1}
    (row,) = warehouse.rows(con, "select logged_at from curated.examples")
    assert row["logged_at"] == logs.NOW + timedelta(seconds=60)


def test_ids_of_another_client_tie_nothing_to_its_rows(con: Connection, load: Loader):
    load.log(honest())
    for number, city in enumerate(CITIES):
        load.log([ask("app", city, "Sunny.", 7, conversation_id=f"c{number}")])
    bridges = [
        logs.interaction(
            f"Bridge number {number} between what others said",
            response_id=f"bridge {number}",
            client_id="rogue",
            conversation_id=f"c{number}",
            user_id="everybody",
        )
        for number in range(len(CITIES))
    ]
    load.log(bridges, now=LATER)
    curate(con)
    clusters = con.execute(
        "select count(distinct component_id) from curated.standings"
        " inner join raw.interactions using (interaction_id) where client_id = 'app'"
    ).fetchall()
    assert clusters == [(len(CITIES),)]


WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty")


def essay(number: int) -> str:
    """Write a text that has no run of eight words in common with another number's."""
    return " ".join(f"{WORDS[n % 10]}{number}x{n}" for n in range(12))


def essays(client: str, numbers: Iterable[int], prefix: str = "") -> list[dict[str, Json]]:
    return [
        logs.interaction(
            f"{prefix}{essay(number)}",
            message=logs.say(f"Answer {number}"),
            response_id=f"{client} {number}",
            client_id=client,
        )
        for number in numbers
    ]


def test_texts_with_another_clients_requests_do_not_displace_its_training(
    con: Connection, load: Loader
):
    rules = Rules(split_by="conversation", holdout_share=0.5, validation_share=0)
    load.log(essays("app", range(20)))
    curate(con, rules)
    alone = {row for row in rows(con, "app") if row[0] == "train"}
    assert len(alone) >= 5
    whole = [
        logs.interaction(
            f"{' '.join(essay(number) for number in range(20))} and by the way number {copy}",
            response_id=f"rogue {copy}",
            client_id="rogue",
            message=logs.say(f"Answer of {copy}"),
            conversation_id=f"rogue {copy}",
        )
        for copy in range(6)
    ]
    load.log(whole, now=LATER)
    curate(con, rules)
    lost = verdicts(con, "app")
    assert lost["overlaps_holdout"] <= 0.05 * 20
    assert verdicts(con, "rogue")["displaces_other_client"] >= 1


def test_held_out_tools_do_not_displace_another_clients_training(con: Connection, load: Loader):
    rules = Rules(split_by="tools", holdout_share=0.3, validation_share=0)
    names = (f"search{number}" for number in range(100))
    name = next(tool for tool in names if split.side_by_hash(split.tools([tool])) > 0.3)
    ours = [
        logs.interaction(essay(n), response_id=f"app {n}", tools=[logs.tool(name)])
        for n in range(20)
    ]
    load.log(ours)
    curate(con, rules)
    assert {side for side, _, _ in rows(con, "app")} == {"train"}
    theirs = [
        logs.interaction(
            essay(100 + number),
            response_id=f"rogue {number}",
            client_id="rogue",
            tools=[logs.tool(name), logs.tool(f"junk{number}")],
        )
        for number in range(12)
    ]
    load.log(theirs, now=LATER)
    curate(con, rules)
    assert verdicts(con, "app") == {"kept": 20}
    assert verdicts(con, "rogue")["displaces_other_client"] >= 1


def test_a_later_client_has_at_most_its_share_of_a_side(con: Connection, load: Loader):
    rules = Rules(split_by="conversation", holdout_share=0.2, validation_share=0)
    load.log(essays("app", range(60)))
    load.log(essays("rogue", range(1000, 1400)), now=LATER)
    tally = curate(con, rules)
    sides = Counter(
        (client, side) for client in ("app", "rogue") for side, _, _ in rows(con, client)
    )
    assert sides["app", "train"] + sides["app", "holdout"] == 60
    assert sides["rogue", "train"] == max(ALWAYS, sides["app", "train"])
    assert sides["rogue", "holdout"] == max(ALWAYS, sides["app", "holdout"])
    assert tally.counts["over_client_train"] > 200
    assert tally.counts["over_client_holdout"] > 10


@pytest.mark.slow
def test_without_a_limit_a_later_client_keeps_all_rows(con: Connection, load: Loader):
    rules = Rules(
        split_by="conversation",
        holdout_share=0.2,
        validation_share=0,
        clients=ClientShares(holdout=1, train=1),
    )
    load.log(essays("app", range(10)))
    load.log(essays("other", range(1000, 1100)), now=LATER)
    assert curate(con, rules).counts == {"kept": 110}


def test_the_first_client_keeps_its_rank_when_its_rows_are_gone(con: Connection, load: Loader):
    load.log(essays("app", range(60)))
    load.log(essays("rogue", range(1000, 1060)), now=LATER)
    curate(con)
    con.execute("delete from raw.interactions where client_id = 'app'")
    load.log(essays("app", range(5, 8)), now=LATER + timedelta(days=1))
    curate(con)
    order = con.execute("select client_id from curated.clients order by first_loaded_at").fetchall()
    assert order == [("app",), ("rogue",)]


@pytest.mark.parametrize("strangers", [1, 49], ids=["one-line", "49-lines"])
@pytest.mark.parametrize("days", [1, 0], ids=["a-day-before", "in-the-same-load"])
def test_a_few_lines_of_a_stranger_before_production_limit_nothing(
    con: Connection, load: Loader, strangers: int, days: int
):
    load.log(essays("a stranger", range(1000, 1000 + strangers)))
    load.log(essays("production", range(150)), now=logs.NOW + timedelta(days=days))
    tally = curate(con, now=LATER + timedelta(days=1))
    assert "over_client_train" not in tally.counts
    assert len(rows(con, "production")) == 150


def test_a_flood_after_production_is_limited_however_large(con: Connection, load: Loader):
    load.log(essays("production", range(60)))
    load.log(essays("a stranger", range(1000, 1700)), now=LATER)
    curate(con, now=LATER + timedelta(days=1))
    assert len(rows(con, "production")) == 60
    assert len(rows(con, "a stranger")) <= 61


def test_the_clients_that_the_file_names_rank_first(con: Connection, load: Loader):
    load.log(essays("staging", range(1000, 1060)))
    load.log(essays("production", range(150)), now=LATER)
    late = LATER + timedelta(days=1)
    assert curate(con, now=late).counts["over_client_train"] == 90
    named = TRAINED.model_copy(update={"clients": ClientShares(first=["production"])})
    assert "over_client_train" not in curate(con, named, now=late).counts


def test_a_workload_of_one_client_is_as_before():
    assert "clients" not in Rules().model_dump()
    shares = ClientShares(train=0.9)
    assert Rules(clients=shares).model_dump()["clients"] == shares.model_dump()


def test_clients_under_together_count_as_one(con: Connection, load: Loader):
    load.log(honest())
    load.log(
        [ask("app-mobile", city, f"Rain in {city}.", 1) for city in CITIES],
        now=logs.NOW + timedelta(hours=1),
    )
    load.log(
        [ask("stranger", city, f"Snow in {city}.", 2) for city in CITIES],
        now=logs.NOW + timedelta(hours=2),
    )
    curate(con)
    assert len(rows(con, "app")) == len(rows(con, "app-mobile")) == len(CITIES)
    together = TRAINED.model_copy(update={"clients": ClientShares(together=["app*", "other-*"])})
    curate(con, together)
    of_one = rows(con, "app") | rows(con, "app-mobile")
    assert len(of_one) == len(CITIES), "requests of one application have one answer"
    assert len(rows(con, "stranger")) == len(CITIES)


@pytest.mark.slow
def test_parts_of_one_application_do_not_limit_each_other(con: Connection, load: Loader):
    rules = Rules(split_by="conversation", holdout_share=0.2, validation_share=0)
    load.log(essays("app", range(60)))
    load.log(essays("app-mobile", range(1000, 1200)), now=LATER)
    together = rules.model_copy(update={"clients": ClientShares(together=["app*"])})
    assert "over_client_train" not in curate(con, together).counts
    assert curate(con, rules).counts["over_client_train"] > 0
