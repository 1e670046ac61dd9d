"""The target of a rollback, from journal and chain alone."""

from datetime import UTC, datetime

import pytest

from components.register import champion_change
from components.register.champion_change import RollbackError, Succession
from components.register.journal import ChampionChange, ChangeStep, JournalEntry
from components.register.registry import Version

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def journal(*moves: str, step: ChangeStep = "done") -> list[JournalEntry]:
    """Write changes: `+3` promotes version 3, `-2` rolls back to version 2."""
    entries, champion = list[JournalEntry](), None
    for number, move in enumerate(moves, start=1):
        version = move[1:]
        kind = "promotion" if move.startswith("+") else "rollback"
        change = ChampionChange(
            "w", kind, f"e{version}", f"a{version}", version, champion, None, "ann", ""
        )
        entries.append(JournalEntry(number, change, step, "", NOW))
        champion = version
    return entries


def known(*moves: str, approved: str = "12345") -> Succession:
    return champion_change.succession(journal(*moves), {f"e{number}" for number in approved})


def versions(count: int = 5, tainted: str = "") -> list[Version]:
    return [
        Version("w", n, f"a{n}", f"e{n}", "run", tainted="c1" if n in tainted else "")
        for n in map(str, range(1, count + 1))
    ]


@pytest.mark.parametrize(
    ("moves", "champion", "previous"),
    [
        pytest.param(["+1"], "1", None, id="the-first-has-none"),
        pytest.param(["+1", "+2", "+3"], "3", "2", id="the-champion-before"),
        pytest.param(["+1", "+2", "+3", "-2"], "2", "1", id="further-back"),
        pytest.param(["+1", "+2", "-1"], "1", None, id="never-forward"),
        pytest.param(["+1", "+2", "-1", "-2"], "2", None, id="taken-back"),
        pytest.param(["+1", "+2", "-1", "+3"], "3", "1", id="promoted-after-a-rollback"),
        pytest.param(["+1", "+2", "+3", "-1", "-3"], "3", "2", id="past-what-was-rolled-back"),
        pytest.param(["+1", "+2", "+3"], "2", "1", id="after-an-erasure-took-the-alias"),
        pytest.param(["+1", "+2", "+1"], "1", "2", id="no-circle"),
        pytest.param(["+1"], "9", None, id="an-unknown-champion"),
        pytest.param(["+1"], None, None, id="no-champion"),
    ],
)
def test_previous_follows_from_the_promotions_before_the_champion(
    moves: list[str], champion: str | None, previous: str | None
) -> None:
    assert champion_change.previous(champion, known(*moves), versions()) == previous


def test_previous_skips_versions_that_may_not_serve() -> None:
    chain = known("+1", "+2", "+3")
    assert champion_change.previous("3", chain, versions(tainted="2")) == "1"
    assert champion_change.previous("3", known("+1", "+2", "+3", approved="13"), versions()) == "1"


def test_an_undone_change_has_no_champion() -> None:
    undone = [*journal("+1"), *journal("+2", step="undone")]
    assert champion_change.succession(undone, {"e1", "e2"}) == Succession(
        frozenset({("1", "e1")}), {"1": None}, frozenset()
    )


def test_a_rollback_needs_the_version_with_its_evidence_among_the_approved() -> None:
    chain = known("+1", "+2", approved="2")
    with pytest.raises(RollbackError, match="to version 1: nobody has approved it"):
        champion_change.plan_rollback("w", versions(), "2", chain, "1", by="bob", reason="")
    forged = [Version("w", "1", "a1", "e2", "run"), *versions()[1:]]
    with pytest.raises(RollbackError, match="to version 1: nobody has approved it"):
        champion_change.plan_rollback("w", forged, "2", known("+1", "+2"), "1", by="bob", reason="")
