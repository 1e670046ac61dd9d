"""A one-time code is accepted within its window, once."""

from datetime import UTC, datetime, timedelta

import pytest
from pyotp.totp import TOTP

from components.decide import approvers

NOW = datetime(2026, 1, 1, 12, 30, 10, tzinfo=UTC)
SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""That of RFC 6238's test vectors, ``12345678901234567890``."""


def code(half_minutes: int = 0) -> str:
    return TOTP(SECRET).at(NOW + timedelta(seconds=30 * half_minutes))


@pytest.mark.parametrize(
    ("half_minutes", "outcome"),
    [
        pytest.param(-21, "code_wrong", id="older-than-is-remembered"),
        pytest.param(-20, "code_expired", id="ten-minutes-old"),
        pytest.param(-2, "code_expired", id="two-windows-old"),
        pytest.param(-1, -1, id="the-window-before"),
        pytest.param(0, 0, id="the-present-window"),
        pytest.param(1, 1, id="the-window-after"),
        pytest.param(2, "code_wrong", id="two-windows-ahead"),
    ],
)
def test_a_code_is_accepted_one_window_around_now(half_minutes: int, outcome: str | int) -> None:
    present = int(NOW.timestamp()) // 30
    expected = outcome if isinstance(outcome, str) else present + outcome
    assert approvers.check(SECRET, code(half_minutes), now=NOW, last=None) == expected


@pytest.mark.parametrize(
    ("half_minutes", "used", "is_taken"),
    [
        pytest.param(0, 0, False, id="the-same"),
        pytest.param(-1, 0, False, id="older-than-one-that-was-used"),
        pytest.param(1, 0, True, id="newer"),
        pytest.param(0, -1, True, id="after-an-older-one"),
    ],
)
def test_a_code_is_accepted_once(half_minutes: int, used: int, is_taken: bool) -> None:
    present = int(NOW.timestamp()) // 30
    outcome = approvers.check(SECRET, code(half_minutes), now=NOW, last=present + used)
    assert outcome == (present + half_minutes if is_taken else "code_reused")


@pytest.mark.parametrize(
    ("typed", "outcome"),
    [
        pytest.param("", "code_missing", id="nothing"),
        pytest.param("  ", "code_missing", id="blanks"),
        pytest.param("000000", "code_wrong", id="another"),
        pytest.param("١٢٣٤٥٦", "code_wrong", id="digits-of-another-script"),
        pytest.param("1" * 5000, "code_wrong", id="long"),
        pytest.param("' or 1=1", "code_wrong", id="no-digits"),
    ],
)
def test_an_invalid_code_is_refused(typed: str, outcome: str) -> None:
    assert approvers.check(SECRET, typed, now=NOW, last=None) == outcome


def test_a_code_may_be_typed_in_two_groups() -> None:
    typed = code()
    assert isinstance(
        approvers.check(SECRET, f" {typed[:3]} {typed[3:]} ", now=NOW, last=None), int
    )


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        pytest.param(SECRET, True, id="160-bits"),
        pytest.param("GEZDGNBV", False, id="40-bits"),
        pytest.param("hunter2!", False, id="a-password"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_only_base32_of_enough_bits_is_a_secret(text: str, is_one: bool) -> None:
    assert approvers.is_secret(text) == is_one


def test_the_address_for_the_app_carries_a_hostile_name_as_text() -> None:
    address = approvers.uri(SECRET, "ada&secret=AAAA", home="home/../x")
    assert address.count("secret=") == 1
    assert "ada%26secret%3DAAAA" in address
