"""The limit of slow answers is the champion's own, by the size of the prompt."""

import pytest

from components.extensions.canary import latency_limits


def answers(tokens: int, count: int, slowest: float) -> list[tuple[int, float]]:
    return [(tokens, slowest * (number + 1) / count) for number in range(count)]


def test_one_answer_in_twenty_is_slow_in_each_class():
    champion = [*answers(50, 200, 100.0), *answers(2_000, 200, 1_000.0)]
    limits = latency_limits.freeze(champion)
    for size in (50, 2_000):
        slow = [limits.is_slow(tokens, took) for tokens, took in champion if tokens == size]
        assert sum(slow) == 10


def test_a_prompt_at_the_edge_belongs_to_the_smaller_class():
    limits = latency_limits.freeze([*answers(64, 100, 100.0), *answers(65, 100, 1_000.0)])
    assert limits.sizes == (64,)
    assert limits.is_slow(64, 100.0)
    assert not limits.is_slow(65, 900.0)
    assert limits.is_slow(1_000_000, 1_000.0)


def test_classes_with_few_answers_join_the_next():
    few = [*answers(50, 99, 100.0), *answers(200, 99, 500.0), *answers(3_000, 99, 1_000.0)]
    assert latency_limits.freeze(few).sizes == ()
    more = [*few, *answers(3_000, 50, 1_000.0)]
    assert latency_limits.freeze(more).sizes == (256,)


def test_too_few_answers_are_refused():
    with pytest.raises(ValueError, match="gave 99 answers"):
        latency_limits.freeze(answers(50, 99, 1.0))
