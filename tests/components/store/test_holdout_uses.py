"""A holdout is recognised by its rows; after any edit its looks never spend more than alpha."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from components.gate import significance
from components.store import ledger
from components.store.ledger import Holdout, HoldoutLog, HoldoutRows, HoldoutUse, SealedPolicy

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def rows(first: int, last: int) -> HoldoutRows:
    return ledger.holdout_rows(f"request {number}" for number in range(first, last))


def holdout(first: int, last: int, workload: str = "support") -> Holdout:
    return Holdout(workload, f"v{last}", rows(first, last))


def seal(held: Holdout, alpha: float = 0.05, decision: int = 1) -> SealedPolicy:
    return SealedPolicy(
        decision,
        held.workload,
        held.version,
        held.rows.count,
        held.rows.sketch,
        "p1",
        "{}",
        alpha,
        NOW,
    )


def look(held: Holdout, challenger: str = "c1", **more: object) -> HoldoutUse:
    found = HoldoutUse(
        workload_id=held.workload,
        challenger_scorecard=challenger,
        opponent_scorecard="o1",
        task="holdout",
        metric="correct",
        policy_digest="p1",
        policy="{}",
        adapter="a1",
        holdout_version=held.version,
        requests=held.rows.count,
        held=held.rows.count,
        sketch=held.rows.sketch,
        looked_at=NOW,
        alpha=0.01,
        seal=1,
        decision=2,
    )
    return replace(found, **more)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("now", "counts"),
    [
        pytest.param(holdout(0, 100), True, id="the-same"),
        pytest.param(holdout(0, 199), True, id="it-grew"),
        pytest.param(holdout(0, 200), False, id="it-doubled"),
        pytest.param(holdout(0, 100, "renamed"), True, id="under-another-name"),
        pytest.param(holdout(0, 30, "part"), True, id="a-part-of-it-under-another-name"),
        pytest.param(holdout(40, 150, "other"), True, id="mostly-its-rows-under-another-name"),
        pytest.param(holdout(50, 150, "other"), False, id="half-of-it-under-another-name"),
        pytest.param(holdout(500, 600, "other"), False, id="another-one"),
    ],
)
def test_a_seal_and_a_look_count_while_most_rows_are_the_same_whatever_the_name(
    now: Holdout, counts: bool
) -> None:
    old = holdout(0, 100)
    book = HoldoutLog([seal(old)], [look(old)])
    assert (book.sealed(now) is not None) is counts
    found = book.counting(None, now)
    assert bool(found) is counts


@pytest.mark.parametrize(
    ("now", "informs"),
    [
        pytest.param(holdout(0, 200), True, id="it-doubled"),
        pytest.param(holdout(0, 3_200), False, id="hardly-any-is-old"),
        pytest.param(holdout(50, 150, "other"), True, id="half-of-it-under-another-name"),
        pytest.param(holdout(98, 198, "other"), False, id="two-rows-in-common"),
    ],
)
def test_a_look_may_have_chosen_a_challenger_while_it_saw_notable_a_share(
    now: Holdout, informs: bool
) -> None:
    old = look(holdout(0, 100))
    assert HoldoutLog([], [old]).informing(now) == [old] * informs


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [
        pytest.param((3,) * 100, True, id="the-cap-was-lifted"),
        pytest.param((3,) * 199, True, id="and-it-grew"),
        pytest.param((3,) * 200, False, id="and-it-doubled"),
    ],
)
@pytest.mark.parametrize("name", ["support", "renamed"])
def test_more_requests_of_the_same_clusters_are_no_new_holdout(
    name: str, sizes: tuple[int, ...], counts: bool
) -> None:
    """A cap that was set and lifted would restore spent alpha."""
    old, cap = holdout(0, 100), '{"holdout_per_cluster":1}'
    now = Holdout(name, "v2", replace(rows(0, sum(sizes)), clusters=sizes))
    book = HoldoutLog([replace(seal(old), policy=cap)], [replace(look(old), policy=cap)])
    assert (book.sealed(now) is not None) is counts
    assert bool(book.counting(None, now)) is counts


def test_equal_requests_are_counted_as_often_as_they_are_held_out() -> None:
    yes = ledger.holdout_rows(["yes"] * 60 + ["no"] * 40)
    assert ledger.shared_rows(yes, yes) == 1
    assert ledger.shared_rows(ledger.holdout_rows(["yes"] * 30), yes) == 0.3


def test_a_large_holdout_is_known_by_a_sample_of_its_rows() -> None:
    large, half = rows(0, 60_000), rows(30_000, 90_000)
    assert (large.count, len(large.sketch)) == (60_000, ledger.MAX_SKETCH)
    assert ledger.shared_rows(large, large) == 1
    assert ledger.shared_rows(large, half) == pytest.approx(0.5, abs=0.02)
    assert ledger.shared_rows(large, rows(0, 500)) == 1, "a part of it"
    assert ledger.shared_rows(large, rows(60_000, 61_000)) == 0


def test_looks_under_the_seal_that_holds_count_whatever_was_measured() -> None:
    held = holdout(0, 100)
    few = replace(look(held), held=4, requests=4, sketch=())
    assert HoldoutLog([seal(held)], [few]).counting(seal(held), held) == [few]


def test_the_seal_with_the_least_alpha_applies() -> None:
    held = holdout(0, 100)
    book = HoldoutLog([seal(held, 0.05, 1), seal(holdout(0, 90, "b"), 0.01, 2)])
    assert book.sealed(held) == book.seals[1]


def spent(edits: Sequence[tuple[float, int | None]], sealed: float) -> float:
    """Take a look after each edit of alpha and of the planned looks, and sum what is given."""
    given: list[float] = []
    for number, (alpha, planned) in enumerate(edits, start=1):
        left = significance.alpha_left(min(alpha, sealed), given)
        given.append(significance.alpha_share(left, number, planned))
    return sum(given)


@pytest.mark.parametrize(
    "edits",
    [
        pytest.param([(0.05, number) for number in range(1, 11)], id="looks-k-at-look-k"),
        pytest.param([(0.05, None)] * 5 + [(0.05, 6)] * 5, id="planned-late"),
        pytest.param([(0.05, None), (0.4, None), (0.4, 3), (0.4, 4)], id="alpha-raised"),
        pytest.param([(0.01, None), (0.05, 2), (0.001, 9), (0.05, 4)], id="up-and-down"),
    ],
)
def test_whatever_is_edited_the_looks_are_given_no_more_than_the_sealed_alpha(
    edits: list[tuple[float, int | None]],
) -> None:
    assert spent(edits, 0.05) <= 0.05 + 1e-12


def test_looks_under_one_policy_have_what_the_rule_plans() -> None:
    for planned in (None, 4):
        given: list[float] = []
        for number in range(1, 6):
            left = significance.alpha_left(0.05, given)
            given.append(significance.alpha_share(left, number, planned))
        expected = [significance.allowance(0.05, number, planned) for number in range(1, 6)]
        assert given == pytest.approx(expected)
