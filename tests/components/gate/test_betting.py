"""Bets: what they can't win, what they win at once, and agreement of p-values and intervals."""

import math
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pytest

from components.gate import comparison, judge, paired_scores, significance
from components.gate.comparability import Anchor
from components.gate.comparison import EarlierUse
from components.gate.judgement import Judgement
from components.gate.paired_scores import PairedScores
from components.gate.policy import Guard, Policy
from components.schema import Json
from components.scorecard import CLUSTER_CAP, HOLDOUT, LARGEST_CLUSTER, Scorecard, aggregate
from tests.support import holdout_draws as draws
from tests.support.cards import card, guard_card, in_clusters, pair, rescored, sliced, under
from tests.support.holdout_draws import independent

POLICY = Policy(abstention_margin=None)

Cards: TypeAlias = tuple[Scorecard, Scorecard]


def judged(ours: Scorecard, theirs: Scorecard) -> str:
    return judge.judge({HOLDOUT: ours}, {HOLDOUT: theirs}, POLICY).outcome


@pytest.mark.parametrize("margin", [0.02, 0.05, 0.1])
def test_equal_scores_show_a_margin_as_early_as_any_valid_test(margin: float):
    """A total loss on a share of ``margin`` is missed by ``n`` requests with (1 - margin) ** n."""
    least = math.log(0.025) / math.log(1 - margin)
    sizes = range(int(least), int(1.2 * least) + 2)
    enough = [
        n for n in sizes if paired_scores.wealth_reached(np.zeros(n), np.ones(n), 1, -margin, 0.025)
    ]
    assert least <= enough[0] <= 1.1 * least + 1


@pytest.mark.parametrize(
    ("clusters", "size", "margin", "last"),
    [
        pytest.param(64, 1, 0.1, 5, id="canaries"),
        pytest.param(32, 2, 0.1, 0, id="refusals-within-a-tenth"),
        pytest.param(32, 2, 0.2, 7, id="refusals"),
    ],
)
def test_a_guard_on_a_task_that_never_grows_can_be_shown_at_so_many_looks(
    clusters: int, size: int, margin: float, last: int
):
    leads, sizes = np.zeros(clusters), np.full(clusters, float(size))
    looks = [
        look
        for look in range(1, 20)
        if paired_scores.wealth_reached(
            leads, sizes, size, -margin, significance.allowance(0.05, look)
        )
    ]
    assert looks == [*range(1, last + 1)]


def test_a_guard_passes_with_the_first_document_that_shows_it_and_not_one_before():
    sizes = range(60, 100)
    least = next(
        n for n in sizes if paired_scores.wealth_reached(np.zeros(n), np.ones(n), 1, -0.05, 0.025)
    )
    guard = Guard(task="arc_easy", metric="acc", margin=0.05)
    policy = Policy(abstention_margin=None, guards=(guard,))
    target = dict(zip(("ours", "theirs"), pair(20, 2, 60, 0), strict=True))

    def outcome(n: int) -> str:
        ours, theirs = (
            {HOLDOUT: scorecard, "arc_easy": guard_card([1.0] * n)} for scorecard in target.values()
        )
        return judge.judge(ours, theirs, policy).outcome

    assert (outcome(least - 1), outcome(least)) == ("inconclusive", "pass")


def test_a_lead_that_rare_losses_could_undo_is_not_shown_however_even_it_is():
    """98 of 100 requests may have gained a point where one in a hundred loses everything."""
    gains = independent(np.full(98, 0.51), np.full(98, 0.5))
    assert paired_scores.evidence_above(gains, 0.0, 0.025) > 0.025
    many = independent(np.full(600, 0.51), np.full(600, 0.5))
    assert paired_scores.evidence_above(many, 0.0, 0.025) <= 0.025


@pytest.mark.parametrize("kind", [draws.scores, draws.scored_conversations, draws.losing(10)])
@pytest.mark.parametrize("level", [0.05, 0.025, 0.001])
def test_p_values_and_intervals_are_those_of_one_test(kind: draws.Draw, level: float):
    whole = kind(120, 12, 0.06, np.random.default_rng(1))
    drawn = whole.weighted
    shown = paired_scores.wealth_reached(drawn.sums, drawn.sizes, drawn.largest, 0.0, level)
    for holdout in range(12):
        paired = draws.pairs(whole, holdout)
        p_value, (low, high) = (
            paired_scores.evidence_above(paired, 0.0, level),
            paired_scores.betting_interval(paired, level),
        )
        assert (p_value <= level) == shown[holdout] == (low >= 0)
        assert low <= paired.difference <= high
        assert (
            paired_scores.evidence_below(paired, high, level)
            <= level
            < paired_scores.evidence_below(paired, high - 0.002, level)
        )


def test_models_exchanged_give_the_mirrored_interval():
    paired = draws.pairs(draws.scores(150, 1, 0.03, np.random.default_rng(2)), 0)
    low, high = paired_scores.betting_interval(paired, 0.025)
    back = PairedScores(paired.theirs, paired.ours, paired.clusters)
    assert paired_scores.betting_interval(back, 0.025) == (-high, -low)


@pytest.mark.parametrize(("clusters", "cap"), [(1, 1), (99, 1), (100, 2), (399, 3), (2_500, 10)])
def test_a_cluster_counts_at_most_as_the_root_of_their_number_over_five(clusters: int, cap: int):
    assert paired_scores.weight_cap(clusters) == cap


def test_one_long_conversation_blocks_no_lead_and_decides_none():
    """Of a workload's conversations one has 300 turns, sampled or not."""
    ours, theirs = pair(80, 20, 100, 40)
    cards = (ours, theirs)
    known = [under(scorecard, **{LARGEST_CLUSTER: 300}) for scorecard in cards]
    assert judged(*known) == "pass"
    even = pair(30, 30, 60, 0)
    assert judged(*even) != "pass"
    won = (card([*[1.0] * 300, *right(even[0])], []), card([*[0.0] * 300, *right(even[1])], []))
    assert judged(*(_first_in_one(scorecard, 300) for scorecard in won)) == "inconclusive"


def right(scorecard: Scorecard) -> list[float]:
    """Return which of its requests a model answered correctly."""
    return [sample.scores["correct"] or 0.0 for sample in scorecard.samples if sample.doc_id < 120]


def _first_in_one(scorecard: Scorecard, size: int) -> Scorecard:
    samples = [
        replace(sample, cluster_id="long" if sample.doc_id < size else sample.cluster_id)
        for sample in scorecard.samples
    ]
    return replace(scorecard, samples=tuple(samples))


def test_all_answers_of_a_long_conversation_count_by_their_mean():
    """Its weight is that of the cap, whichever turns were won."""
    half = pair(20, 20, 0, 0)
    ours, theirs = (_first_in_one(scorecard, 30) for scorecard in half)
    pairs = comparison.pair_scores(ours, theirs, "correct_name", None).pairs
    assert (pairs.n, len(pairs.sizes), pairs.largest) == (80, 51, 1)
    assert pairs.difference == pytest.approx(((20 - 10) / 30 - 10) / 51)


def test_the_order_of_bets_is_independent_of_names_and_sizes():
    """With large clusters first, the next one would not be random."""
    ours, theirs = pair(100, 100, 40, 0)
    named = [
        replace(
            scorecard,
            samples=tuple(
                replace(s, cluster_id="a" if s.doc_id < 40 else f"b{s.doc_id:03}")
                for s in scorecard.samples
            ),
        )
        for scorecard in (ours, theirs)
    ]
    places: list[int] = []
    for seed in range(40):
        mine, other = (renamed(scorecard, seed) for scorecard in named)
        places.append(int(comparison.pair_scores(mine, other, "correct", None).pairs.clusters[0]))
    assert min(places) < 40
    assert max(places) > 160


def renamed(scorecard: Scorecard, seed: int) -> Scorecard:
    samples = [
        replace(sample, cluster_id=f"{sample.cluster_id} {seed}") for sample in scorecard.samples
    ]
    return replace(scorecard, samples=tuple(samples))


def test_the_order_of_samples_does_not_change_the_bets():
    ours, theirs = (in_clusters(scorecard, 3) for scorecard in pair(30, 12, 60, 0))
    last, other = (
        replace(scorecard, samples=scorecard.samples[::-1]) for scorecard in (ours, theirs)
    )
    first = comparison.pair_scores(ours, theirs, "correct_name", None).pairs
    second = comparison.pair_scores(last, other, "correct_name", None).pairs
    assert paired_scores.evidence_above(first, 0.0, 0.025) == paired_scores.evidence_above(
        second, 0.0, 0.025
    )


def grown(seed: int, sizes: tuple[int, ...], lead: float) -> list[Cards]:
    """Draw scorecards of one challenger on a growing holdout, with clusters of two as the bound."""
    leads = draws.answers(0.3)(sizes[-1], 1, lead, np.random.default_rng(seed)).sums[:, 0]
    cards = [
        card([float(lead > 0) for lead in leads], []),
        card([float(lead < 0) for lead in leads], []),
    ]
    known = [under(scorecard, **{LARGEST_CLUSTER: 2}) for scorecard in cards]
    return [tuple(_first(scorecard, size) for scorecard in known) for size in sizes]  # pyright: ignore[reportReturnType] - two


def _first(scorecard: Scorecard, size: int) -> Scorecard:
    samples = scorecard.samples[:size]
    return replace(scorecard, samples=samples, scores=aggregate(samples, scorecard.metrics))


def looked(cards: list[Cards], *, carrying: bool = True) -> tuple[int, Judgement | None]:
    """Look at the same challenger as the holdout grows, until it passes."""
    policy = Policy(abstention_margin=None, floor=0)
    before: list[EarlierUse] = []
    for number, (ours, theirs) in enumerate(cards, start=1):
        judgement = judge.judge(
            {HOLDOUT: ours},
            {HOLDOUT: theirs},
            policy,
            number,
            earlier=before if carrying else (),
        )
        if judgement.outcome == "pass":
            return number, judgement
        before.append(EarlierUse(number, judgement.alpha, ours, theirs))
    return 0, None


def test_bets_on_the_same_challenger_continue_at_a_later_look_and_the_reasons_name_it():
    """Looks at one challenger on a grown holdout: an earlier look's capital is bet on."""
    passes = [looked(grown(seed, (100, 130, 160), 0.12)) for seed in range(16)]
    alone = [looked(grown(seed, (100, 130, 160), 0.12), carrying=False) for seed in range(16)]
    assert sum(number > 0 for number, _ in passes) > sum(number > 0 for number, _ in alone)
    reasons = [
        judgement.reasons[0]
        for _, judgement in passes
        if judgement is not None and judgement.target is not None and judgement.target.begun
    ]
    assert reasons
    assert all(
        "bets on clusters of up to 2 requests that began at look" in reason for reason in reasons
    )


@pytest.mark.parametrize(
    ("condition", "values", "continues"),
    [
        pytest.param(CLUSTER_CAP, (2, 2, 2), True, id="one-cap"),
        pytest.param(CLUSTER_CAP, (2, 3, 4), False, id="another-mean", marks=pytest.mark.slow),
        pytest.param("settings", ({"max_new_tokens": 8}, {}, {}), False, id="other-answers"),
        pytest.param("holdout_version", ("v1", "v2", "v3"), True, id="a-grown-holdout"),
    ],
)
def test_bets_continue_only_on_what_is_measured_alike(
    condition: str, values: tuple[Json, ...], *, continues: bool
):
    """Capped or answered otherwise, requests have another mean, which is another hypothesis."""
    looks = [grown(seed, (100, 130, 160), 0.12) for seed in range(6)]
    assert any(begun(series) for series in looks)
    measured = [
        [
            (under(ours, **{condition: value}), under(theirs, **{condition: value}))
            for (ours, theirs), value in zip(series, values, strict=True)
        ]
        for series in looks
    ]
    assert any(begun(series) for series in measured) == continues


def begun(cards: list[tuple[Scorecard, Scorecard]]) -> int:
    """Return the look whose bets, carried on, made a later one pass."""
    _, judgement = looked(cards)
    return 0 if judgement is None or judgement.target is None else judgement.target.begun


def carried_on(seen: Cards, now: Cards, alpha: float = 0.025) -> EarlierUse | None:
    """Continue a first look's bets on what a second one added."""
    figure = comparison.pair_scores(*now, "correct_name", None)
    return comparison.continued_look(figure, [EarlierUse(1, alpha, *seen)])


@pytest.mark.parametrize("seed", [2, 7, 8])
def test_requests_seen_before_are_not_bet_on_again(seed: int):
    (seen,) = grown(seed, (120,), 0.08)
    pairs = comparison.pair_scores(*seen, "correct_name", None).pairs
    assert not paired_scores.carried_evidence([pairs], 0.0, 0.025)
    assert paired_scores.carried_evidence([pairs, pairs], 0.0, 0.025), (
        "the same requests again would show it"
    )
    assert carried_on(seen, seen) is None


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"doc_hash"}, id="its-third-by-length-moved"),
        pytest.param({"doc_hash", "cluster_id"}, id="its-cluster-was-joined"),
        pytest.param({"doc_hash", "prompt_hash", "cluster_id"}, id="redacted-anew"),
        pytest.param({"doc_hash", "example_id", "prompt_hash"}, id="another-turn-in-its-place"),
    ],
)
def test_a_seen_request_is_not_bet_on_again_whatever_changed_of_it(changed: set[str]):
    """A document's hash covers its slices and its reference, which change as a holdout grows."""
    for seed in (2, 7, 8):
        (seen,) = grown(seed, (120,), 0.08)
        ours, theirs = (
            replace(
                scorecard,
                samples=tuple(
                    replace(s, **{name: f"new {getattr(s, name)}" for name in changed})
                    for s in scorecard.samples
                ),
            )
            for scorecard in seen
        )
        assert carried_on(seen, (ours, theirs)) is None


def test_later_turns_of_a_seen_conversation_are_not_bet_on():
    """They are not independent of the earlier bets."""
    first, later = [1.0, 0.0, 0.0] * 40, [1.0] * 120
    ours, theirs = card([*first, *later], []), card([*first[::-1], *[0.0] * 120], [])
    known = [under(scorecard, **{LARGEST_CLUSTER: 2}) for scorecard in (ours, theirs)]
    seen = (_first(known[0], 120), _first(known[1], 120))
    assert carried_on(seen, (known[0], known[1])) is not None, "in conversations of their own"
    turns = [
        replace(
            scorecard,
            samples=tuple(replace(s, cluster_id=f"c{s.doc_id % 120}") for s in scorecard.samples),
        )
        for scorecard in known
    ]
    assert carried_on(seen, (turns[0], turns[1])) is None


@pytest.mark.parametrize("seed", [1, 3, 6])
def test_bets_continue_at_the_level_of_their_first_look(seed: int):
    seen, now = grown(seed, (100, 160), 0.12)
    assert carried_on(seen, now, 0.025) is not None
    assert carried_on(seen, now, 0.001) is None, "what a late look has"


def test_independent_binary_scores_are_not_bet_on_later():
    """McNemar's test has spent that look's level, and bets would spend it again."""
    seen, now = (
        (in_clusters(first, 1), in_clusters(second, 1))
        for first, second in grown(1, (100, 160), 0.12)
    )
    assert carried_on(seen, now) is not None
    alone = [
        tuple(under(scorecard, **{LARGEST_CLUSTER: 1}) for scorecard in cards)
        for cards in (seen, now)
    ]
    assert carried_on(*alone) is None  # pyright: ignore[reportArgumentType] - two


@pytest.mark.parametrize("level", [0.05, 0.025])
def test_continued_bets_equal_bets_in_one_run(level: float):
    drawn = draws.scores(60, 40, 0.08, np.random.default_rng(0))
    shown = paired_scores.wealth_reached(drawn.sums, drawn.sizes, drawn.largest, 0.0, level)
    held = paired_scores.wealth(drawn.sums, drawn.sizes, drawn.largest, 0.0, level)
    assert ((held * level > 0.9) & ~shown).any(), "some are just short of it"
    for holdout in range(40):
        assert (
            paired_scores.carried_evidence([draws.pairs(drawn, holdout)], 0.0, level)
            == shown[holdout]
        )


def test_a_guard_since_the_base_is_not_shown_by_bets_against_the_champion():
    """An earlier look's bets are against its opponent, on the target's task."""
    guards = (
        Guard(metric="valid_json", margin=0.05),
        Guard(task="arc_easy", metric="acc", margin=0.05),
    )
    policy = Policy(abstention_margin=None, floor=0, guards=guards)

    def cards(n: int, lost: int) -> dict[str, Scorecard]:
        scores = [0.0] * lost + [1.0] * (n - lost)
        held = rescored(card([1.0] * n, []), "valid_json", scores)
        return {HOLDOUT: held, "arc_easy": guard_card(scores)}

    seen, now = cards(80, 4), cards(120, 6)
    earlier = [EarlierUse(1, 0.025, seen[HOLDOUT], seen[HOLDOUT])]
    anchor = Anchor("base", cards(120, 0))
    judgement = judge.judge(now, now, policy, 9, anchor=anchor, earlier=earlier)
    begun = {
        (comparison.task, comparison.metric, comparison.anchor): comparison.begun
        for comparison in judgement.comparisons[1:]
    }
    assert begun == {
        (HOLDOUT, "valid_json", ""): 1,
        ("arc_easy", "acc", ""): 0,
        (HOLDOUT, "valid_json", "base"): 0,
        ("arc_easy", "acc", "base"): 0,
    }


def test_a_slice_of_fewer_than_eight_requests_is_not_judged():
    ours, theirs = card([0.0] * 7 + [1.0] * 60, []), card([1.0] * 7 + [0.0] * 60, [])
    for few, judged in ((7, []), (8, ["few"])):
        parts = ["few"] * few + ["rest"] * (67 - few)
        cards = [sliced(scorecard, "tool", parts) for scorecard in (ours, theirs)]
        judgement = judge.judge({HOLDOUT: cards[0]}, {HOLDOUT: cards[1]}, POLICY)
        assert [part.value for part in judgement.slices] == [*judged, "rest"]


def test_a_slice_lost_in_one_conversation_only_is_not_called_worse():
    """Nine lost requests, each on its own or all in one conversation."""
    ours, theirs = card([0.0] * 9 + [1.0] * 60, []), card([1.0] * 9 + [0.0] * 60, [])
    parts = ["lost"] * 9 + ["won"] * 60
    cards = [sliced(scorecard, "tool", parts) for scorecard in (ours, theirs)]
    assert is_worse(*cards)
    assert not is_worse(*(_first_in_one(scorecard, 9) for scorecard in cards))


def is_worse(ours: Scorecard, theirs: Scorecard) -> bool:
    """Return whether the slice ``lost`` is called worse."""
    judgement = judge.judge({HOLDOUT: ours}, {HOLDOUT: theirs}, POLICY)
    return next(part.is_worse for part in judgement.slices if part.value == "lost")
