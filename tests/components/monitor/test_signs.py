"""Which signs start a turn, and what prevents a start."""

from datetime import UTC, datetime, timedelta

import pytest

from components.monitor import signs, turn_starts
from components.monitor.settings import Trigger
from components.monitor.signs import Sign
from tests.support import streams

NOW = datetime(2026, 1, 31, tzinfo=UTC)
GIVEN = Sign("feedback", 60, 50, "60 new feedback signals")
MISSING = Sign("feedback", 3, 50, "3 new feedback signals")


def choose(
    *signs: Sign, hours: tuple[int, ...] = (), under_way: bool = False
) -> turn_starts.StartDecision:
    earlier = [NOW - timedelta(hours=ago) for ago in hours]
    settings = Trigger(cooldown_hours=24, turns_a_month=2)
    return turn_starts.decide_start(signs, earlier, settings, under_way=under_way, now=NOW)


def test_a_sign_starts_a_turn_and_is_its_reason() -> None:
    assert choose(MISSING, GIVEN) == turn_starts.StartDecision(True, "60 new feedback signals")


def test_without_a_reached_sign_there_is_no_turn_and_all_figures_are_kept() -> None:
    assert choose(MISSING) == turn_starts.StartDecision(False, "3 new feedback signals")
    assert choose() == turn_starts.StartDecision(False, "no data to decide on yet")


@pytest.mark.parametrize(
    ("hours", "under_way", "reason"),
    [
        pytest.param((5,), False, "cooldown_hours is not over", id="cool-down"),
        pytest.param((30, 60), False, "turns_a_month is 2", id="budget"),
        pytest.param((), True, "a turn is under way", id="under-way"),
    ],
)
def test_the_reason_against_a_start_is_logged_with_the_sign(
    hours: tuple[int, ...], under_way: bool, reason: str
) -> None:
    decision = choose(GIVEN, hours=hours, under_way=under_way)
    assert not decision.starts
    assert reason in decision.reason
    assert "60 new feedback signals" in decision.reason


def test_turns_of_last_month_do_not_count_against_the_budget() -> None:
    assert choose(GIVEN, hours=(30, 24 * 31, 24 * 40)).starts


def test_turns_from_before_the_clock_was_set_back_do_not_prevent_a_start() -> None:
    assert choose(GIVEN, hours=(-24 * 365, -24 * 365 - 1)).starts
    assert not choose(GIVEN, hours=(-24 * 365, 5)).starts


def test_requests_on_other_topics_are_drift() -> None:
    before, new = streams.requests(1, 300), streams.requests(2, 150, share=0.7, is_new=True)
    sign = signs.input_drift(before, new, Trigger())
    assert sign and sign.is_reached
    assert "most by their words" in sign.text


def test_requests_on_the_same_topics_are_not_drift() -> None:
    before, new = streams.requests(1, 300), streams.requests(2, 300, is_new=True)
    sign = signs.input_drift(before, new, Trigger())
    assert sign and not sign.is_reached


def test_an_unknown_client_is_drift() -> None:
    before = streams.requests(1, 300)
    new = [
        signs.FirstRequest(
            request.interaction_id, "kiosk", request.question, request.tool_names, True
        )
        for request in streams.requests(2, 40, is_new=True)
    ]
    sign = signs.input_drift(before, new, Trigger())
    assert sign and sign.is_reached
    assert "most by their client" in sign.text


def test_a_handful_of_earlier_requests_is_too_few() -> None:
    assert signs.input_drift(streams.requests(1, 20), streams.requests(2, 99), Trigger()) is None
    assert (
        signs.falling_votes(streams.votes(1, 10, 0.2), streams.votes(2, 99, 0.9), Trigger()) is None
    )


@pytest.mark.parametrize(
    ("down", "falls"),
    [
        pytest.param(0.6, True, id="from-2-in-10-to-6"),
        pytest.param(0.2, False, id="as-before"),
        pytest.param(0.02, False, id="better"),
    ],
)
def test_more_thumbs_down_than_before_the_champion_are_a_sign(down: float, falls: bool) -> None:
    sign = signs.falling_votes(
        streams.votes(1, 150, 0.2), streams.votes(2, 120, down, is_new=True), Trigger()
    )
    assert sign and sign.is_reached == falls
