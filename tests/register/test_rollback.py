"""A rollback goes to a version that may serve and to no other, and no turn undoes it."""

import threading
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from components import warehouse
from components.dataset.snapshot import Snapshot
from components.decide import chain, record
from components.decide.record import Asked
from components.decide.record import Event as Decided
from components.gate.evidence import Evidence, Subject, TurnReference
from components.gate.judgement import Judgement
from components.register import aliases, journal, registry, rollback, taint
from components.register.aliases import Aliases
from components.register.rollback import RollbackError
from flows import champions, registering, rollback_rules, turn
from flows import rollback as rolling
from flows.settings import Settings
from tests.register.versions import NOW, approve, ask, ask_with_files, crowned, decide, workload


def test_a_version_is_challenger_from_the_question_to_the_answer(
    home: Settings, base_model: Path
) -> None:
    found = ask("asked", 1)
    assert aliases.read("asked") == Aliases(challenger="1")
    registering.reject(found, decide("asked", 1, "reject"))
    assert aliases.read("asked") == Aliases()
    assert registry.numbered("asked", "1").decision == "reject"
    approve("asked", 2, base_model)
    assert aliases.read("asked") == Aliases(champion="2")


def test_a_newer_challenger_keeps_its_alias_when_the_older_is_decided_on() -> None:
    older = ask("newer", 1)
    ask("newer", 2)
    registering.let_go(older)
    assert aliases.read("newer").challenger == "2"


def test_a_challenger_that_learned_from_erased_rows_is_none_any_more() -> None:
    ask("tainted", 1)
    taint.flag("tainted", {"a1"}, "c1")
    assert aliases.read("tainted").challenger is None


def test_a_rollback_leads_to_the_version_before_and_the_next_one_further(home: Settings) -> None:
    crowned("further", 3, home)
    assert aliases.read("further") == Aliases(champion="3", previous="2")
    first = champions.roll_back(home, "further", None, by="bob", reason="rude")
    assert aliases.read("further") == Aliases(champion="2", previous="1")
    assert champions.say_rollback(first) == (
        "further: from version 3 back to version 2, adapter a2; version 1 is before it"
    )
    champions.roll_back(home, "further", None, by="bob", reason="rude, too")
    assert aliases.read("further") == Aliases(champion="1", previous=None)
    with pytest.raises(RollbackError, match="no version is `previous`; --to goes back to any of 2"):
        champions.roll_back(home, "further", None, by="bob", reason="")


def test_a_rollback_can_be_taken_back_by_number(home: Settings) -> None:
    crowned("back", 2, home)
    champions.roll_back(home, "back", None, by="bob", reason="slow")
    assert registry.numbered("back", "2").rolled_back == "to version 1 by bob: slow"
    champions.roll_back(home, "back", "2", by="bob", reason="it was the network")
    assert aliases.read("back") == Aliases(champion="2", previous=None)
    assert registry.numbered("back", "2").rolled_back == ""
    assert champions.rolled_back("back", "a2") is None


def test_versions_name_the_decisions_on_them_so_that_none_is_cut_off_the_chain(
    home: Settings, base_model: Path
) -> None:
    made = workload("named", base_model)
    with warehouse.connect(home.warehouse) as con:
        for number, word in ((1, "approve"), (2, "approve"), (3, "reject")):
            event = Decided(word, "named", f"e{number}", f"run-{number}", NOW, "ann", "good")  # pyright: ignore
            with warehouse.transaction(con):
                record.append(con, event)
    for number in (1, 2, 3):
        found = ask_with_files("named", number)
        with warehouse.connect(home.warehouse) as con:
            decision = record.decision_on(con, f"e{number}")
        assert decision is not None
        if decision.decision == "approve":
            registering.crown(made, found, decision, lambda: None)
        else:
            registering.reject(found, decision)
    champions.roll_back(home, "named", None, by="bob", reason="rude")
    anchors = {place: text for place, text in champions.anchors().items() if "of named" in place}
    with warehouse.connect(home.warehouse) as con:
        links = record.links(con)
        assert chain.first_loose(links, anchors) is None
        named = [link for link in links if link.sequence != 2]
        named = [link for link in named if link.kind not in ("rules", "released")]
        assert {chain.from_anchor(text) for text in anchors.values()} >= {
            chain.Head(link.sequence, link.digest) for link in named
        }
        lost = chain.first_loose(links[:-1], anchors)
    assert lost is not None
    assert lost.said.startswith("is missing: version 2 of named in MLflow says")


def test_a_version_that_may_not_serve_is_refused_and_nothing_moves(home: Settings) -> None:
    crowned("refused", 2, home)
    ask("refused", 3)
    registering.reject(ask("refused", 4), decide("refused", 4, "reject"))
    taint.flag("refused", {"a1"}, "c1")
    before = aliases.read("refused")
    for to, said in (
        ("2", "it is the champion already"),
        ("3", "nobody has approved it"),
        ("4", "nobody has approved it"),
        ("9", "there are 1, 2, 3, 4"),
        ("1", r"erased \(certificate c1\)"),
        (None, r"erased \(certificate c1\)"),
    ):
        with pytest.raises(RollbackError, match=said):
            champions.roll_back(home, "refused", to, by="bob", reason="")
    assert aliases.read("refused") == before


def test_a_rollback_says_by_whom_and_why_in_the_journal_and_in_the_chain(home: Settings) -> None:
    crowned("told", 2, home)
    champions.roll_back(home, "told", None, by="bob", reason="wrong tools")
    with warehouse.connect(home.warehouse) as con:
        last = journal.changes(con, "told")[-1]
        link = record.links(con, Asked(workload_id="told"))[-1]
        assert chain.first_broken(record.links(con), record.head(con)) is None
    change = last.change
    assert (last.step, change.kind, change.asked_by) == ("done", "rollback", "bob")
    assert (change.champion_before, change.version, change.reason) == ("2", "1", "wrong tools")
    assert (link.kind, link.evidence_digest, link.approver) == ("rollback", "e2", "bob")
    assert link.comment == "to version 1: wrong tools"


def test_a_rollback_that_was_killed_is_finished_by_the_same_command_and_goes_no_further(
    home: Settings,
) -> None:
    crowned("again", 3, home)
    with warehouse.connect(home.warehouse) as con:
        known = rollback_rules.champions(con, "again")
    versions = registry.versions("again")
    change = rollback.plan("again", versions, "3", known, None, by="bob", reason="rude")
    champions.books(home).intend(change)
    champions.roll_back(home, "again", None, by="bob", reason="rude")
    assert aliases.read("again") == Aliases(champion="2", previous="1")


def test_what_was_rolled_back_is_neither_asked_about_nor_crowned_again(
    home: Settings, base_model: Path
) -> None:
    made = workload("once", base_model)
    crowned("once", 2, home)
    champions.roll_back(home, "once", None, by="bob", reason="rude")
    snapshot = Snapshot(Path("s1"), "s1", "v1", 1, 0, 1, {}, {"train": 1, "holdout": 1}, 1)
    with disable_run_logger():
        ended = turn.conclude(made, snapshot, Path("a2"), {}, TurnReference("t1", "w1"))
    assert ended == turn.Turned("rolled back")

    subject = Subject("once", "s1", "v1", "b1", "a2", "1", "c1", "o1")
    found = Evidence(Path("e2"), subject, Judgement("pass", ("better",), "correct_name"))
    with pytest.raises(registering.RolledBackError, match="rolled back by bob \\(rude\\)"):
        registering.crown(made, found, decide("once", 2), lambda: None)
    assert aliases.read("once").champion == "1"

    approve("once", 3, base_model)  # new data made another adapter
    assert aliases.read("once") == Aliases(champion="3", previous="1")


def test_a_promotion_waits_for_whoever_changes_the_champion(
    home: Settings, base_model: Path
) -> None:
    found = ask_with_files("waits", 1)
    made = workload("waits", base_model)
    crown = threading.Thread(
        target=registering.crown, args=(made, found, decide("waits", 1), lambda: None)
    )
    with journal.held(home.locks, "waits"):
        crown.start()
        crown.join(0.5)
        assert aliases.read("waits").champion is None
    crown.join()
    assert aliases.read("waits").champion == "1"


def test_what_was_interrupted_is_settled_for_all_but_who_is_at_work(home: Settings) -> None:
    for name in ("dead", "alive"):
        crowned(name, 2, home)
        with warehouse.connect(home.warehouse) as con:
            known = rollback_rules.champions(con, name)
        versions = registry.versions(name)
        change = rollback.plan(name, versions, "2", known, None, by="bob", reason="")
        champions.books(home).intend(change)
    with journal.held(home.locks, "alive"):
        (settled,) = champions.reconcile(home)
    assert champions.say(settled) == (
        "dead: rollback 3 finished: it was interrupted, and is finished"
    )
    assert aliases.read("dead").champion == "1"
    assert aliases.read("alive").champion == "2"


def test_a_click_in_the_ui_rolls_back_and_says_so(home: Settings) -> None:
    crowned("clicked", 2, home)
    with disable_run_logger():
        said = rolling.go_back.fn("clicked", "", rolling.UNNAMED, "")
    assert said == "clicked: from version 2 back to version 1, adapter a1; nothing is before it"


def test_half_a_character_in_an_order_is_replaced(home: Settings) -> None:
    crowned("halved", 2, home)
    entry = champions.roll_back(home, "halved", None, by="bob\ud83d", reason="rude\udc00")
    assert (entry.change.asked_by, entry.change.reason) == ("bob\ufffd", "rude\ufffd")
    assert registry.numbered("halved", "2").rolled_back == "to version 1 by bob\ufffd: rude\ufffd"
