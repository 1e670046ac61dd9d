"""The gate: what passes, what fails, what is inconclusive, and the reasons."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables

from components.gate import judge as gate
from components.gate.judgement import Comparison, Judgement
from components.gate.policy import Guard, Policy
from components.scorecard import HOLDOUT, Metric, Scorecard, Window
from tests.support.cards import card, guard_card, in_clusters, pair, rescored, sliced

POLICY = Policy(floor=0.5, min_documents=60)
UNGUARDED = POLICY.model_copy(update={"abstention_margin": None})
ARC = Policy(abstention_margin=None, guards=(Guard(task="arc_easy", metric="acc", margin=0.05),))


def judge(
    challenger: Scorecard, opponent: Scorecard, policy: Policy = POLICY, look: int = 1
) -> Judgement:
    return gate.judge({HOLDOUT: challenger}, {HOLDOUT: opponent}, policy, look)


def beside(ours: Scorecard, theirs: Scorecard, policy: Policy = ARC) -> Judgement:
    """Judge a clearly better challenger that was measured on a guard task as well."""
    challenger, opponent = pair(40, 2, 40, 10)
    return gate.judge(
        {HOLDOUT: challenger, ours.task: ours}, {HOLDOUT: opponent, theirs.task: theirs}, policy
    )


def target(judgement: Judgement) -> Comparison:
    assert judgement.target is not None
    return judgement.target


@pytest.mark.parametrize(
    ("wins", "losses", "both", "neither", "outcome"),
    [
        pytest.param(40, 2, 20, 10, "pass", id="clearly-better"),
        pytest.param(6, 0, 50, 10, "pass", id="few-flips-all-one-way"),
        pytest.param(5, 0, 50, 10, "inconclusive", id="one-flip-short"),
        pytest.param(12, 6, 50, 10, "inconclusive", id="ahead-within-chance"),
        pytest.param(0, 0, 60, 10, "fail", id="same-answers"),
        pytest.param(6, 8, 50, 10, "fail", id="behind-within-chance"),
        pytest.param(2, 40, 20, 10, "fail", id="clearly-worse"),
        pytest.param(30, 0, 0, 100, "fail", id="better-but-below-the-floor"),
        pytest.param(15, 0, 4, 0, "inconclusive", id="better-but-on-too-few"),
    ],
)
def test_outcome(wins: int, losses: int, both: int, neither: int, outcome: str):
    assert judge(*pair(wins, losses, both, neither)).outcome == outcome


def test_truncated_prompts_are_named_next_to_any_outcome():
    challenger, opponent = pair(40, 2, 20, 10)
    whole = judge(replace(challenger, window=Window(112, 0, 900)), opponent)
    cut = judge(replace(challenger, window=Window(112, 30, 900)), opponent)
    assert cut.outcome == whole.outcome == "pass"
    assert cut.reasons == (
        *whole.reasons,
        "30 of 112 prompts (26.8%) are longer than the 900 tokens that the model's window leaves "
        "next to an answer: their beginning was cut off, so their scores say little",
    )


def test_prompts_that_only_the_opponents_shorter_window_truncates_are_named():
    challenger, opponent = pair(40, 2, 20, 10)
    whole = replace(challenger, window=Window(112, 0, 8000))
    assert judge(whole, replace(opponent, window=Window(112, 30, 900))).reasons[-1] == (
        "for the opponent, 30 of 112 prompts (26.8%) are longer than the 900 tokens that the "
        "model's window leaves next to an answer: their beginning was cut off, so their scores "
        "say little"
    )
    cut, both = (replace(card, window=Window(112, 30, 900)) for card in (challenger, opponent))
    assert judge(cut, both).reasons == judge(cut, opponent).reasons


def test_right_answers_that_no_model_may_write_to_their_end_are_named_next_to_any_outcome():
    challenger, opponent = pair(40, 2, 20, 10)
    cut = judge(replace(challenger, window=Window(112, 0, 900, 28, 96)), opponent)
    assert cut.reasons == (
        *judge(challenger, opponent).reasons,
        "28 of 112 right answers (25.0%) are longer than the 96 tokens of evaluate.max_new_tokens, "
        "at which every model's answer is cut off: their scores say little, and costs are too low",
    )


def test_the_reasons_of_a_pass_cover_target_and_guard():
    judgement = judge(*pair(40, 2, 20, 10))
    result = target(judgement)
    assert (result.wins, result.losses, result.n) == (40, 2, 112)
    assert result.difference == pytest.approx(38 / 112)
    assert result.low > 0
    assert judgement.reasons == (
        "better: correct_name +33.9 points, better on 40 requests, worse on 2, of 112 in 112 "
        "clusters "
        "(exact McNemar, one-sided p = 2.06e-10, at most 0.025)",
        "no worse on abstention: +0.0 points on 40 requests in 40 clusters (95 % interval -9.2 "
        "to +9.2), within "
        "the 10 points that the policy allows",
    )


def test_the_figures_of_a_judgement_are_those_of_scipy_and_statsmodels():
    result, guard = judge(*pair(31, 14, 50, 12)).comparisons
    table = [[50 + 40, 14], [31, 12]]  # the requests that no tool fits, both got right
    mcnemar: Any = contingency_tables.mcnemar(table, exact=True)
    assert result.p_value == pytest.approx(mcnemar.pvalue / 2)
    assert result.p_worse == pytest.approx(1.0)
    assert (result.challenger, result.opponent) == (121 / 147, 104 / 147)
    assert result.difference == pytest.approx(17 / 147)
    wald = result.difference + np.array([-1, 1]) * stats.norm.isf(0.025) * np.sqrt(
        (31 + 14 - 17**2 / 147) / 147**2
    )
    assert (result.low, result.high) == pytest.approx(wald, abs=0.01)
    rare = 1 - 0.025 ** (1 / 40)  # a loss that 40 requests fail to show once in 40 times
    assert rare <= guard.high == -guard.low < rare + 0.006
    assert 0.9**40 <= guard.p_value <= 0.025, "a loss of the margin may show on none of the 40"


def test_an_open_judgement_has_the_number_of_requests_needed():
    judgement = judge(*pair(5, 0, 50, 10))
    assert judgement.reasons == (
        "too close to tell: correct_name +4.8 points, better on 5 requests, worse on 0, of 105 "
        "in 105 clusters "
        "(exact McNemar, one-sided p = 0.0312, above 0.025); about 85 more requests would decide "
        "with a chance of 80 %, if both models' rates hold",
    )
    assert judgement.more_needed == 85


def test_a_small_holdout_is_inconclusive_with_the_reason():
    challenger, opponent = (card([right] * 25, [1.0] * 30) for right in (1.0, 0.0))
    assert judge(challenger, opponent, UNGUARDED).reasons == (
        "too few requests: the holdout has 55, the policy requires 60; 5 more are needed",
    )


def test_a_hopelessly_close_race_promises_no_number():
    judgement = judge(*pair(1001, 1000, 800, 100))
    assert judgement.outcome == "inconclusive"
    assert judgement.more_needed is None
    assert judgement.reasons[-1].endswith("no realistic number of further requests would decide")


def test_below_the_floor_fails_and_names_both_figures():
    assert judge(*pair(30, 0, 0, 100)).reasons == (
        "below the floor: correct_name is 0.412, the policy requires 0.5",
    )


def test_the_same_answers_are_no_reason_to_change():
    assert judge(*pair(0, 0, 60, 10)).reasons == (
        "no better: correct_name +0.0 points, better on 0 requests, worse on 0, of 110 in 110 "
        "clusters "
        "(exact McNemar, one-sided p = 1)",
    )


def test_significantly_worse_is_called_worse():
    (reason,) = judge(*pair(2, 40, 60, 0)).reasons
    assert reason.startswith("worse: correct_name -26.8 points, better on 2 requests")


def test_calling_where_no_tool_fits_fails_though_the_calls_got_better():
    challenger = card([1.0] * 60, [1.0] * 25 + [0.0] * 15)
    (reason,) = judge(challenger, card([0.0] * 60)).reasons
    assert reason.startswith(
        "worse on abstention: -37.5 points on 40 requests in 40 clusters (95 % interval -54.8 to "
        "-18.9), and the "
        "policy allows 10 points (p = "
    )


def test_a_guard_with_too_few_requests_is_open_and_names_the_number_needed():
    judgement = judge(card([1.0] * 60, [1.0] * 20), card([0.0] * 60, [1.0] * 20))
    assert judgement.outcome == "inconclusive"
    (reason,) = judgement.reasons
    assert reason.startswith("not shown to be no worse on abstention: +0.0 points on 20 requests")
    assert judgement.more_needed is not None
    _, guard = judgement.comparisons
    assert guard.needed is not None
    assert judgement.more_needed == 4 * guard.needed, "a quarter of the requests fit no tool"


def test_a_failure_outweighs_open_comparisons_and_all_are_named():
    challenger, opponent = card([1.0] * 3 + [0.0] * 30, []), card([0.0] * 33, [])
    judgement = judge(challenger, opponent, UNGUARDED)
    assert judgement.outcome == "fail"
    assert [reason.split(":")[0] for reason in judgement.reasons] == [
        "below the floor",
        "too few requests",
        "too close to tell",
    ]
    assert judgement.more_needed is None


@pytest.mark.parametrize(
    ("wins", "losses", "outcome"),
    [
        pytest.param(10, 12, "pass", id="as-good"),
        pytest.param(0, 20, "inconclusive", id="within-the-margin-but-not-shown"),
        pytest.param(2, 60, "fail", id="forgotten"),
    ],
)
def test_a_guard_task_stops_a_challenger_that_forgets(wins: int, losses: int, outcome: str):
    rest = [1.0] * (500 - wins - losses)
    ours = guard_card([1.0] * wins + [0.0] * losses + rest)
    theirs = guard_card([0.0] * wins + [1.0] * losses + rest)
    judgement = beside(ours, theirs)
    assert judgement.outcome == outcome
    assert ("acc on arc_easy" in " ".join(judgement.reasons)) is True


@pytest.mark.parametrize(
    ("lost", "outcome", "reason"),
    [
        pytest.param(0, "pass", "better: acc on preferences +", id="holdout-kept"),
        pytest.param(30, "fail", "correct_name", id="holdout-lost"),
    ],
)
def test_the_target_may_be_measured_on_another_task_and_the_holdout_is_guarded(
    lost: int, outcome: str, reason: str
):
    kept = Guard(metric="correct_name", margin=0.1)
    policy = Policy(task="preferences", metric="acc", guards=(kept,))
    ours, theirs = pair(0, lost, 80, 10)
    better, worse = (guard_card([1.0] * 50 + [right] * 30, "preferences") for right in (1.0, 0.0))
    judgement = gate.judge(
        {HOLDOUT: ours, "preferences": better}, {HOLDOUT: theirs, "preferences": worse}, policy
    )
    assert judgement.outcome == outcome
    assert (target(judgement).task, target(judgement).difference) == ("preferences", 30 / 80)
    assert reason in judgement.reasons[0]


def test_a_guard_task_of_three_documents_never_passes():
    tiny = guard_card([1.0] * 3)
    loose = ARC.model_copy(update={"guards": (Guard(task="arc_easy", metric="acc", margin=1),)})
    judgement = beside(tiny, tiny, loose)
    assert judgement.outcome == "inconclusive"
    assert judgement.reasons == (
        "too few requests: arc_easy has 3, the policy requires 60; 57 more are needed",
    )


@pytest.mark.parametrize("margin", [0.05, 0.1, 1])
@pytest.mark.parametrize("lead", [0.0, 0.01, -0.01])
def test_a_guard_on_scores_that_hardly_differ_is_judged(margin: float, lead: float):
    """As a text's F1, or the exposure of canaries."""
    policy = ARC.model_copy(
        update={"guards": (Guard(task="arc_easy", metric="acc", margin=margin),)}
    )
    theirs = [0.2, 0.5, 0.8] * 70
    ours = [score + lead for score in theirs]
    judgement = beside(guard_card(ours), guard_card(theirs), policy)
    guard = judgement.comparisons[1]
    assert guard.outcome == "pass"
    assert guard.detectable is not None
    assert -margin < guard.detectable < lead


def test_a_metric_that_is_better_when_lower_guards_the_other_way_round():
    leaks = {"acc": Metric("secrets that were told", higher_is_better=False)}
    tight, loose = (
        replace(guard_card([leak] * 30 + [0.0] * 170), metrics=leaks) for leak in (0.0, 1.0)
    )
    assert beside(tight, loose).outcome == "pass"
    leaking = beside(loose, tight)
    assert leaking.outcome == "fail"
    assert leaking.comparisons[1].difference == pytest.approx(-0.15)
    assert leaking.comparisons[1].challenger == pytest.approx(0.15)


def test_all_guards_must_hold_and_each_is_tested_at_the_whole_level():
    """Berger 1982: if all must be shown, no correction is needed."""
    guards = tuple(Guard(task=f"task{i}", metric="acc", margin=0.1) for i in range(8))
    policy = Policy(abstention_margin=None, guards=guards)
    challenger, opponent = pair(40, 2, 40, 10)
    cards = {f"task{i}": guard_card([1.0] * 60, f"task{i}") for i in range(8)}
    ours, theirs = {HOLDOUT: challenger, **cards}, {HOLDOUT: opponent, **cards}
    judgement = gate.judge(ours, theirs, policy)
    assert judgement.outcome == "pass"
    (p_value,) = {comparison.p_value for comparison in judgement.comparisons[1:]}
    assert 0.9**60 <= p_value <= judgement.alpha, "one by one they have all of it"
    ours["task3"] = guard_card([1.0] * 20 + [0.0] * 40, "task3")
    assert gate.judge(ours, theirs, policy).outcome == "fail"


def test_scores_between_right_and_wrong_are_compared_by_their_size():
    challenger, opponent = pair(0, 0, 60, 0)
    ours = rescored(challenger, "correct_name", [0.7 + i % 7 / 70 for i in range(100)])
    theirs = rescored(opponent, "correct_name", [0.6 + i % 9 / 90 for i in range(100)])
    judgement = judge(ours, theirs)
    assert judgement.outcome == "pass"
    assert target(judgement).test == "bets on requests"
    assert 0 < target(judgement).low < target(judgement).difference < target(judgement).high


def test_small_gains_or_losses_alone_show_nothing_of_target_guard_or_slice():
    """Of sixty requests none need be the one in a hundred on which a model fails completely."""
    even = card([0.5] * 60, [])
    moved = card([0.49] * 30 + [0.53] * 30, [])
    ours, theirs = (
        sliced(scorecard, "tool", ["lost"] * 30 + ["won"] * 30) for scorecard in (moved, even)
    )
    within, before = guard_card([0.46] * 60), guard_card([0.5] * 60)
    judgement = gate.judge(
        {HOLDOUT: ours, "arc_easy": within}, {HOLDOUT: theirs, "arc_easy": before}, ARC
    )
    assert [comparison.outcome for comparison in judgement.comparisons] == ["inconclusive"] * 2
    assert {part.value: part.is_worse for part in judgement.slices} == {"lost": False, "won": False}


def test_requests_of_one_conversation_count_less_than_as_many_conversations():
    ours, theirs = pair(10, 0, 80, 10)
    assert judge(ours, theirs).outcome == "pass"
    together = judge(in_clusters(ours, 10), in_clusters(theirs, 10))
    assert together.outcome == "inconclusive"
    assert target(together).p_value > 0.5, "one conversation got better, and it could have by luck"
    assert (
        target(together).test == "bets on clusters of up to 10 requests, each counting as at most 1"
    )
    assert target(together).clusters == 14
    assert target(together).low < 0 < target(judge(ours, theirs)).low


def test_a_later_look_is_stricter():
    ours, theirs = pair(8, 0, 80, 10)
    assert judge(ours, theirs, look=1).outcome == "pass"
    judgement = judge(ours, theirs, look=5)
    assert judgement.outcome == "inconclusive"
    assert judgement.alpha == pytest.approx(0.05 / 30)
    assert "above 0.00167, the share of look 5 at this holdout" in judgement.reasons[0]


def test_planned_looks_have_equal_shares_and_then_nothing_passes():
    planned = UNGUARDED.model_copy(update={"looks": 2})
    assert judge(*pair(6, 0, 80, 10), planned, look=2).alpha == 0.025
    assert judge(*pair(40, 0, 80, 10), planned, look=3).reasons == (
        "no look is left: this is the 3rd challenger judged on this holdout and the policy plans "
        "for 2; let the holdout double, or plan for more from the start",
    )


def test_a_slice_that_got_worse_is_shown_and_vetoes_where_the_policy_says_so():
    ours, theirs = pair(60, 12, 40, 0)
    languages = ["en"] * 60 + ["de"] * 12 + ["en"] * 80
    ours, theirs = sliced(ours, "language", languages), sliced(theirs, "language", languages)
    shown = judge(ours, theirs)
    assert shown.outcome == "pass"
    assert shown.reasons[-1] == (
        "look at a slice that got worse: language de: better on 0 requests, worse on 12, of 12 "
        "in 12 clusters "
        "(p = 0.000488, corrected for all slices)"
    )
    assert [(part.value, part.is_worse) for part in shown.slices] == [
        ("de", True),
        ("en", False),
    ]


def test_a_judgement_has_the_detectable_lead():
    few, many = (target(judge(*pair(3 * k, k, 50 * k, 10 * k))) for k in (1, 9))
    assert few.detectable is not None
    assert many.detectable is not None
    assert 0 < many.detectable < few.detectable < 0.25


def test_equal_inputs_give_equal_judgements():
    ours = rescored(pair(0, 0, 60, 0)[0], "correct_name", [i % 7 / 7 for i in range(100)])
    theirs = rescored(pair(0, 0, 60, 0)[0], "correct_name", [i % 5 / 5 for i in range(100)])
    assert judge(ours, theirs) == judge(ours, theirs)
    backwards, others = (
        replace(scorecard, samples=scorecard.samples[::-1]) for scorecard in (ours, theirs)
    )
    assert judge(backwards, others) == judge(ours, theirs)


@pytest.mark.parametrize(("own", "lost"), [(15, 5), (36, 20), (80, 20)])
def test_a_lead_that_one_client_makes_with_its_own_requests_does_not_pass(own: int, lost: int):
    """The others have 100 requests, on none of which the challenger is better."""
    ours = card([1.0] * own + [0.0] * lost + [1.0] * (100 - lost), [])
    theirs = card([0.0] * own + [1.0] * 100, [])
    clients = ["attacker"] * own + ["app"] * 60 + ["web"] * 40
    judged = [judge(ours, theirs, UNGUARDED), judge(*_of(clients, ours, theirs), UNGUARDED)]
    assert [judgement.outcome for judgement in judged] == ["pass", "inconclusive"]
    assert f"without the {own} requests of client attacker" in judged[1].reasons[0]


def test_a_lead_with_all_clients_passes_however_small_the_others_are():
    ours, theirs = pair(30, 8, 150, 12)
    clients = ["app" if number % 10 else "web" for number in range(200)]
    assert judge(*_of(clients, ours, theirs), UNGUARDED).outcome == "pass"


def _of(clients: list[str], ours: Scorecard, theirs: Scorecard) -> tuple[Scorecard, Scorecard]:
    names = [*clients, *["app"] * 40][: len(ours.samples)]
    return sliced(ours, "client", names), sliced(theirs, "client", names)
