"""Verdicts: on counts that were made up, and on conversations from their assignment to the end."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from components.extensions.canary import conversation_arms, rollout_verdict
from components.extensions.canary.conversation_arms import RunningConversations
from components.extensions.canary.count_evidence import ArmCounts, RolloutCounts
from components.extensions.canary.rollout_evidence import AnswerLine, DislikeLine, EvidenceLine
from components.extensions.canary.rollout_order import HOUR, KindRule, RolloutPlan, ShareStep
from components.extensions.canary.rollout_tally import RolloutTally
from components.extensions.canary.rollout_verdict import RolloutVerdict
from components.serve.rollout_settings import BadKind

STEPS = (ShareStep(0.01, 2 * HOUR), ShareStep(0.1, 6 * HOUR), ShareStep(0.5, HOUR))
PLAN = RolloutPlan("support", "7", "6", STEPS, 48 * HOUR, decisive=("slow",))


def counts(drawn: ArmCounts, share: float = 0.5, /, **bad: ArmCounts) -> RolloutCounts:
    by_kind = {kind: {share: each} for kind, each in bad.items()}
    return RolloutCounts({share: drawn}, by_kind)  # type: ignore[arg-type]


def kind(verdict: RolloutVerdict, name: BadKind) -> rollout_verdict.KindEvidence:
    return next(each for each in verdict.kinds if each.kind == name)


def test_without_traffic_it_runs_until_the_deadline_and_is_undecided_then():
    empty = RolloutCounts({}, {})
    assert rollout_verdict.decide(PLAN, empty, 0.0).outcome == "running"
    before = rollout_verdict.decide(PLAN, empty, 48 * HOUR - 1)
    assert (before.outcome, before.share) == ("running", 0.5)
    after = rollout_verdict.decide(PLAN, empty, 48 * HOUR)
    assert after.outcome == "undecided"
    assert after.reason == "not shown to be within the margin of 1.5: slow"


def test_a_lack_of_data_never_passes():
    plan = replace(PLAN, decisive=())
    good = counts(ArmCounts(5_000, 5_000), slow=ArmCounts(300, 300))
    verdict = rollout_verdict.decide(plan, good, 48 * HOUR)
    assert verdict.outcome == "undecided"
    assert "no kind was frequent enough" in verdict.reason


def test_what_is_within_the_margin_goes_on():
    verdict = rollout_verdict.decide(
        PLAN, counts(ArmCounts(5_000, 5_000), slow=ArmCounts(250, 250)), 48 * HOUR
    )
    assert verdict.outcome == "hold"
    assert verdict.reason.startswith("less than 1.5 times the champion's risk is shown: slow; ")
    slow = kind(verdict, "slow")
    assert slow.ratio_high is not None
    assert slow.is_within
    assert slow.ratio_low < 1 < slow.ratio_high < 1.5


def test_kinds_that_cannot_be_shown_are_watched_to_the_deadline_and_named():
    slow = ArmCounts(250, 250)
    same = counts(ArmCounts(5_000, 5_000), slow=slow, disliked=ArmCounts(4, 4))
    assert rollout_verdict.decide(PLAN, same, 48 * HOUR - 1).outcome == "running"
    held = rollout_verdict.decide(PLAN, same, 48 * HOUR)
    assert held.outcome == "hold"
    assert "disliked (4 of the canary, 4 of the champion)" in held.reason


def test_what_looks_worse_but_is_not_shown_is_left_to_people():
    bad = counts(ArmCounts(5_000, 5_000), slow=ArmCounts(250, 250), disliked=ArmCounts(9, 3))
    verdict = rollout_verdict.decide(PLAN, bad, 48 * HOUR)
    assert verdict.outcome == "undecided"
    assert verdict.reason == (
        "more than 1.5 times the champion's by count: disliked (9 of the canary, 3 of the champion)"
    )


VOTES = KindRule("disliked", 0.2, window_seconds=2 * HOUR)


@pytest.mark.parametrize(
    ("late", "elapsed", "outcome"),
    [
        pytest.param(ArmCounts(3, 1), 24 * HOUR, "roll back", id="nearly-all-in-time"),
        pytest.param(ArmCounts(0, 3), 24 * HOUR, "running", id="the-champions-come-late"),
        pytest.param(ArmCounts(0, 3), 48 * HOUR, "undecided", id="late-at-the-deadline"),
        pytest.param(ArmCounts(0, 0), 23 * HOUR, "running", id="on-the-first-day"),
    ],
)
def test_an_arm_whose_votes_come_later_only_seems_better(
    late: ArmCounts, elapsed: float, outcome: str
):
    plan = replace(PLAN, kinds=(VOTES,), decisive=("disliked",))
    worse = counts(ArmCounts(900, 900), disliked=ArmCounts(60, 10))
    verdict = rollout_verdict.decide(plan, replace(worse, late={"disliked": late}), elapsed)
    assert verdict.outcome == outcome
    assert kind(verdict, "disliked").worse > kind(verdict, "disliked").worse_bound
    if outcome != "roll back":
        assert "may come, after the time that is waited for: disliked (60 of" in verdict.reason
        alike = counts(ArmCounts(900, 900), disliked=ArmCounts(200, 200))
        later = replace(alike, late={"disliked": ArmCounts(90, 90)})
        assert rollout_verdict.decide(plan, alike, 48 * HOUR).outcome == "hold"
        assert rollout_verdict.decide(plan, later, 48 * HOUR).outcome == "undecided"


def test_where_all_kinds_can_be_shown_nothing_waits_for_the_deadline():
    rule = next(rule for rule in PLAN.kinds if rule.kind == "slow")
    bad = counts(ArmCounts(5_000, 5_000), slow=ArmCounts(250, 250))
    assert rollout_verdict.decide(replace(PLAN, kinds=(rule,)), bad, HOUR).outcome == "hold"


def test_all_decisive_kinds_have_to_be_within():
    plan = replace(PLAN, decisive=("slow", "cut"))
    bad = counts(ArmCounts(5_000, 5_000), slow=ArmCounts(250, 250), cut=ArmCounts(5, 5))
    assert rollout_verdict.decide(plan, bad, HOUR).reason.endswith(": cut")


def test_more_bad_events_than_its_share_roll_back_even_what_is_within_elsewhere():
    bad = counts(ArmCounts(5_000, 5_000), slow=ArmCounts(250, 250), invalid=ArmCounts(40, 8))
    verdict = rollout_verdict.decide(PLAN, bad, 20 * HOUR)
    assert verdict.outcome == "roll back"
    assert verdict.reason.startswith(
        "invalid: 40 bad conversations of the canary and 8 of the champion, where 24.0 of them "
        "would be its share; at least "
    )
    assert kind(verdict, "invalid").is_worse
    assert not kind(verdict, "slow").is_worse


def test_a_kind_has_its_part_of_alpha_only():
    same = ArmCounts(14, 1)
    heavy = rollout_verdict.decide(PLAN, counts(ArmCounts(900, 900), invalid=same), HOUR)
    light = rollout_verdict.decide(PLAN, counts(ArmCounts(900, 900), cut=same), HOUR)
    assert kind(heavy, "invalid").worse == pytest.approx(kind(light, "cut").worse)
    assert (heavy.outcome, light.outcome) == ("roll back", "running")


def test_what_is_harmless_does_not_roll_back():
    bad = counts(ArmCounts(100_000, 100_000), slow=ArmCounts(5_500, 5_000))
    assert rollout_verdict.decide(PLAN, bad, 48 * HOUR).outcome == "hold"
    assert rollout_verdict.decide(PLAN, bad, HOUR).kinds[3].ratio_low < 1.1
    same = counts(ArmCounts(100_000, 100_000), cut=ArmCounts(5_500, 5_000))
    assert rollout_verdict.decide(PLAN, same, HOUR).outcome == "roll back"


@pytest.mark.parametrize("canary", range(30))
def test_the_interval_and_the_evidence_agree(canary: int):
    bad = counts(ArmCounts(900, 900), invalid=ArmCounts(canary, 12), slow=ArmCounts(canary, 15))
    for each in rollout_verdict.decide(PLAN, bad, HOUR).kinds:
        harmless = 1.1 if each.kind == "slow" else 1.0
        assert each.is_worse == (each.ratio_low > harmless)
        assert each.is_within == (each.ratio_high is not None and each.ratio_high < 1.5)


@pytest.mark.parametrize(
    "drawn",
    [
        pytest.param({0.1: ArmCounts(1_000, 7_000)}, id="too-many"),
        pytest.param({0.1: ArmCounts(0, 1_000)}, id="none"),
        pytest.param({0.0: ArmCounts(1, 1_000)}, id="before-the-canary"),
        pytest.param({0.1: ArmCounts(100, 900), 0.5: ArmCounts(2_000, 3_000)}, id="in-one-step"),
    ],
)
def test_a_broken_assignment_is_rolled_back_and_shows_nothing(drawn: dict[float, ArmCounts]):
    verdict = rollout_verdict.decide(
        PLAN, RolloutCounts(drawn, {"slow": {0.5: ArmCounts(250, 250)}}), HOUR
    )
    assert verdict.outcome == "roll back"
    assert verdict.reason.startswith("conversations were not drawn with their shares")


def test_conversations_from_before_the_canary_are_not_counted_as_drawn():
    drawn = {0.0: ArmCounts(0, 700), 0.1: ArmCounts(10, 90)}
    verdict = rollout_verdict.decide(PLAN, RolloutCounts(drawn, {}), HOUR)
    assert (verdict.outcome, verdict.conversations) == ("running", ArmCounts(10, 90))


def test_verdicts_are_written_as_json_even_with_infinite_evidence():
    extreme = RolloutCounts({0.0: ArmCounts(1, 1)}, {"error": {0.1: ArmCounts(9_999, 0)}})
    verdict = rollout_verdict.decide(PLAN, extreme, HOUR)
    content = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert content["uneven"] == rollout_verdict.MAX_EVIDENCE
    assert content["kinds"][1]["worse"] == rollout_verdict.MAX_EVIDENCE
    assert content["plan"]["steps"][0] == {"share": 0.01, "seconds": 2 * HOUR}


def served(
    risk: Callable[[str, float], float], seed: int, *, an_hour: int = 120
) -> list[EvidenceLine]:
    """Serve a canary's conversations of two turns, with votes up to six hours late."""
    random = np.random.default_rng(seed)
    running, secret = RunningConversations(), random.bytes(32)
    lines = list[EvidenceLine]()
    for begin in np.sort(random.uniform(0, 48 * HOUR, 48 * an_hour)):
        who = conversation_arms.identify(secret, "shop", [], str(begin))
        for at in (float(begin), float(begin) + 900.0):
            drawn = running.assign(who, PLAN.share_at(at))
            is_slow = random.random() < risk(drawn.arm, at) / 2
            kinds = frozenset[BadKind](["slow"] if is_slow else [])
            answer = AnswerLine(at, drawn.conversation, drawn.share, drawn.arm, kinds, str(at))
            lines.append(answer)
            if random.random() < risk(drawn.arm, at) / 10:
                lines.append(DislikeLine(at + float(random.uniform(0, 6 * HOUR)), str(at)))
    return sorted(lines, key=lambda line: line.elapsed)


def first_final(lines: list[EvidenceLine]) -> RolloutVerdict:
    """Look each half hour."""
    tally, place = RolloutTally(), 0
    for look in range(1, 97):
        while place < len(lines) and lines[place].elapsed <= look * HOUR / 2:
            tally.add(lines[place])
            place += 1
        verdict = rollout_verdict.decide(PLAN, tally.counts(look * HOUR / 2), look * HOUR / 2)
        if verdict.outcome != "running":
            return verdict
    raise AssertionError("the deadline passed")


def test_a_worse_version_goes_back_and_a_sound_one_goes_on():
    worse = first_final(served(lambda arm, at: 0.15 if arm == "canary" else 0.05, 1))
    assert (worse.outcome, kind(worse, "slow").is_worse) == ("roll back", True)
    sound = first_final(served(lambda arm, at: 0.15 if at % (24 * HOUR) < 8 * HOUR else 0.06, 2))
    assert sound.outcome == "hold"
    assert sound.left_out == 0
