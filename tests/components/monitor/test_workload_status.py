"""A workload's status: counts from a warehouse, and its pages."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from scipy import stats

from components.collect.source import Input
from components.costs import Prices, Speed, TokenPrice, Work
from components.monitor import status_page, workload_status
from components.monitor.serving_status import ServingStatus
from components.monitor.signs import Sign
from components.monitor.workload_status import (
    Day,
    Disk,
    Latency,
    Waiting,
    WorkloadStatus,
)
from components.schema import Json
from components.store.warehouse import Connection
from tests.support import logs

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SINCE = datetime(2025, 10, 1, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>|`{{7*7}}`"


def answered(number: int, model: str | None, **usage: Json) -> dict[str, Json]:
    line = logs.interaction(f"Question {number}?", response_id=f"r{number}")
    response = line["response"]
    assert isinstance(response, dict)
    named: dict[str, Json] = {"model": model} if model else {}
    return {**line, "response": {**response, **named, **({"usage": usage} if usage else {})}}


@pytest.mark.parametrize(
    "usage",
    [
        pytest.param({"prompt_tokens": 900}, id="without-the-answers"),
        pytest.param({"completion_tokens": 900}, id="without-the-prompts"),
        pytest.param({"prompt_tokens": 0, "completion_tokens": 0}, id="zeros-where-not-counted"),
        pytest.param({"prompt_tokens": "NaN", "completion_tokens": 900}, id="not-a-number"),
        pytest.param({"prompt_tokens": 900, "completion_tokens": "Infinity"}, id="infinite"),
    ],
)
def test_tokens_that_a_response_does_not_wholly_tell_are_in_no_mean(
    con: Connection, tmp_path: Path, usage: dict[str, Json]
) -> None:
    lines = [answered(0, "gpt", prompt_tokens=100, completion_tokens=20), answered(1, "gpt")]
    load(con, tmp_path, "interactions", [*lines, answered(2, "gpt", **usage)])
    (day,) = workload_status.days(con, "weather", SINCE)
    assert (day.requests, day.counted, day.input_tokens, day.output_tokens) == (3, 1, 100, 20)


def test_cached_tokens_are_priced_as_such(con: Connection, tmp_path: Path) -> None:
    details: Json = {"cached_tokens": 70, "cache_creation_tokens": 10}
    line = answered(
        0, "gpt", prompt_tokens=100, completion_tokens=20, prompt_tokens_details=details
    )
    load(con, tmp_path, "interactions", [line])
    (day,) = workload_status.days(con, "weather", SINCE)
    prices = Prices(production=TokenPrice(input=2.5, cached_input=0.5, cache_write=3, output=10))
    priced = (20 * 2.5 + 70 * 0.5 + 10 * 3 + 200) / 1e6
    assert workload_status.price(day, prices) == pytest.approx(priced)
    sums = workload_status.by_model([day, day])[0]
    assert (sums.cached_tokens, sums.written_tokens) == (140, 20)


def test_what_a_record_says_of_cached_tokens_counts_before_its_response(
    con: Connection, tmp_path: Path
) -> None:
    whole: Json = {
        "prompt_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 70, "cache_creation_tokens": 10},
    }
    line = answered(0, "claude", prompt_tokens=20, completion_tokens=20) | {"usage": whole}
    load(con, tmp_path, "interactions", [line])
    (day,) = workload_status.days(con, "weather", SINCE)
    assert (day.input_tokens, day.cached_tokens, day.written_tokens) == (100, 70, 10)


def test_a_record_may_have_its_tokens_beside_a_response_without_any(
    con: Connection, tmp_path: Path
) -> None:
    used: Json = {"prompt_tokens": 100, "completion_tokens": 20}
    line = answered(0, "gpt") | {"usage": used}
    load(con, tmp_path, "interactions", [line])
    (day,) = workload_status.days(con, "weather", SINCE)
    assert (day.counted, day.input_tokens, day.output_tokens) == (1, 100, 20)


def load(con: Connection, folder: Path, kind: str, lines: list[dict[str, Json]]) -> None:
    path = logs.write(folder / f"{kind}.jsonl", lines)
    source = "fivekey" if kind == "interactions" else "feedback"
    logs.load_input(con, Input(str(path), source), now=NOW)


def test_requests_tokens_and_last_votes_are_counted_by_model_and_day(
    con: Connection, tmp_path: Path
) -> None:
    used: dict[str, Json] = {"prompt_tokens": 100, "completion_tokens": 20}
    lines = [answered(0, "gpt", **used), answered(1, "gpt"), answered(2, None)]
    load(con, tmp_path, "interactions", lines)
    cast = [
        logs.feedback(response_id="r0", value="down"),
        logs.feedback(response_id="r0", value="up", timestamp=1_760_000_200),
        logs.feedback(response_id="r0", value="up", actor_id="bob"),
        logs.feedback(response_id="r2", value="down"),
        logs.feedback(response_id="r2", value="down", actor_id="eve", workload_id="billing"),
    ]
    load(con, tmp_path, "feedback", cast)
    assert workload_status.days(con, "weather", SINCE) == [
        Day("gpt", "2025-10-09", 2, 1, 100.0, 20.0, 2, 0),
        Day("not named", "2025-10-09", 1, 0, 0.0, 0.0, 0, 1),
    ]
    assert workload_status.days(con, "weather", NOW) == []


def test_a_vote_on_a_trace_or_an_unknown_target_counts_for_the_answer_that_it_is_on(
    con: Connection, tmp_path: Path
) -> None:
    traces = {0: "alone", 1: "alone too", 2: "two answers", 3: "two answers", 4: "r1"}
    lines = [answered(n, "gpt") | {"trace_id": trace} for n, trace in traces.items()]
    load(con, tmp_path, "interactions", lines)
    votes = [
        logs.feedback(target_id="alone"),
        logs.feedback(target_id="r1", value="up"),
        logs.feedback(target_id="alone too", value="up", actor_id="bob"),
        logs.feedback(target_id="two answers"),
        logs.feedback("correction", logs.say("Rainy."), target_id="alone"),
    ]
    load(con, tmp_path, "feedback", [logs.without(vote, "response_id") for vote in votes])
    assert workload_status.days(con, "weather", SINCE) == [
        Day("gpt", "2025-10-09", 5, 0, 0.0, 0.0, 2, 1, 1)
    ]


def test_a_vote_on_an_answer_that_was_logged_twice_counts_once(
    con: Connection, tmp_path: Path
) -> None:
    line = answered(0, "gpt")
    load(con, tmp_path, "interactions", [line, line | {"timestamp": 1_760_000_001}])
    load(con, tmp_path, "feedback", [logs.feedback(response_id="r0")])
    assert workload_status.days(con, "weather", SINCE) == [
        Day("gpt", "2025-10-09", 2, 0, 0.0, 0.0, 0, 1)
    ]


def test_latency_covers_the_answers_that_log_a_duration(con: Connection, tmp_path: Path) -> None:
    times: list[Json] = [100, 200.5, 300, None, "400", True, -5, {"ms": 1}]
    lines = [answered(n, "gpt") | {"duration_ms": ms} for n, ms in enumerate(times)]
    load(con, tmp_path, "interactions", [*lines, answered(20, "gpt"), answered(21, "other")])
    (latency,) = workload_status.latencies(con, "weather", SINCE).values()
    assert (latency.model_name, latency.timed, latency.p50_ms) == ("gpt", 3, 200.5)
    assert latency.p95_ms == pytest.approx(290.05)
    assert workload_status.latencies(con, "weather", NOW) == {}


def test_the_interval_of_the_thumbs_is_wilsons() -> None:
    rate = workload_status.rate(30, 40)
    expected = stats.binomtest(30, 40).proportion_ci(0.95, method="wilson")
    assert rate == workload_status.Rate(0.75, float(expected.low), float(expected.high))
    assert workload_status.rate(0, 0) is None


def test_a_request_costs_what_its_tokens_cost() -> None:
    day = Day("m", "2025-10-09", 5, 2, 2000.0, 400.0, 0, 0)
    prices = Prices(production=TokenPrice(input=2.0, output=10.0))
    assert workload_status.price(day, prices) == pytest.approx((1000 * 2 + 200 * 10) / 1e6)
    assert workload_status.price(day, Prices()) is None


OURS = Day("weather@7", "2025-10-09", 5, 2, 2000.0, 400.0, 0, 0, served=5, version="7")
DEAR = TokenPrice(input=2.0, output=10.0)


def test_a_version_that_is_billed_by_tokens_costs_its_hosts_price_and_not_productions() -> None:
    prices = Prices(production=DEAR, challenger=TokenPrice(input=0.2, output=1.0))
    assert workload_status.price(OURS, prices) == pytest.approx((1000 * 0.2 + 200 * 1) / 1e6)
    assert workload_status.price(OURS, Prices(production=DEAR)) is None


def test_a_version_that_is_paid_by_the_hour_costs_its_measured_work_on_the_tokens_served() -> None:
    prices = Prices(production=DEAR, hardware_per_hour=0.4, utilization=0.5)
    # 10 requests of 600 tokens took 60 core-seconds of a machine of two cores.
    speed = Speed(10, 5000, 1000, 40.0, "a machine", work=Work(60.0, "core", 2))
    a_token = 0.4 * 60 / 2 / 3600 / 6000 / 0.5
    assert workload_status.price(OURS, prices, speed) == pytest.approx(1200 * a_token)
    assert workload_status.price(OURS, prices) is None
    assert workload_status.price(replace(OURS, counted=0), prices, speed) is None


def test_what_a_fallback_answered_costs_productions_price() -> None:
    prices = Prices(production=DEAR, challenger=TokenPrice(input=0.2, output=1.0))
    other = replace(OURS, model_name="gpt", version=None)
    assert workload_status.price(other, prices) == pytest.approx((1000 * 2 + 200 * 10) / 1e6)


def test_the_gateways_answers_are_counted_by_version_with_those_that_people_disagree_on(
    con: Connection, tmp_path: Path
) -> None:
    served: Json = {"version": "7", "arm": "champion"}
    lines = [answered(number, "weather@7") | {"served": served} for number in range(3)]
    load(con, tmp_path, "interactions", lines)
    cast = [
        logs.feedback(response_id="r0", value="up"),
        logs.feedback(response_id="r0", value="down", actor_id="bob"),
        logs.feedback(response_id="r1", value="down"),
        logs.feedback(response_id="r1", value="down", actor_id="bob"),
    ]
    load(con, tmp_path, "feedback", cast)
    (day,) = workload_status.by_model(workload_status.days(con, "weather", SINCE))
    assert (day.version, day.served, day.disputed, day.up, day.down) == ("7", 3, 1, 1, 3)


def standing(model: str = "gpt") -> WorkloadStatus:
    return WorkloadStatus(
        workload="weather",
        at=NOW,
        span_days=30,
        champion="version 3, adapter a1",
        serving=ServingStatus(is_running=False),
        answering="not measured",
        days=[
            Day(model, "2025-10-09", 40, 40, 4000, 800, 30, 10),
            Day(model, "2025-10-10", 10, 10, 1000, 200, 1, 9),
        ],
        prices={model: 0.0123},
        latencies={model: Latency(model, 50, 812.0, 1234.5)},
        currency="USD",
        findings=[Sign("votes", 40.0, 20.0, f"thumbs down: {HOSTILE}")],
        starts=[],
        waiting=[Waiting("promote weather", "http://127.0.0.1/runs/1", NOW)],
        disk=Disk(5 * 2**20, 7 * 2**30),
    )


def test_the_page_shows_sums_of_days() -> None:
    page = status_page.as_markdown(standing())
    for text in (
        "gpt",
        "50",
        "31, 19",
        "812, 1,234 ms",
        "0.0123 USD",
        "Reached",
        "2026-01-01 00:00",
        "5 MiB",
    ):
        assert text in page, text


def test_a_small_price_has_no_exponent() -> None:
    assert workload_status.price_text(0.0000527, "USD") == "0.0000527 USD"


def test_prometheus_reads_what_was_counted() -> None:
    text = status_page.prometheus_text([standing()]).decode()
    assert 'flywheel_live_requests{model="gpt",workload="weather"} 50.0' in text
    assert 'flywheel_live_thumbs_down{model="gpt",workload="weather"} 19.0' in text
    assert (
        'flywheel_live_latency_seconds{model="gpt",quantile="0.95",workload="weather"} 1.2345'
    ) in text
    assert 'flywheel_sign_ratio{kind="votes",workload="weather"} 2.0' in text
    assert 'flywheel_approvals_waiting{workload="weather"} 1.0' in text
    assert (
        'flywheel_live_request_price{currency="USD",model="gpt",workload="weather"} 0.0123' in text
    )
