"""Bets: what they can't win, what they win at once, and that p-values and intervals agree."""

import math
from dataclasses import replace

import numpy as np
import pytest

from components.gate import betting, compare, judge
from components.gate.compare import Earlier
from components.gate.judgement import Judgement
from components.gate.pairs import Pairs, independent
from components.gate.policy import Policy
from components.scorecard import CLUSTER_CAP, HOLDOUT, LARGEST_CLUSTER, Scorecard, aggregate
from tests import holdout_draws as draws
from tests.cards import card, in_clusters, pair, under

POLICY = Policy(abstention_margin=None)


def judged(ours: Scorecard, theirs: Scorecard) -> str:
    return judge.judge({HOLDOUT: ours}, {HOLDOUT: theirs}, POLICY).outcome


@pytest.mark.parametrize("margin", [0.02, 0.05, 0.1])
def test_requests_that_all_score_alike_show_a_margin_as_soon_as_any_valid_test_could(margin: float):
    """A loss of all on a share of ``margin`` shows on none of ``n`` with (1 - margin) ** n."""
    least = math.log(0.025) / math.log(1 - margin)
    sizes = range(int(least), int(1.2 * least) + 2)
    enough = [n for n in sizes if betting.reached(np.zeros(n), np.ones(n), 1, -margin, 0.025)]
    assert least <= enough[0] <= 1.1 * least + 1


def test_a_lead_that_rare_losses_could_undo_is_not_shown_however_even_it_is():
    """98 of 100 requests may have gained a point where one in a hundred loses everything."""
    gains = independent(np.full(98, 0.51), np.full(98, 0.5))
    assert betting.above(gains, 0.0, 0.025) > 0.025
    many = independent(np.full(600, 0.51), np.full(600, 0.5))
    assert betting.above(many, 0.0, 0.025) <= 0.025


@pytest.mark.parametrize("kind", [draws.scores, draws.scored_conversations, draws.losing(10)])
@pytest.mark.parametrize("level", [0.05, 0.025, 0.001])
def test_p_values_and_intervals_are_those_of_one_test(kind: draws.Draw, level: float):
    drawn = kind(120, 12, 0.06, np.random.default_rng(1))
    shown = betting.reached(drawn.sums, drawn.sizes, drawn.largest, 0.0, level)
    for holdout in range(12):
        one = draws.pairs(drawn, holdout)
        p_value, (low, high) = betting.above(one, 0.0, level), betting.interval(one, level)
        assert (p_value <= level) == shown[holdout] == (low >= 0)
        assert low <= one.difference <= high
        assert betting.below(one, high, level) <= level < betting.below(one, high - 0.002, level)


def test_models_exchanged_give_the_mirrored_interval():
    one = draws.pairs(draws.scores(150, 1, 0.03, np.random.default_rng(2)), 0)
    low, high = betting.interval(one, 0.025)
    back = Pairs(one.theirs, one.ours, one.clusters)
    assert betting.interval(back, 0.025) == (-high, -low)


def test_clusters_of_a_size_that_was_not_drawn_are_reckoned_with():
    """In the sample no two requests hang together; in the workload up to twenty do."""
    ours, theirs = pair(20, 2, 60, 0)
    assert judged(ours, theirs) == "pass"
    known = [under(one, **{LARGEST_CLUSTER: 20}) for one in (ours, theirs)]
    assert judged(*known) == "inconclusive"
    few = [under(one, **{LARGEST_CLUSTER: 2}) for one in (ours, theirs)]
    assert judged(*few) == "pass"


def test_a_conversation_lost_on_all_of_its_turns_outweighs_as_many_won():
    """Sign flips see one loss beside many wins, whatever it weighs."""
    won, lost = [1.0] * 12 + [0.0] * 10, [0.0] * 12 + [1.0] * 10
    ours, theirs = card([*won, *[1.0] * 70], []), card([*lost, *[1.0] * 70], [])

    def in_one(scorecard: Scorecard) -> Scorecard:
        samples = [
            replace(one, cluster_id="long" if 12 <= one.doc_id < 22 else one.cluster_id)
            for one in scorecard.samples
        ]
        return replace(scorecard, samples=tuple(samples))

    assert judged(in_one(ours), in_one(theirs)) == "inconclusive"


def test_bets_are_placed_in_an_order_that_names_and_sizes_do_not_decide():
    """Were large clusters drawn first, the next would be no random one."""
    ours, theirs = pair(100, 100, 40, 0)
    named = [
        replace(
            one,
            samples=tuple(
                replace(s, cluster_id="a" if s.doc_id < 40 else f"b{s.doc_id:03}")
                for s in one.samples
            ),
        )
        for one in (ours, theirs)
    ]
    places: list[int] = []
    for seed in range(40):
        mine, other = (renamed(one, seed) for one in named)
        places.append(int(compare.pair(mine, other, "correct", None).pairs.clusters[0]))
    assert min(places) < 40
    assert max(places) > 160


def renamed(scorecard: Scorecard, seed: int) -> Scorecard:
    samples = [replace(one, cluster_id=f"{one.cluster_id} {seed}") for one in scorecard.samples]
    return replace(scorecard, samples=tuple(samples))


def test_samples_in_another_order_are_bet_on_alike():
    ours, theirs = (in_clusters(one, 3) for one in pair(30, 12, 60, 0))
    last, other = (replace(one, samples=one.samples[::-1]) for one in (ours, theirs))
    first = compare.pair(ours, theirs, "correct_name", None).pairs
    second = compare.pair(last, other, "correct_name", None).pairs
    assert betting.above(first, 0.0, 0.025) == betting.above(second, 0.0, 0.025)


def grown(seed: int, sizes: tuple[int, ...], lead: float) -> list[tuple[Scorecard, Scorecard]]:
    """Draw scorecards of one challenger on a holdout that grows; all know of pairs."""
    leads = draws.answers(0.3)(sizes[-1], 1, lead, np.random.default_rng(seed)).sums[:, 0]
    cards = [
        card([float(one > 0) for one in leads], []),
        card([float(one < 0) for one in leads], []),
    ]
    known = [under(one, **{LARGEST_CLUSTER: 2}) for one in cards]
    return [tuple(_first(one, size) for one in known) for size in sizes]  # pyright: ignore[reportReturnType] - two


def _first(scorecard: Scorecard, size: int) -> Scorecard:
    samples = scorecard.samples[:size]
    return replace(scorecard, samples=samples, scores=aggregate(samples, scorecard.metrics))


def looked(
    cards: list[tuple[Scorecard, Scorecard]], *, carrying: bool = True
) -> tuple[int, Judgement | None]:
    """Look at the same challenger as the holdout grows, until it passes."""
    policy = Policy(abstention_margin=None, floor=0)
    before: list[Earlier] = []
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
        before.append(Earlier(number, judgement.alpha, ours, theirs))
    return 0, None


def test_a_challenger_that_is_looked_at_again_is_bet_on_further_and_it_is_said():
    """Looks at one challenger on a grown holdout: what an earlier look had won is staked on."""
    passes = [looked(grown(seed, (100, 130, 160), 0.12)) for seed in range(16)]
    alone = [looked(grown(seed, (100, 130, 160), 0.12), carrying=False) for seed in range(16)]
    assert sum(number > 0 for number, _ in passes) > sum(number > 0 for number, _ in alone)
    reasons = [one.reasons[0] for _, one in passes if one is not None and one.target.begun]  # pyright: ignore[reportOptionalMemberAccess] - it passed
    assert reasons
    assert all(
        "bets on clusters of up to 2 requests that began at look" in reason for reason in reasons
    )


def test_bets_are_not_carried_on_under_another_cap():
    """Capped otherwise, requests have another mean, which is another hypothesis."""
    looks = [grown(seed, (100, 130, 160), 0.12) for seed in range(16)]
    assert any(begun(one) for one in looks)
    assert not any(begun([capped(*two, number) for number, two in enumerate(one)]) for one in looks)
    assert any(begun([capped(*two, 0) for two in one]) for one in looks)


def begun(cards: list[tuple[Scorecard, Scorecard]]) -> int:
    """Return the look whose bets, carried on, made a later one pass."""
    _, judgement = looked(cards)
    return 0 if judgement is None or judgement.target is None else judgement.target.begun


def capped(ours: Scorecard, theirs: Scorecard, more: int) -> tuple[Scorecard, Scorecard]:
    """Cap what a cluster can have at no less than it has."""
    return under(ours, **{CLUSTER_CAP: 2 + more}), under(theirs, **{CLUSTER_CAP: 2 + more})


def test_what_was_seen_before_is_not_bet_on_again():
    ((ours, theirs),) = grown(3, (120,), 0.08)
    again = Earlier(1, 0.025, ours, theirs)
    figure = compare.pair(ours, theirs, "correct_name", None)
    assert compare.carried(figure, [again]) is None
