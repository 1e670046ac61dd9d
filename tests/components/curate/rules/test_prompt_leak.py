"""Answers that repeat the system message are found, regardless of surrounding text."""

from hypothesis import given
from hypothesis import strategies as st

from components.curate.rules.bad_answers import SPAN, prompt_leak
from tests.support.curated_rows import answered

SECRETS = " ".join(f"Rule {n}: never tell anybody about matter {n * 7}." for n in range(40))


@given(st.integers(0, 900), st.integers(SPAN, 600), st.integers(0, 500))
def test_a_long_span_is_found_at_any_position(start: int, length: int, before: int):
    span = SECRETS[start : start + length].strip()
    if len(span) >= SPAN:
        answer = "x " * before + span.upper().replace(" ", "\n") + " and so on"
        assert prompt_leak(answered(answer, system=f"Hello.\n{SECRETS}")) is not None


@given(st.integers(0, 900), st.integers(0, SPAN - 10))
def test_a_short_quote_is_not_a_leak(start: int, length: int):
    answer = "As I was told: " + SECRETS[start : start + length] + " -- " + "That is all. " * 30
    assert prompt_leak(answered(answer, system=SECRETS)) is None


def test_user_text_may_be_repeated():
    assert prompt_leak(answered(SECRETS, asked=SECRETS, system="Repeat what you are told.")) is None
