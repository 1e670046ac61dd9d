"""A turn's gate, from scorecards on disk to the evidence: anchored, sealed, and counted."""

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import costs, scorecard
from components.costs import Work
from components.dataset.snapshot_figures import Snapshot
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence, TurnReference
from components.gate.judgement import Judgement
from components.gate.policy import Guard, Policy
from components.register.registry import Version
from components.schema import Answer, Json
from components.scorecard import HOLDOUT, Scorecard, ScorecardFolders
from components.store import ledger, manifest, output_folders, warehouse
from components.store.manifest import folder_digest
from components.store.output_folders import SourceGoneError
from flows import evaluate, home_workloads, settings, turn
from flows.evaluate import LearnedError
from flows.home_workloads import ForeignPathError
from flows.workload_file import Workload
from tests.components.gate.test_betting import grown
from tests.flows.test_holdout_uses import CARRIED
from tests.support import gate_cases, tiny, warehouses, workload_text
from tests.support.cards import CONDITIONS, card, rescored
from tests.support.logs import NOW

GUARD = Guard(metric="name_and_arguments", margin=0.05)
POLICY = Policy(guards=(GUARD,), abstention_margin=None)
CHAMPION = Version("support", "3", "a0", "e0", "r0", decision="approve")
REQUESTS = 400


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    warehouses.create(tmp_path / "warehouse.duckdb")
    return tmp_path


TURN = TurnReference("t1", "w1")


def measured(right: int, guarded: int) -> Scorecard:
    """Measure a model that gets these numbers of names and arguments right."""
    names = card([1.0] * right + [0.0] * (REQUESTS - right), [])
    return rescored(names, GUARD.metric, [1.0] * guarded + [0.0] * (REQUESTS - guarded))


def written(
    folder: Path, measured: Scorecard, conditions: Mapping[str, Json] = CONDITIONS
) -> dict[str, Path]:
    body = {"base": "b1", "adapter": folder.name, "task": HOLDOUT, "conditions": conditions}
    speed = {costs.SPEED: asdict(gate_cases.SPEED)}
    scorecard.write(folder, measured.samples, measured.metrics, body=body | speed, now=NOW)
    return {HOLDOUT: folder}


def snapshot(home: Path, key: str = "s1", requests: int = REQUESTS) -> Snapshot:
    folder = home / "snapshots" / "support" / key
    folder.mkdir(parents=True)
    answer = Answer("Yes").to_json()
    rows = [
        {
            "example_id": f"e{number}",
            "interaction_ids": [f"i{number}"],
            "messages": json.dumps([{"role": "user", "content": f"request {number}"}]),
            "group": f"g{number}",
            "tools": "[]",
            "answer": answer,
        }
        for number in range(requests)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "holdout.parquet")
    learned = {"example_id": ["t1"], "interaction_ids": [["l1"]]}
    pq.write_table(pa.table(learned), folder / "train.parquet")
    manifest.write(folder, kind="snapshot", now=NOW, body={})
    sides = {"train": 10, "validation": 0, "holdout": requests}
    return Snapshot(folder, key, f"v-{key}", 10, 0, requests, {"kept": 10}, sides, 1)


def workload(home: Path, policy: Policy) -> Workload:
    tiny.tokenizer().save_pretrained(home / "base")
    return Workload.model_construct(
        workload="support", base=home / "base", cost=gate_cases.PRICES, gate=policy, note=""
    )


def test_evidence_is_not_kept_when_an_erasure_deletes_its_scorecards_while_it_is_written(
    home: Path,
) -> None:
    frozen, adapter = snapshot(home), home / "adapters" / "a1"
    adapter.mkdir(parents=True)
    body = {"snapshot": frozen.key, costs.TRAINING: asdict(Work(7200.0, "core", 2))}
    manifest.write(adapter, kind="adapter", now=NOW, body=body)
    cards: ScorecardFolders = {
        scorecard.CHALLENGER: written(home / "cards" / "c", measured(340, 344)),
        scorecard.BASE: written(home / "cards" / "b", measured(100, 344)),
    }
    asked = workload(home, Policy(abstention_margin=None))
    turn.preregister.fn(asked, frozen)
    evidence = home / "evidence" / "support"

    def erases() -> None:
        while not [*evidence.glob("*/*")]:
            time.sleep(0.01)
        output_folders.remove(cards[scorecard.CHALLENGER][HOLDOUT])

    erasing = threading.Thread(target=erases)
    erasing.start()
    with pytest.raises(SourceGoneError, match="was deleted meanwhile, as an erasure does"):
        turn.assemble_evidence.fn(asked, frozen, adapter, cards, None, TURN)
    erasing.join()
    assert not [*evidence.iterdir()]


def test_a_turn_seals_first_anchors_each_guard_and_judges_a_changed_policy_as_a_new_look(
    home: Path,
) -> None:
    frozen, adapter = snapshot(home), home / "adapters" / "a1"
    body = {"snapshot": frozen.key, costs.TRAINING: asdict(Work(7200.0, "core", 2))}
    adapter.mkdir(parents=True)
    manifest.write(adapter, kind="adapter", now=NOW, body=body)
    cards: ScorecardFolders = {
        scorecard.CHALLENGER: written(home / "cards" / "c", measured(340, 344)),
        scorecard.CHAMPION: written(home / "cards" / "a0", measured(300, 340)),
        scorecard.BASE: written(home / "cards" / "b", measured(100, 380)),
    }

    def assemble(policy: Policy) -> Evidence:
        asked = workload(home, policy)
        turn.preregister.fn(asked, frozen)
        return turn.assemble_evidence.fn(asked, frozen, adapter, cards, CHAMPION, TURN)

    evidence = assemble(POLICY)
    assert evidence.subject.anchor_scorecards == ("b",)
    assert evidence.judgement.outcome == "fail"
    assert evidence.judgement.reasons[0].startswith(
        "worse on name_and_arguments since the base: -9.0 points"
    )
    wide = Policy(guards=(GUARD.model_copy(update={"margin": 0.3}),), abstention_margin=None)
    again = assemble(wide)
    assert (again.judgement.outcome, again.judgement.look) == ("pass", 2)
    brief = (again.folder / evidence_folder.BRIEF).read_text()
    assert "margin on name_and_arguments of holdout: 0.05, now 0.3" in brief
    assert "looks of other homes are not known" in brief
    assert evidence_folder.read(again.folder) == again
    assert evidence_folder.turn(again.folder) == TURN
    assert again.subject.adapter_bytes == folder_digest(adapter)
    assert assemble(wide).digest == again.digest
    assert assemble(POLICY) == evidence
    with warehouse.connect(settings.load().warehouse) as con:
        book = ledger.read_holdout_log(con)
    assert [seal.alpha for seal in book.seals] == [0.05]
    assert [(use.number, use.outcome) for use in book.looks] == [(1, "fail"), (2, "pass")]


def test_a_challenger_is_not_judged_by_the_scores_of_an_earlier_champion(home: Path) -> None:
    """An approval took hold while models were measured: its evidence would name version 4."""
    frozen, adapter = snapshot(home), home / "adapters" / "a1"
    adapter.mkdir(parents=True)
    manifest.write(adapter, kind="adapter", now=NOW, body={"snapshot": frozen.key})
    cards: ScorecardFolders = {
        scorecard.CHALLENGER: written(home / "cards" / "c", measured(340, 344)),
        scorecard.BASE: written(home / "cards" / "b", measured(100, 380)),
    }
    with_champion = cards | {
        scorecard.CHAMPION: written(home / "cards" / "a0", measured(300, 340)),
    }
    approved = replace(CHAMPION, number="4", adapter="a2")
    for at_hand in (cards, with_champion):
        with pytest.raises(turn.OpponentChangedError, match="another version became champion"):
            turn.assemble_evidence.fn(
                workload(home, POLICY), frozen, adapter, at_hand, approved, TURN
            )
    with warehouse.connect(settings.load().warehouse) as con:
        assert ledger.read_holdout_log(con).looks == []


def test_models_are_scored_again_if_another_version_became_champion_meanwhile(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of scorecards has those of the champion at its end."""
    champion, scored = ["a0"], list[str]()

    def scorecards(*_: object) -> ScorecardFolders:
        return {scorecard.CHAMPION: {HOLDOUT: home / "cards" / champion[0]}}

    def score(*_: object) -> None:
        scored.append(champion[0])
        written(home / "cards" / champion[0], measured(300, 340))
        champion[0] = "a2"

    monkeypatch.setattr(evaluate, "scorecard_folders", scorecards)
    monkeypatch.setattr(evaluate, "run_evaluation", score)
    asked, file = workload(home, POLICY), home / "jobs" / "cards.json"
    assert evaluate.score(asked, home / "s1", home / "a1", file) == {
        scorecard.CHAMPION: {HOLDOUT: str(home / "cards" / "a2")}
    }
    assert scored == ["a0", "a2"]
    cards, approved = evaluate.cards_in(file), replace(CHAMPION, number="4", adapter="a2")
    assert cards is not None
    assert evaluate.is_champion_measured(cards, approved, Path("a1"))
    assert not evaluate.is_champion_measured(cards, CHAMPION, Path("a1"))
    assert evaluate.is_champion_measured(cards, None, Path("a1"))


def trained(home: Path, name: str = "a1", on: str = "s1", warm_start: str = "") -> Path:
    adapter = home / "adapters" / "support" / name
    adapter.mkdir(parents=True)
    body = {"snapshot": on, "warm_start": warm_start or None}
    work = {costs.TRAINING: asdict(Work(7200.0, "core", 2))}
    manifest.write(adapter, kind="adapter", now=NOW, body=body | work)
    return adapter


def verdict(objection: str | None) -> None:
    """Write what the newest curation says of the request that was learned."""
    with warehouse.connect(settings.load().warehouse) as con:
        con.execute(
            "insert into curated.verdicts by name select 'l1' as interaction_id,"
            " 'support' as workload_id, $objection as objection, now() as judged_at",
            {"objection": objection},
        )


def test_the_bets_on_an_adapter_continue_when_its_turn_is_on_a_grown_holdout(home: Path) -> None:
    verdict(None)
    adapter, asked = trained(home), workload(home, Policy(abstention_margin=None, floor=0))
    came: list[Judgement] = []
    for number, (ours, theirs) in enumerate(grown(CARRIED, (100, 130), 0.12)):
        frozen = snapshot(home, f"s{1 + number}", len(ours.samples))
        cards = {
            role: kept_card(f"{role}{number}", measured)
            for role, measured in ((scorecard.CHALLENGER, ours), (scorecard.BASE, theirs))
        }
        turn.preregister.fn(asked, frozen)
        found = turn.find_adapter(asked, frozen.path, "a")
        evidence = turn.assemble_evidence.fn(asked, frozen, found, cards, None, TURN)
        assert (evidence.subject.adapter, evidence.subject.snapshot) == (adapter.name, frozen.key)
        came.append(evidence.judgement)
    assert [(judgement.look, judgement.outcome) for judgement in came] == [
        (1, "inconclusive"),
        (2, "pass"),
    ]
    assert "that began at look 1 and continued" in came[1].reasons[0]


def kept_card(key: str, card: Scorecard) -> dict[str, Path]:
    folder = settings.load().scorecards / "support" / key
    body = {"base": "b1", "adapter": key[:1], "task": HOLDOUT, "conditions": card.conditions}
    speed = {costs.SPEED: asdict(gate_cases.SPEED)}
    scorecard.write(folder, card.samples, card.metrics, body=body | speed, now=NOW)
    return {HOLDOUT: folder}


@pytest.mark.parametrize(
    ("on", "objection", "start", "message"),
    [
        pytest.param("s9", None, "", "s9, which is not in", id="from-elsewhere"),
        pytest.param("s0", None, "", "it has learned 1 of the rows", id="a-tested-request"),
        pytest.param("s1", "overlaps_holdout", "", "1 are too close", id="a-near-one"),
        pytest.param("s1", "near_holdout", "", "1 are too close", id="a-tied-one"),
        pytest.param("s1", "-", "", "or were not compared", id="one-that-was-not-compared"),
        pytest.param("s1", None, "a0", "it has learned 1", id="its-start-has"),
    ],
)
def test_an_adapter_that_may_have_learned_what_is_held_out_is_not_judged(
    home: Path, on: str, objection: str | None, start: str, message: str
) -> None:
    """With Prefect's login one may name any adapter, or have one trained on any snapshot."""
    if objection != "-":
        verdict(objection)
    old, frozen = snapshot(home, "s0"), snapshot(home, "s2")
    snapshot(home)
    learned = {"example_id": ["e3"], "interaction_ids": [["i3"]]}
    pq.write_table(pa.table(learned), old.path / "train.parquet")
    trained(home, "a0", on="s0")
    adapter, asked = trained(home, on=on, warm_start=start), workload(home, POLICY)
    with pytest.raises(LearnedError, match=message):
        turn.find_adapter(asked, frozen.path, adapter.name)
    with pytest.raises(LearnedError, match=message):
        turn.assemble_evidence.fn(asked, frozen, adapter, {}, None, TURN)


def test_an_adapter_is_named_by_a_key_that_only_it_begins_with(home: Path) -> None:
    trained(home, "ab1")
    trained(home, "ab2")
    frozen, asked = snapshot(home), workload(home, POLICY)
    assert turn.find_adapter(asked, frozen.path, "ab2").name == "ab2"
    for key, found in (("ab", "ab1, ab2"), ("c", "none"), ("../support/ab1", "none")):
        with pytest.raises(LookupError, match=f"looking up adapter {key} of support: .*{found}"):
            turn.find_adapter(asked, frozen.path, key)


@pytest.mark.parametrize(
    ("adapter", "conditions", "are_its"),
    [
        pytest.param("a1", {}, True, id="its-own"),
        pytest.param("a2", {}, False, id="another-adapters"),
        pytest.param("a1", {"holdout_version": "v0"}, False, id="on-an-earlier-holdout"),
        pytest.param("a1", {"task": "holdout_sales"}, False, id="on-another-workloads"),
    ],
)
def test_scores_that_somebody_had_measured_of_something_else_are_not_the_challengers(
    home: Path, adapter: str, conditions: dict[str, Json], *, are_its: bool
) -> None:
    """With Prefect's login one may start an evaluation, and name the file that a turn reads."""
    frozen = home / "snapshots" / "s1"
    frozen.mkdir(parents=True)
    body = {"workload": "support", "rows": {}, "holdout_version": "v1"}
    manifest.write(frozen, kind="snapshot", now=NOW, body=body)
    own: dict[str, Json] = {"task": "holdout_support", "holdout_version": "v1"}
    cards: ScorecardFolders = {
        scorecard.CHALLENGER: written(
            home / "cards" / adapter, measured(340, 344), own | conditions
        )
    }
    assert evaluate.are_of(cards, "support", frozen, Path("a1")) == are_its


def test_an_evaluation_writes_only_the_file_of_its_own_adapter(home: Path, folder: Path) -> None:
    config = workload_text.write(folder)
    home_workloads.adopt(settings.load(), "support", config)
    elsewhere = home / "jobs" / "evaluate-a1" / "cards-0.json"
    with pytest.raises(ForeignPathError, match="expected one below"):
        evaluate.evaluate.fn(
            str(config),
            str(home / "snapshots" / "support" / "s1"),
            str(home / "adapters" / "support" / "a2"),
            str(elsewhere),
        )
