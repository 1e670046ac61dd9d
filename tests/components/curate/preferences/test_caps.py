"""Which signals are held back."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.curate.preferences import caps
from components.curate.preferences.feedback_signals import Opinion, Signal, SignalReading
from tests.support import vote_signals
from tests.support.cases import cases
from tests.support.vote_signals import choose, correct, rate, signal

ANSWERS = [vote_signals.answer(f"{n}") for n in range(40)]
HOUR = 60.0


def thumbs(actor: str, count: int, value: str = "up", begin: float = 0, step: float = HOUR):
    return [
        signal("thumb", value, about=[f"{n % 40}"], actor=actor, minutes=begin + step * n)
        for n in range(count)
    ]


def crowd(
    count: int, value: str, begin: float, each: int = 1, about: str | None = None
) -> list[Signal]:
    """Return votes of new actors within five minutes."""
    return [
        signal(
            "thumb",
            value,
            about=[about or f"{(7 * n + turn) % 40}"],
            actor=f"new {value} {n}",
            minutes=begin + 5 * n / count + turn / 100,
        )
        for n in range(count)
        for turn in range(each)
    ]


def usual(people: int = 30, each: int = 4, up: float = 0.7) -> list[Signal]:
    """Return a few thumbs of several people over some days."""
    draw = Random(3)
    return [
        signal(
            "thumb",
            "up" if draw.random() < up else "down",
            about=[f"{draw.randrange(40)}"],
            actor=f"person {person}",
            minutes=draw.randrange(6000) + turn / 100,
        )
        for person in range(people)
        for turn in range(each)
    ]


def held(signals: list[Signal], **config: object) -> dict[str, list[str]]:
    """Return the reasons why each actor's signals are held back."""
    weighed = vote_signals.weigh_feedback(signals, ANSWERS, **config)
    actor = {reading.signal.feedback_id: reading.signal.actor_id for reading in weighed.readings}
    reasons: dict[str, list[str]] = {}
    for feedback_id, reason in weighed.defence.held_back.items():
        reasons.setdefault(actor[feedback_id], []).append(reason)
    return reasons


@pytest.mark.parametrize(
    ("counts", "kept"),
    [
        pytest.param([100], [100], id="one-actor-has-no-cap"),
        pytest.param([100, 3], [100, 3], id="nor-have-two"),
        pytest.param([100, 10, 5], [30, 10, 5], id="of-three-two-thirds"),
        pytest.param([100, *[5] * 9], [11, *[5] * 9], id="of-ten-a-fifth"),
        pytest.param([100, *[5] * 29], [16, *[5] * 29], id="of-thirty-a-tenth"),
        pytest.param([5] * 30, [5] * 30, id="equals"),
    ],
)
def test_an_actor_keeps_at_most_the_cap(counts: list[int], kept: list[int]):
    signals = [
        vote
        for n, count in enumerate(counts)
        for vote in thumbs(f"actor {n}", count, begin=100 * n)
    ]
    many = [vote_signals.answer(f"{n}") for n in range(100)]
    shares = {
        share.actor_id: share for share in vote_signals.weigh_feedback(signals, many).defence.shares
    }
    assert [shares[f"actor {n}"].kept for n in range(len(counts))] == kept


def test_a_single_thumb_always_counts():
    signals = [signal("regenerate", True, actor=f"{n}", about=[f"{n}"]) for n in range(30)]
    assert held([*signals, signal("thumb", "down", about=["31"], actor="ann")]) == {}


def test_trusted_actors_have_no_cap_and_no_burst():
    signals = usual() + thumbs("labeller", 400, step=0.01)
    assert set(held(signals)["labeller"]) == {"flood", "over_cap"}
    assert held(signals, trusted=("labeller",)) == {}


def test_the_most_informative_signals_are_kept_first():
    signals = [correct("right", about=["0"], actor="busy"), *thumbs("busy", 40)[1:], *usual()]
    weighed = vote_signals.weigh_feedback(signals, ANSWERS)
    assert signals[0].feedback_id in weighed.targets
    assert "over_cap" in weighed.defence.held_back.values()


def test_anonymous_feedback_is_one_actor():
    nameless = ["", "anonymous", "None", " unknown ", "API"]
    signals = [vote for name in nameless for vote in thumbs(name, 10)] + usual(people=40, each=2)
    weighed = vote_signals.weigh_feedback(signals, ANSWERS)
    (share,) = [share for share in weighed.defence.shares if not share.actor_id]
    assert share.signals == 50
    assert share.share_before == pytest.approx(50 / 130)
    assert share.share_after <= share.cap == 0.1


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        pytest.param(thumbs("mallory", 200, "down", step=0.01), "flood", id="flood"),
        pytest.param(crowd(50, "down", 2000), "brigade", id="brigade-of-one-mind"),
        pytest.param(crowd(12, "up", 2000, about="7"), "brigade", id="brigade-at-one-answer"),
        pytest.param(crowd(20, "down", 2000, each=3), "brigade", id="brigade-that-comes-back"),
        pytest.param(
            [choose("1", "2", actor=f"new {n}", minutes=2000 + n / 9) for n in range(20)],
            "brigade",
            id="brigade-for-one-of-two",
        ),
        pytest.param(
            [correct("buy ours", about=["3"], actor=f"new {n}", minutes=2000) for n in range(20)],
            "brigade",
            id="brigade-that-corrects",
        ),
    ],
)
def test_bursts_are_held_back(attack: list[Signal], reason: str):
    reasons = held([*usual(), *attack])
    assert {vote.actor_id for vote in attack} == {who for who in reasons if "person" not in who}
    assert all(reason in why for who, why in reasons.items() if "person" not in who)


@pytest.mark.parametrize(
    "busy",
    [
        pytest.param(thumbs("labeller", 20, step=0.5), id="labeller-at-work"),
        pytest.param(crowd(8, "down", 2000), id="a-few-new-people"),
        pytest.param(crowd(30, "up", 2000) + crowd(13, "down", 2000), id="launch-of-all-minds"),
        pytest.param(crowd(40, "up", 2000)[::4], id="new-people-who-like-it"),
    ],
)
def test_a_busy_day_is_not_a_burst(busy: list[Signal]):
    assert not vote_signals.weigh_feedback([*usual(), *busy], ANSWERS).defence.bursts


def test_without_history_nothing_is_called_a_burst():
    assert held(crowd(50, "down", 0)) == {}


def test_a_held_back_thumb_drops_nothing():
    signals = [*usual(up=1), *crowd(50, "down", 2000)]
    assert not [
        score for score in vote_signals.weigh_feedback(signals, ANSWERS).regards if score.dislike
    ]


SIGNALS = st.builds(
    lambda who, kind, about, minutes: {  # pyright: ignore
        "up": lambda: signal("thumb", "up", about=[about], actor=who, minutes=minutes),
        "down": lambda: signal("thumb", "down", about=[about], actor=who, minutes=minutes),
        "rate": lambda: rate(minutes % 5 + 1, about=[about], actor=who, minutes=minutes),
        "choose": lambda: choose(about, "0", actor=who, minutes=minutes),
        "tie": lambda: choose(about, "1", tie=True, actor=who, minutes=minutes),
        "again": lambda: signal(
            "regenerate", True, about=[about], actor=who, minutes=minutes, named=(None, None, "2")
        ),
        "correct": lambda: correct(f"{minutes % 3}", about=[about], actor=who, minutes=minutes),
        "solve": lambda: signal(
            "outcome",
            {"name": "solved", "value": minutes % 2 == 0},
            about=[about, "5"],
            actor=who,
            minutes=minutes,
        ),
    }[kind](),
    st.sampled_from([*"abcdefghijklmnopqrstuvwxyz", ""]),
    st.sampled_from(["up", "down", "rate", "choose", "tie", "again", "correct", "solve"]),
    st.sampled_from([f"{n}" for n in range(8)]),
    st.integers(0, 500),
)


def distinct(signals: list[Signal]) -> list[Signal]:
    return list({signal.feedback_id: signal for signal in signals}.values())


@given(
    st.lists(SIGNALS, max_size=120).map(distinct), st.randoms(), st.sampled_from([0.05, 0.1, 0.3])
)
@cases(60)
def test_feedback_order_does_not_matter(signals: list[Signal], order: Random, cap: float):
    weighed = vote_signals.weigh_feedback(signals, ANSWERS, actor_cap=cap)
    for share in weighed.defence.shares:
        assert share.share_after <= share.cap + 1e-6
    used = {
        feedback_id for row in [*weighed.pairs, *weighed.labels] for feedback_id in row.feedback_ids
    }
    used |= weighed.targets.keys()
    assert used | weighed.reasons.keys() == {each_signal.feedback_id for each_signal in signals}
    assert not used & weighed.defence.held_back.keys()
    mixed = list(signals)
    order.shuffle(mixed)
    again = vote_signals.weigh_feedback(mixed, ANSWERS, actor_cap=cap)
    for name in ("pairs", "labels", "regards", "conflicts", "defence", "targets", "reasons"):
        assert getattr(again, name) == getattr(weighed, name)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(0.01, 1)), max_size=200),
    st.floats(0.02, 1),
)
@cases(100)
def test_no_actors_weight_exceeds_the_cap(weights: list[tuple[int, float]], actor_cap: float):
    readings = [
        SignalReading(
            signal(actor=f"{who}", feedback_id=f"{n}"),
            opinions=(Opinion(("prompt", "answer"), 1.0, weight),),
        )
        for n, (who, weight) in enumerate(weights)
    ]
    cap = caps.cap_share(actor_cap, len({reading.signal.actor for reading in readings}))
    over = caps.over_cap(readings, cap, trusted=[])
    kept: dict[str, float] = {}
    for reading in readings:
        if reading.signal.feedback_id not in over:
            actor = reading.signal.actor_id
            kept[actor] = kept.get(actor, 0) + reading.weight
    most = max(1.0, cap * sum(kept.values()))
    assert all(weight <= most + 1e-6 for weight in kept.values())
