"""A workload's page: traffic by version from a real warehouse, and what is said plainly."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.collect.source import Input
from components.monitor import status_page, workload_status
from components.monitor.serving_status import RefusedVersion, ServingStatus, ServingVersion
from components.monitor.turn_starts import TurnStart
from components.monitor.workload_status import Day, WorkloadStatus
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import logs, workload_statuses

NOW = datetime(2025, 10, 20, tzinfo=UTC)
SINCE = datetime(2025, 10, 1, tzinfo=UTC)
AT = 1_760_000_000  # 2025-10-09
HOSTILE = "<script>alert(1)</script>|`{{7*7}}`"

SEVEN = ServingVersion(
    version="7",
    model="weather.v7-0123456789ab",
    precision="bf16",
    since="2025-10-19T08:00:00.000+00:00",
    proved_at="2025-10-19T23:59:10.000+00:00",
    has_effect=True,
    replicas=["a", "b"],
)
SIX = replace(SEVEN, version="6", model="weather.v6-cdcdcdcdcdcd")
SERVING = ServingStatus(
    is_running=True,
    engine="vllm",
    champion=SEVEN,
    previous=SIX,
    refused=[RefusedVersion("2025-10-19T09:00:00.000+00:00", "8", "it answers as its base")],
    replicas_out=[("c", "connection refused")],
)


def answered(
    number: int, model: str, arm: str | None = "champion", day: int = 0
) -> dict[str, Json]:
    """Write a record as the gateway logs it; without an arm, as somebody else does."""
    line = logs.interaction(f"Question {number}?", response_id=f"r{number}")
    response = line["response"]
    assert isinstance(response, dict)
    served: dict[str, Json] = {} if arm is None else {"served": {"arm": arm, "version": "7"}}
    times: dict[str, Json] = {"timestamp": AT + 86_400 * day, "duration_ms": 100.0 * (number + 1)}
    return {**line, **times, **served, "response": {**response, "model": model}}


def status(days: list[Day], serving: ServingStatus = SERVING) -> WorkloadStatus:
    quiet = workload_statuses.quiet(days)
    return replace(quiet, at=NOW, champion="version 7, adapter a1", serving=serving)


def loaded(con: Connection, folder: Path) -> WorkloadStatus:
    """Load a gateway's log and feedback, and count them."""
    lines = [
        *(answered(n, "weather@7") for n in range(4)),
        answered(4, "weather@6", "fallback"),
        answered(5, "weather@6", day=-1),
        answered(6, "gpt-4.1", "fallback"),
        answered(7, "gpt-4.1-mini", None),
        answered(8, "weather@10", day=1),
    ]
    votes = [
        logs.feedback(response_id="r0", value="down"),
        logs.feedback(response_id="r1", value="up"),
        logs.feedback(response_id="r1", value="down", actor_id="bob"),
        logs.feedback("correction", logs.say("Rainy."), response_id="r0"),
        logs.feedback("correction", logs.say("Rain."), response_id="r0", actor_id="bob"),
        logs.feedback("correction", None, response_id="r1"),
        logs.feedback(response_id="r2", value=None),
    ]
    for kind, source, rows in (
        ("interactions", "fivekey", lines),
        ("feedback", "feedback", votes),
    ):
        path = logs.write(folder / f"{kind}.jsonl", rows)
        logs.load_input(con, Input(str(path), source), now=NOW)
    days = workload_status.days(con, "weather", SINCE)
    latencies = workload_status.latencies(con, "weather", SINCE)
    return replace(status(days), latencies=latencies, prices={"weather@7": 0.0004})


def test_traffic_is_counted_by_version_with_its_votes_and_corrections(
    con: Connection, tmp_path: Path
) -> None:
    rows = status_page.traffic_rows(loaded(con, tmp_path))
    assert [row[0] for row in rows] == [
        "version 10",
        "version 7",
        "version 6",
        "gpt-4.1 (a fallback)",
        "gpt-4.1-mini (not by the gateway)",
    ]
    seven, six = rows[1], rows[2]
    down = workload_status.rate(2, 3)
    corrected = workload_status.rate(1, 4)
    assert down is not None
    assert corrected is not None
    assert seven == [
        "version 7",
        "4",
        "44.4%",
        "0",
        "1, 2",
        "1",
        f"66.7% ({100 * down.low:.1f} to {100 * down.high:.1f})",
        f"25.0% ({100 * corrected.low:.1f} to {100 * corrected.high:.1f})",
        "not logged",
        "250, 385 ms",
        "0.000400 USD",
    ]
    assert six[1:7] == ["2", "22.2%", "1", "no votes", "", ""]
    assert six[-1] == "no price"


def test_the_page_says_who_serves_since_when_and_how_that_was_proved() -> None:
    days = [Day("weather@7", "2025-10-09", 4, 0, 0, 0, 0, 0, served=4)]
    page = status_page.as_markdown(status(days))
    for text in (
        "version 7 (weather.v7-0123456789ab)",
        "2025-10-19 08:00",
        "a, b (vllm, bf16)",
        "2025-10-19 23:59, by its log-probabilities",
        "version 6, still loaded",
        "version 8 since 2025-10-19 09:00: it answers as its base",
        "connection refused",
        "Nobody has voted on an answer.",
    ):
        assert text in page, text


def test_the_page_says_what_turns_were_started_or_considered_and_why() -> None:
    reason = "4 new feedback, fewer than min_feedback 50"
    look = TurnStart("s1", "weather", "trigger", False, reason, NOW)
    page = status_page.as_markdown(replace(status([]), starts=[look]))
    assert "| 2025-10-20 00:00 | no turn | trigger | 4 new feedback" in page


@pytest.mark.parametrize(
    ("serving", "text"),
    [
        pytest.param(ServingStatus(is_running=False), "no gateway of this home runs", id="none"),
        pytest.param(ServingStatus(is_running=True), "nobody: no version was promoted", id="idle"),
        pytest.param(
            replace(SERVING, champion=replace(SEVEN, replicas=[])), "on no replica", id="out"
        ),
        pytest.param(
            replace(SERVING, champion=replace(SEVEN, has_effect=False)), "to its base", id="effect"
        ),
        pytest.param(replace(SERVING, previous=None), "a rollback has to load", id="first"),
        pytest.param(
            ServingStatus(is_running=True, preparing=[("9", "loading and proving")]),
            "loading and proving",
            id="preparing",
        ),
    ],
)
def test_what_is_missing_is_said(serving: ServingStatus, text: str) -> None:
    page = status_page.as_markdown(status([], serving))
    assert text in page
    assert "No requests logged;" in page


def test_names_from_traffic_stay_text() -> None:
    hostile = replace(SERVING, replicas_out=[("c", HOSTILE)])
    days = [Day(HOSTILE, "2025-10-09", 1, 0, 0, 0, 0, 1)]
    page = status_page.as_markdown(status(days, hostile))
    (row,) = [line for line in page.splitlines() if "alert" in line and line.startswith("|")]
    assert row.startswith("| &lt;script&gt;alert(1)&lt;/script&gt;\\|")
