"""The share of quality that is kept: the coverage of its interval."""

import numpy as np
import pytest
from scipy import optimize, stats

from components.gate.report.production_costs import kept_share


def test_the_interval_holds_the_true_ratio_in_95_of_100_samples() -> None:
    dice = np.random.default_rng(0)
    truth, held = (0.8 * 0.85 + 0.2 * 0.3) / 0.8, 0
    for _ in range(400):
        reference = dice.random(150) < 0.8
        scores = dice.random(150) < np.where(reference, 0.85, 0.3)
        kept = kept_share(scores.astype(float).tolist(), reference.astype(float).tolist())
        assert kept.low is not None
        assert kept.high is not None
        held += kept.low <= truth <= kept.high
    assert 365 <= held <= 395


def test_its_ends_are_the_ratios_that_a_paired_t_test_just_rejects() -> None:
    dice = np.random.default_rng(1)
    reference = dice.random(80)
    scores = 0.7 * reference + 0.2 * dice.random(80)
    kept = kept_share(scores.tolist(), reference.tolist())

    def p_value(ratio: float) -> float:
        return float(stats.ttest_1samp(scores - ratio * reference, 0).pvalue) - 0.05  # pyright: ignore[reportAttributeAccessIssue]

    assert kept.ratio is not None
    assert kept.low == pytest.approx(optimize.brentq(p_value, 0.1, kept.ratio))
    assert kept.high == pytest.approx(optimize.brentq(p_value, kept.ratio, 3))


def test_requests_of_one_conversation_count_as_one() -> None:
    scores, reference = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    alone = kept_share(scores, reference)
    copied = kept_share(scores * 5, reference * 5, clusters=["a", "b", "c", "d", "e", "f"] * 5)
    believed = kept_share(scores * 5, reference * 5)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert believed.low is not None
    assert alone.low is not None
    assert believed.low > alone.low


@pytest.mark.parametrize(
    ("scores", "reference", "message"),
    [
        pytest.param([], [], "right on nothing", id="no-requests"),
        pytest.param([1, 1], [0, 0], "right on nothing", id="a-reference-of-zeros"),
        pytest.param([1, 0, 1], [1, 0, 0], "not surely above zero", id="three-requests"),
        pytest.param([1], [1], "belong together", id="one-request"),
        pytest.param([1, 0, 1, 1] * 9, [1, 0, 1, 1] * 9, "on no request", id="always-alike"),
    ],
)
def test_there_is_no_interval_without_a_basis(
    scores: list[float], reference: list[float], message: str
) -> None:
    kept = kept_share(scores, reference)
    assert kept.low is kept.high is None
    assert message in (kept.unbounded or "")


def test_a_reference_that_is_always_right_gives_the_interval_of_a_share() -> None:
    kept = kept_share([1.0] * 15 + [0.0] * 5, [1.0] * 20)
    wilson = stats.binomtest(15, 20).proportion_ci(method="wilson")
    assert (kept.low, kept.high) == pytest.approx((wilson.low, wilson.high))
    assert kept.method == "Wilson"
    perfect = kept_share([1.0] * 20, [1.0] * 20)
    assert perfect.low is not None
    assert perfect.low < 0.9, "twenty right answers are no certainty"


def test_scores_that_are_not_paired_are_rejected() -> None:
    with pytest.raises(ValueError, match="expected pairs"):
        kept_share([1.0], [1.0, 0.0])
