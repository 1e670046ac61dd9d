"""The champion and the target of a rollback, from the chain alone."""

import json
from datetime import UTC, datetime

import pytest

from components.decide.chain import Kind, Link
from components.register.registry import Version
from components.release import release_state, rollback_rules
from components.release.release_state import ChampionChange, ChangeKind, ReleaseState, RollbackError

NOW = datetime(2026, 1, 1, tzinfo=UTC)

KINDS: dict[str, ChangeKind] = {"+": "promoted", "-": "rollback", "/": "erased"}


def link(kind: Kind, evidence: str, body: str = "") -> Link:
    digests, words = ("", "", "", "", ""), ("ann", "", "", "", "", "")
    return Link(1, kind, "w", evidence, "", 1, "", NOW, *digests, *words, body=body)


def links(*moves: str, approved: str = "12345") -> list[Link]:
    """Write changes: `+3` promotes version 3, `-2` rolls back to version 2, `/1` erases to it."""
    made, champion = [link("approve", f"e{number}") for number in approved], None
    for move in moves:
        version = move[1:]
        kind = KINDS[move[0]]
        change = ChampionChange(
            "w", kind, f"e{version}", f"a{version}", version, champion, None, "ann", ""
        )
        made.append(link(kind, change.evidence_digest, json.dumps(change.fields)))
        champion = version
    return made


def known(*moves: str, approved: str = "12345") -> ReleaseState:
    return release_state.state_of(links(*moves, approved=approved))


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
    assert release_state.previous(champion, known(*moves), versions()) == previous


def test_previous_skips_versions_that_may_not_serve() -> None:
    chain = known("+1", "+2", "+3")
    assert release_state.previous("3", chain, versions(tainted="2")) == "1"
    assert release_state.previous("3", known("+1", "+2", "+3", approved="13"), versions()) == "1"


@pytest.mark.parametrize(
    ("moves", "approved", "champion"),
    [
        pytest.param([], "", None, id="nothing"),
        pytest.param(["+1", "+2"], "12", "2", id="the-last-promotion"),
        pytest.param(["+1", "+2"], "1", "1", id="nobody-approved-the-last"),
        pytest.param(["+1", "+2", "-1"], "12", "1", id="rolled-back"),
        pytest.param(["+1", "-2"], "12", "1", id="rolled-back-to-what-never-was-champion"),
        pytest.param(["+1", "+2", "/1"], "12", "1", id="erased"),
        pytest.param(["+1", "/"], "1", None, id="erased-and-nothing-before"),
        pytest.param(["+1", "+2", "/3"], "123", None, id="erased-to-what-never-was-champion"),
    ],
)
def test_the_champion_follows_from_the_changes_that_were_approved(
    moves: list[str], approved: str, champion: str | None
) -> None:
    assert known(*moves, approved=approved).champion == champion


def test_an_approval_counts_for_what_comes_after_it() -> None:
    approval, promotion = links("+1", approved="1")
    assert release_state.state_of([approval, promotion]).champion == "1"
    assert release_state.state_of([promotion, approval]).champion is None


def test_a_rollback_needs_the_version_with_its_evidence_among_the_approved() -> None:
    chain = known("+1", "+2", approved="2")
    with pytest.raises(RollbackError, match="to version 1: nobody has approved it"):
        rollback_rules.plan_rollback("w", versions(), "2", chain, "1", by="bob", reason="")
    forged = [Version("w", "1", "a1", "e2", "run"), *versions()[1:]]
    with pytest.raises(RollbackError, match="to version 1: nobody has approved it"):
        rollback_rules.plan_rollback("w", forged, "2", known("+1", "+2"), "1", by="bob", reason="")
