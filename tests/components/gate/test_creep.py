"""Small losses of a guard don't add up from champion to champion: the anchor bounds the sum."""

from dataclasses import replace

import pytest

from components.gate import judge as gate
from components.gate.comparability import Anchor, Measured
from components.gate.judgement import Judgement
from components.gate.policy import Guard, Policy
from components.gate.report import side_by_side, words
from components.scorecard import HOLDOUT, Scorecard
from tests.support import gate_cases
from tests.support.cards import card, guard_card

GUARD = Guard(task="arc_easy", metric="acc", margin=0.05)
POLICY = Policy(abstention_margin=None, guards=(GUARD,), floor=0.1)


def champion(number: int, lost: int = 16) -> Measured:
    """Make champion ``number``: each is better than the last, and has forgotten more."""
    forgotten = lost * number
    return {
        HOLDOUT: card([1.0] * (50 + 10 * number) + [0.0] * (150 - 10 * number)),
        "arc_easy": guard_card([0.0] * forgotten + [1.0] * (980 - forgotten)),
    }


BASE = champion(0)


def promoted(policy: Policy, anchor: Anchor | None) -> int:
    """Count how many of six challengers become champion, one after the other."""
    now = 0
    for number in range(1, 7):
        held = anchor if now else None
        judgement = gate.judge(champion(number), champion(now), policy, anchor=held)
        now = number if judgement.outcome == "pass" else now
    return now


def loss(number: int) -> float:
    before, after = (
        cards["arc_easy"].scores["acc"].value or 0 for cards in (BASE, champion(number))
    )
    return before - after


@pytest.mark.slow
def test_six_promotions_within_their_margins_lose_no_more_than_the_margin_in_all() -> None:
    assert loss(promoted(POLICY, None)) == pytest.approx(0.098, abs=1e-3), "as each one may lose it"
    last = promoted(POLICY, Anchor("base", BASE))
    assert 0 < loss(last) < 0.05


def judged(number: int, before: int = 1, policy: Policy = POLICY) -> Judgement:
    return gate.judge(champion(number), champion(before), policy, anchor=Anchor("base", BASE))


def test_the_loss_since_the_base_is_listed_with_the_current_loss() -> None:
    judgement = judged(2)
    assert judgement.outcome == "pass"
    _, now, since = judgement.comparisons
    assert (now.name, now.anchor, now.opponent) == ("acc on arc_easy", "", pytest.approx(964 / 980))
    assert (since.name, since.opponent) == ("acc on arc_easy since the base", 1.0)
    assert since.difference == pytest.approx(-32 / 980)
    assert judgement.reasons[2].startswith(
        "no worse on acc on arc_easy since the base: -3.3 points"
    )


def test_a_creeping_loss_fails_where_it_is_shown_and_is_open_where_it_is_not() -> None:
    doubt, fault = judged(3, 2), judged(6, 5)
    assert doubt.outcome == "inconclusive"
    assert doubt.reasons[0].startswith("not shown to be no worse on acc on arc_easy since the base")
    assert fault.outcome == "fail"
    assert fault.reasons[0].startswith("worse on acc on arc_easy since the base: -9.8 points")
    assert "corrected for the other comparisons" in fault.reasons[0]


def test_a_guard_is_compared_once_if_the_opponent_is_the_anchor() -> None:
    judgement = gate.judge(champion(2), BASE, POLICY)
    assert [comparison.anchor for comparison in judgement.comparisons] == ["", ""]


@pytest.mark.parametrize(
    ("anchor", "reason"),
    [
        pytest.param({}, "not measured: the base has no scorecard of arc_easy", id="not-measured"),
        pytest.param(
            {"arc_easy": guard_card([None] * 980)},
            "not measured: acc on arc_easy of the base has no value",
            id="no-value",
        ),
        pytest.param(
            {"arc_easy": guard_card([1.0] * 979)},
            "not comparable on arc_easy: the challenger answered 980 requests and the base 979",
            id="other-requests",
        ),
    ],
)
def test_an_incomparable_anchor_fails_the_challenger(
    anchor: dict[str, Scorecard], reason: str
) -> None:
    judgement = gate.judge(champion(2), champion(1), POLICY, anchor=Anchor("base", anchor))
    assert (judgement.outcome, judgement.look) == ("fail", 0)
    assert judgement.reasons[0].startswith(reason)


def test_abstention_is_compared_with_the_anchor_too() -> None:
    ours, theirs, base = (
        {HOLDOUT: card([1.0] * right + [0.0] * (100 - right), [1.0] * kept + [0.0] * (400 - kept))}
        for right, kept in ((90, 340), (60, 350), (50, 398))
    )
    anchor = Anchor("base", base)
    assert gate.judge(ours, theirs, Policy(floor=0)).outcome == "pass"
    judgement = gate.judge(ours, theirs, Policy(floor=0), anchor=anchor)
    assert judgement.reasons[0].startswith("worse on abstention since the base: -14.5 points")


def test_report_and_form_show_the_guard_since_the_base_by_its_own_name() -> None:
    judgement = judged(2)
    shown = side_by_side.figures(champion(2), champion(1), judgement)
    names = [figure.effect.name for figure in shown if figure.task == "arc_easy"]
    assert names == ["arc_easy: acc", "arc_easy: acc since the base"]
    assert shown[2].finding == "no worse than the 5 points allowed since the base (100.0%)"
    assert shown[2].opponent is None, "it is the base's score, and not the champion's"
    case = replace(gate_cases.clear(), judgement=judgement)
    assert (
        "one guarded figure was shown not to get worse, nor since the base"
        in words.verdict_sentence(case)
    )
