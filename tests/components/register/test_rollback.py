"""A rollback leads only to a version that may serve, and no turn undoes it."""

import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from components.dataset.snapshot_figures import Snapshot
from components.decide import chain, decision_log
from components.decide.decision_log import LogEvent as Decided
from components.gate.evidence_folder import Evidence, TurnReference
from components.gate.judgement import Judgement
from components.register import registry, taint, version_tags
from components.register.registry import Aliases
from components.release import (
    champion_alias,
    champions,
    installation,
    release_state,
    rollback_rules,
)
from components.release.release_state import ChampionChange, RollbackError
from components.release.releases import NotApprovedError
from components.release.rollback_rules import Order
from components.store import warehouse
from flows import promote, promotion, release_home, turn
from flows import rollback as rolling
from flows.settings import Settings
from tests.support import warehouses
from tests.support.versions import (
    NOW,
    approve,
    ask,
    ask_with_files,
    crowned,
    decide,
    log_files,
    say_yes,
    subject_of,
    workload,
)


def append(change: ChampionChange, home: Settings, now: datetime = NOW) -> None:
    """Decide a change of champion, and be killed."""
    with warehouses.connect(home.tables) as con, warehouse.transaction(con):
        release_state.append_change(con, change, now)


def test_a_version_is_challenger_from_the_question_to_the_answer(
    home: Settings, base_model: Path
) -> None:
    evidence = ask("asked", 1)
    assert registry.read_aliases("asked") == Aliases(challenger="1")
    promote.reject_task.fn(evidence, decide("asked", 1, "reject"))
    assert registry.read_aliases("asked") == Aliases()
    assert registry.version_numbered("asked", "1").decision == "reject"
    approve("asked", 2, base_model)
    assert registry.read_aliases("asked") == Aliases(champion="2")


def test_a_newer_challenger_keeps_its_alias_when_the_older_is_decided_on() -> None:
    older = ask("newer", 1)
    ask("newer", 2)
    champion_alias.clear_challenger("newer", older.digest)
    assert registry.read_aliases("newer").challenger == "2"


def test_a_challenger_trained_on_erased_rows_loses_its_alias() -> None:
    ask("tainted", 1)
    taint.flag_tainted("tainted", {"a1"}, "c1")
    assert registry.read_aliases("tainted").challenger is None


def test_a_rollback_leads_to_the_version_before_and_the_next_one_further(home: Settings) -> None:
    crowned("further", 3, home)
    assert registry.read_aliases("further") == Aliases(champion="3", previous="2")
    first = champions.roll_back(release_home.of(home), Order("further", None, "bob", "rude"))
    assert registry.read_aliases("further") == Aliases(champion="2", previous="1")
    assert champions.describe_rollback(first) == (
        "further: from version 3 back to version 2, adapter a2; version 1 is before it"
    )
    champions.roll_back(release_home.of(home), Order("further", None, "bob", "rude, too"))
    assert registry.read_aliases("further") == Aliases(champion="1", previous=None)
    with pytest.raises(RollbackError, match="no version is `previous`; --to goes back to any of 2"):
        champions.roll_back(release_home.of(home), Order("further", None, "bob", ""))


def test_a_rollback_of_a_workload_without_a_version_says_that_there_is_none(home: Settings) -> None:
    with pytest.raises(RollbackError, match="rolling back mistyped: it has no registered version"):
        champions.roll_back(release_home.of(home), Order("mistyped", None, "bob", ""))


def test_two_people_who_order_it_at_once_go_back_by_one_version(home: Settings) -> None:
    crowned("both", 3, home)
    refused = list[str]()

    def order(name: str) -> None:
        try:
            champions.roll_back(release_home.of(home), Order("both", None, name, "rude"))
        except RollbackError as error:
            refused.append(str(error))

    people = [threading.Thread(target=order, args=(name,)) for name in ("ann", "bob")]
    with installation.lock_champion(home.tables, home.locks, "both"):
        for person in people:
            person.start()
        for person in people:
            person.join(0.5)
    for person in people:
        person.join()
    assert registry.read_aliases("both").champion == "2"
    assert [message.partition(";")[0] for message in refused] == [
        "rolling back both: after this was ordered the champion changed, to version 2"
    ]


@pytest.mark.slow
def test_a_rollback_can_be_taken_back_by_number(home: Settings) -> None:
    crowned("back", 2, home)
    champions.roll_back(release_home.of(home), Order("back", None, "bob", "slow"))
    assert registry.version_numbered("back", "2").rolled_back == "to version 1 by bob: slow"
    champions.roll_back(release_home.of(home), Order("back", "2", "bob", "it was the network"))
    assert registry.read_aliases("back") == Aliases(champion="2", previous=None)
    assert registry.version_numbered("back", "2").rolled_back == ""
    assert release_state.rolled_back(home.tables, "back", "a2") is None


@pytest.mark.slow
def test_versions_name_the_decisions_on_them_so_that_none_is_cut_off_the_chain(
    home: Settings, base_model: Path
) -> None:
    made = workload("named", base_model)
    with warehouses.connect(home.tables) as con:
        for number, word in ((1, "approve"), (2, "approve"), (3, "reject")):
            event = Decided(word, "named", f"e{number}", f"run-{number}", NOW, "ann", "good")  # pyright: ignore
            with warehouse.transaction(con):
                decision_log.append_event(con, event)
    for number in (1, 2, 3):
        evidence = ask_with_files("named", number)
        with warehouses.connect(home.tables) as con:
            decision = decision_log.decision_on(con, f"e{number}")
        assert decision is not None
        if decision.decision == "approve":
            promotion.promote_version(made, evidence, decision, lambda: None)
        else:
            promote.reject_task.fn(evidence, decision)
    champions.roll_back(release_home.of(home), Order("named", None, "bob", "rude"))
    anchors = {
        place: text for place, text in champions.chain_anchors().items() if "of named" in place
    }
    with warehouses.connect(home.tables) as con:
        links = decision_log.links(con)
        assert chain.first_loose(links, anchors) is None
        heads = {chain.from_anchor(text) for text in anchors.values()}
        named = [link.kind for link in links if chain.Head(link.sequence, link.digest) in heads]
        assert sorted(named) == ["promoted", "reject", "rollback"]
        lost = chain.first_loose(links[:-1], anchors)
    assert lost is not None
    assert lost.problem.startswith("is missing: in version 2 of named in MLflow")


def test_a_version_that_may_not_serve_is_refused_and_nothing_moves(home: Settings) -> None:
    crowned("refused", 2, home)
    ask("refused", 3)
    promote.reject_task.fn(ask("refused", 4), decide("refused", 4, "reject"))
    taint.flag_tainted("refused", {"a1"}, "c1")
    before = registry.read_aliases("refused")
    for to, message in (
        ("2", "it is the champion already"),
        ("3", "nobody has approved it"),
        ("4", "nobody has approved it"),
        ("9", "there are 1, 2, 3, 4"),
        ("1", r"erased \(certificate c1\)"),
        (None, r"erased \(certificate c1\)"),
    ):
        with pytest.raises(RollbackError, match=message):
            champions.roll_back(release_home.of(home), Order("refused", to, "bob", ""))
    assert registry.read_aliases("refused") == before


def test_a_rollback_says_by_whom_and_why_in_the_chain(home: Settings) -> None:
    crowned("told", 2, home)
    champions.roll_back(release_home.of(home), Order("told", None, "bob", "wrong tools"))
    with warehouses.connect(home.tables) as con:
        last = release_state.read_state(con, "told").changes[-1]
        link = decision_log.links(con, workload_id="told")[-1]
        assert chain.first_broken(decision_log.links(con), decision_log.read_head(con)) is None
    change = last.change
    assert (change.kind, change.asked_by) == ("rollback", "bob")
    assert (change.champion_before, change.version, change.reason) == ("2", "1", "wrong tools")
    assert (link.kind, link.evidence_digest, link.approver) == ("rollback", "e2", "bob")
    assert link.comment == "to version 1: wrong tools"


@pytest.mark.slow
def test_a_rollback_that_was_killed_is_finished_by_the_same_command_and_goes_no_further(
    home: Settings,
) -> None:
    crowned("again", 3, home)
    with warehouses.connect(home.tables) as con:
        known = release_state.verified_state(con, "again")
    versions = registry.list_versions("again")
    change = rollback_rules.plan_rollback(
        "again", versions, "3", known, None, by="bob", reason="rude"
    )
    append(change, home)
    champions.roll_back(release_home.of(home), Order("again", None, "bob", "rude"))
    assert registry.read_aliases("again") == Aliases(champion="2", previous="1")


@pytest.mark.parametrize("before", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_rollback_after_an_interrupted_promotion_leads_not_to_the_version_that_it_leaves(
    home: Settings, before: int
) -> None:
    name, number = f"leaves-{before}", before + 1
    crowned(name, before, home)
    say_yes(home, name, number)
    ask(name, number)
    keys = (name, str(number), f"e{number}", f"a{number}")
    change = release_state.plan_promotion(*keys, by="ann", reason="good")
    append(change, home)
    order = Order(name, None, "bob", "rude")  # of the version that is champion
    if before == 1:
        with pytest.raises(RollbackError, match="version 2 is champion, and nothing that may"):
            champions.roll_back(release_home.of(home), order)
        assert registry.read_aliases(name).champion == "2"
    else:
        champions.roll_back(release_home.of(home), order)
        assert registry.read_aliases(name).champion == "1"


@pytest.mark.slow
def test_a_rolled_back_version_is_neither_asked_about_nor_promoted_again(
    home: Settings, base_model: Path
) -> None:
    made = workload("once", base_model)
    crowned("once", 2, home)
    champions.roll_back(release_home.of(home), Order("once", None, "bob", "rude"))
    snapshot = Snapshot(Path("s1"), "s1", "v1", 1, 0, 1, {}, {"train": 1, "holdout": 1}, 1)
    with disable_run_logger():
        ended = turn.conclude_turn(made, snapshot, Path("a2"), {}, TurnReference("t1", "w1"))
    assert ended == turn.TurnResult("rolled back")

    log_files("once", 2)
    subject = subject_of("once", "a2", "1")
    evidence = Evidence(Path("e2"), subject, Judgement("pass", ("better",), "correct_name"))
    with pytest.raises(promotion.RolledBackError, match="rolled back by bob \\(rude\\)"):
        promotion.promote_version(made, evidence, decide("once", 2), lambda: None)
    assert registry.read_aliases("once").champion == "1"

    approve("once", 3, base_model)  # new data made another adapter
    assert registry.read_aliases("once") == Aliases(champion="3", previous="1")


@pytest.mark.slow
def test_an_approval_makes_a_champion_once_whoever_moves_the_alias_and_starts_it_again(
    home: Settings, base_model: Path
) -> None:
    """Attack: with both servers' logins the alias is moved to the opponent of old evidence."""
    made = workload("used", base_model)
    for number in (1, 2, 3):
        approve("used", number, base_model)
    subject = subject_of("used", "a2", "1")
    evidence = Evidence(Path("e2"), subject, Judgement("pass", ("better",), "correct_name"))
    with pytest.raises(promotion.RolledBackError, match="an approval makes a champion once"):
        promotion.promote_version(made, evidence, decide("used", 2), lambda: None)
    registry.put_alias("used", version_tags.CHAMPION, "1")
    with pytest.raises(NotApprovedError, match=r"stands on version 1, .* somebody moved it"):
        promotion.promote_version(made, evidence, decide("used", 2), lambda: None)
    assert registry.read_aliases("used").champion == "1"
    champions.roll_back(release_home.of(home), Order("used", "2", "bob", "that one was good"))
    again = promotion.promote_version(made, evidence, decide("used", 2), lambda: None)
    assert (again.version.number, again.became) == ("2", "is champion")


def test_a_promotion_waits_for_whoever_changes_the_champion(
    home: Settings, base_model: Path
) -> None:
    evidence = ask_with_files("waits", 1)
    say_yes(home, "waits", 1)
    made = workload("waits", base_model)
    crown = threading.Thread(
        target=promotion.promote_version, args=(made, evidence, decide("waits", 1), lambda: None)
    )
    with installation.lock_champion(home.tables, home.locks, "waits"):
        crown.start()
        crown.join(0.5)
        assert registry.read_aliases("waits").champion is None
    crown.join()
    assert registry.read_aliases("waits").champion == "1"


@pytest.mark.slow
def test_interrupted_changes_are_recovered_except_those_in_progress(home: Settings) -> None:
    for name in ("dead", "alive"):
        crowned(name, 2, home)
        with warehouses.connect(home.tables) as con:
            known = release_state.verified_state(con, name)
        versions = registry.list_versions(name)
        change = rollback_rules.plan_rollback(name, versions, "2", known, None, by="bob", reason="")
        append(change, home)
    with installation.lock_champion(home.tables, home.locks, "alive"):
        (settled,) = champions.reconcile(release_home.of(home))
    assert re.fullmatch(
        r"dead: decision \d+, by which version 1 is champion, was interrupted, and is finished",
        champions.describe_change(settled),
    )
    assert registry.read_aliases("dead").champion == "1"
    assert registry.read_aliases("alive").champion == "2"


@pytest.mark.parametrize("to", ["", pytest.param("1", marks=pytest.mark.slow)])
def test_a_run_that_waited_or_is_run_again_leaves_no_champion_that_came_after_it(
    home: Settings, to: str
) -> None:
    name = f"queued{to}"
    crowned(name, 3, home)
    clicked = datetime.now(UTC)
    champions.roll_back(release_home.of(home), Order(name, None, "ann", "rude"))
    with disable_run_logger(), pytest.raises(RollbackError, match="changed, to version 2; order"):
        rolling.roll_back_task.fn(name, to, "bob", "rude", ordered_at=clicked)
    assert registry.read_aliases(name).champion == "2"
    with disable_run_logger():
        rolling.roll_back_task.fn(name, to, "bob", "rude, too", ordered_at=datetime.now(UTC))
    assert registry.read_aliases(name).champion == "1"


def test_a_change_that_a_clock_ahead_has_dated_outdates_no_order(home: Settings) -> None:
    crowned("ahead", 2, home)
    now = datetime.now(UTC)
    say_yes(home, "ahead", 3)
    ask("ahead", 3)
    change = release_state.plan_promotion("ahead", "3", "e3", "a3", by="ann", reason="good")
    append(change, home, now + timedelta(hours=1))
    champions.recover(release_home.of(home), "ahead")
    now = datetime.now(UTC)
    with disable_run_logger():
        rolling.roll_back_task.fn("ahead", "", "bob", "rude", ordered_at=now)
    assert registry.read_aliases("ahead").champion == "2"


def test_a_reason_of_any_length_rolls_back_and_is_stored_whole(home: Settings) -> None:
    crowned("long", 2, home)
    reason = "rude " * 30_000  # MLflow refuses a tag of more than 100,000 characters
    champions.roll_back(release_home.of(home), Order("long", None, "bob" * 50_000, reason))
    assert registry.read_aliases("long").champion == "1"
    with warehouses.connect(home.tables) as con:
        last = release_state.read_state(con, "long").changes[-1]
    assert last.change.reason == reason
    tagged = registry.version_numbered("long", "2").rolled_back
    assert tagged.startswith("to version 1 by bobbob")
    assert tagged.endswith("... (cut here; `flywheel audit` has all of it)")


def test_a_version_that_many_erasures_taint_names_the_newest_of_them() -> None:
    ask("often", 1)
    certificates = [f"{number:064}" for number in (1, 2)]
    old = " ".join("0" * 64 for _ in range(1537))
    registry.tag_version("often", "1", {version_tags.TAINTED_TAG: old})
    for certificate in certificates:
        taint.flag_tainted("often", {"a1"}, certificate)
    assert registry.version_numbered("often", "1").tainted.split()[-2:] == certificates


@pytest.mark.slow
def test_a_lone_surrogate_in_an_order_is_replaced(home: Settings) -> None:
    crowned("halved", 2, home)
    entry = champions.roll_back(
        release_home.of(home), Order("halved", None, "bob\ud83d", "rude\udc00")
    )
    assert (entry.change.asked_by, entry.change.reason) == ("bob\ufffd", "rude\ufffd")
    assert (
        registry.version_numbered("halved", "2").rolled_back
        == "to version 1 by bob\ufffd: rude\ufffd"
    )
