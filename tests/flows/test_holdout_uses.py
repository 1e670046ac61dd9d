"""A policy is sealed before the first look at a holdout, and a changed one is another look."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import scorecard
from components.decide import chain, decision_log
from components.gate.comparability import Measured
from components.gate.judgement import Judgement
from components.gate.policy import Guard, Policy
from components.gate.report import words
from components.gate.report import write_report as report
from components.scorecard import HOLDOUT, Scorecard, aggregate
from components.store import ledger, manifest, warehouse
from components.store.ledger import Holdout, HoldoutUse, SealedPolicy
from flows import preregistration, settings, turn
from tests.components.gate.test_betting import grown
from tests.components.store.test_holdout_uses import look, seal
from tests.support import gate_cases, warehouses
from tests.support.cards import guard_card, pair, under

POLICY = Policy()

CARRIED = 1
"""A seed whose challenger passes at its second look by what its first had won."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    warehouses.create(settings.load().warehouse)


def held(count: int = 132, workload: str = "support") -> Holdout:
    rows = ledger.holdout_rows(f"request {number}" for number in range(count))
    return Holdout(workload, f"v1-{count}", rows)


def judged(
    challenger: str,
    cards: tuple[Scorecard, Scorecard] | None = None,
    policy: Policy = POLICY,
    beside: Scorecard | None = None,
    holdout: Holdout | None = None,
) -> Judgement:
    ours, theirs = cards or pair(40, 2, 40, 10)
    more = {beside.task: beside} if beside else {}
    mine: Measured = {HOLDOUT: replace(ours, key=challenger), **more}
    return turn.judge_challenger(policy, holdout or held(), "a1", mine, {HOLDOUT: theirs, **more})


def edited(**changes: object) -> Policy:
    return Policy.model_validate({**POLICY.model_dump(), **changes})


def broken() -> chain.Broken | None:
    with warehouse.connect(settings.load().warehouse) as con:
        links, book = decision_log.links(con), ledger.read_holdout_log(con)
        return chain.first_broken(
            links, decision_log.read_head(con)
        ) or decision_log.first_uncommitted(links, book)


def run(sql: str, **values: warehouse.Value) -> None:
    with warehouse.connect(settings.load().warehouse) as con:
        con.execute(sql, values or None)


def book() -> ledger.HoldoutLog:
    with warehouse.connect(settings.load().warehouse) as con:
        return ledger.read_holdout_log(con)


def test_a_turn_that_is_run_again_is_judged_alike_and_the_next_challenger_more_strictly() -> None:
    first, second = judged("c1"), judged("c2")
    assert (first.look, second.look) == (1, 2)
    assert (first.alpha, second.alpha) == (pytest.approx(0.05 / 2), pytest.approx(0.05 / 6))
    assert judged("c1") == first
    assert judged("c2") == second


def test_looks_before_a_holdout_doubled_are_counted_and_alpha_is_whole_again() -> None:
    """They saw half of its requests, and a person may judge again what was ahead on these."""
    for number in range(3):
        judged(f"c{number}")
    after = judged("c3", pair(80, 4, 80, 60), holdout=held(264))
    assert (after.look, after.alpha) == (4, pytest.approx(0.05 / 5))
    assert after.terms is not None
    assert (after.terms.looks, after.terms.left) == (0, 0.05)
    assert (
        "recorded no look at this holdout before and 3 before it doubled"
        in (words.term_sentences(after)[0])
    )
    planned = judged("c4", pair(80, 4, 80, 60), policy=edited(looks=6), holdout=held(528))
    assert (planned.look, planned.alpha) == (1, pytest.approx(0.05 / (6 + 4)))
    assert broken() is None


def test_another_metric_is_another_look() -> None:
    assert judged("c1").look == 1
    assert judged("c1", policy=Policy(metric="correct")).look == 2


def test_a_look_at_another_task_is_judged_by_that_tasks_scorecard() -> None:
    policy = Policy(task="arc_easy", metric="acc")
    few, more = guard_card([1.0] * 60), replace(guard_card([1.0] * 80), key="more")
    assert judged("c1", policy=policy, beside=few).look == 1
    assert judged("c2", policy=policy, beside=few).look == 1
    assert judged("c2", policy=policy, beside=more).look == 2


def test_a_guard_that_is_measured_on_other_documents_is_another_look() -> None:
    """It was the same look, so its documents could be changed until it passed."""
    policy = Policy(guards=(Guard(task="arc_easy", metric="acc", margin=0.03),))
    few, more = guard_card([1.0] * 60), replace(guard_card([1.0] * 80), key="more")
    first = judged("c1", policy=policy, beside=few)
    again = judged("c1", policy=policy, beside=more)
    assert (first.look, again.look) == (1, 2)
    assert (first.alpha, again.alpha) == (pytest.approx(0.05 / 2), pytest.approx(0.05 / 6))
    assert judged("c1", policy=policy, beside=few) == first
    assert broken() is None


def test_scores_that_are_measured_again_are_another_look_if_they_differ() -> None:
    """In 16 bits, or by a judge, they may: they could be measured again until they pass."""
    first, again = judged("c1"), judged("c1", pair(41, 2, 39, 10))
    assert (first.look, again.look) == (1, 2)
    assert judged("c1") == first
    assert broken() is None


def test_what_can_not_be_compared_spends_nothing() -> None:
    ours, theirs = pair(40, 2, 40, 10)
    refused = judged("c1", (under(ours, holdout_version="v0"), theirs))
    assert refused.outcome == "fail"
    assert judged("c2").look == 1


def test_looks_k_at_look_k_never_sums_to_more_than_the_sealed_alpha() -> None:
    """It came to 0.146 over ten looks when a look kept no policy."""
    spent = [judged(f"c{k}", policy=edited(looks=k)).alpha for k in range(1, 11)]
    assert sum(spent) <= 0.05 + 1e-12
    assert spent[0] == pytest.approx(0.05)
    (sentence,) = judged("c11", policy=edited(looks=11)).reasons
    assert sentence.startswith(
        "no look is left: this is the 2nd look at this holdout, and those before"
    )


@pytest.mark.parametrize("draw", range(8))
def test_whatever_is_edited_while_a_holdout_grows_no_doubling_of_it_spends_more_than_is_sealed(
    draw: int,
) -> None:
    """Alpha, the planned looks, the name and the size change at random; all is remembered."""
    rng, size, taken, sealed = (
        np.random.default_rng(draw),
        60,
        list[HoldoutUse](),
        list[SealedPolicy](),
    )
    numbers = [f"request {number}" for number in range(4_000)]
    for decision in range(1, 120, 2):
        size = min(3_900, size + int(rng.choice([0, 0, 1, 40])))
        policy = edited(
            alpha=float(rng.choice([0.01, 0.05, 0.4])),
            looks=(None, 1, 5, decision)[rng.integers(4)],
        )
        now = Holdout(str(rng.choice(["a", "b"])), f"v{size}", ledger.holdout_rows(numbers[:size]))
        book = ledger.HoldoutLog(sealed, taken)
        if (under_seal := book.sealed(now)) is None:
            under_seal = seal(now, policy.alpha, decision)
            sealed.append(under_seal)
        asked = look(now, f"c{decision}", decision=decision + 1)
        taken.append(preregistration.allot_use(book, under_seal, policy, now, asked))
        within = [use.alpha for use in taken if 2 * use.held > size]
        assert taken[-1].alpha == 0 or sum(within) <= under_seal.alpha + 1e-9
    for each in sealed:
        spent = sum(use.alpha for use in taken if use.seal == each.decision)
        assert spent <= each.alpha + 1e-9
    assert len(sealed) > 2


def test_a_raised_alpha_waits_for_a_doubled_holdout_and_a_lowered_one_holds_at_once() -> None:
    assert judged("c1").alpha == pytest.approx(0.025)
    assert judged("c2", policy=edited(alpha=0.4)).alpha == pytest.approx(0.025 / 3)
    none = judged("c3", policy=edited(alpha=0.03))
    assert none.alpha == 0
    assert none.reasons[0].startswith("no look is left")
    assert judged("c3").alpha == pytest.approx(0.05 / 12)
    doubled = judged("c4", policy=edited(alpha=0.4), holdout=held(264))
    assert (doubled.look, doubled.alpha) == (4, pytest.approx(0.4 / 5))
    assert doubled.terms is not None
    assert doubled.terms.changes == (), "it was sealed anew"


def test_a_policy_that_is_changed_after_the_result_is_a_new_look_and_says_what_changed() -> None:
    guards = (Guard(metric="name_and_arguments", margin=0.05),)
    sealed = edited(guards=guards)
    first = judged("c1", policy=sealed)
    assert first.terms is not None
    assert (first.terms.changes, first.terms.looks, first.terms.alpha) == ((), 0, 0.05)
    wide = edited(guards=(guards[0].model_copy(update={"margin": 0.2}),), floor=0.1)
    again = judged("c1", policy=wide)
    assert (again.look, again.alpha) == (2, pytest.approx(0.05 / 6))
    assert again.terms is not None
    assert again.terms.changes == (
        "floor: 0.5, now 0.1",
        "margin on name_and_arguments of holdout: 0.05, now 0.2",
    )
    assert again.terms.decision == first.terms.decision
    assert again.terms.changed_at
    assert judged("c1", policy=wide) == again
    back = judged("c2", policy=sealed)
    assert back.look == 3
    assert back.terms is not None
    assert back.terms.changes == (), "the sealed policy again"


def test_form_and_report_say_what_changed_since_when_and_what_is_not_known(
    tmp_path: Path,
) -> None:
    judged("c1")
    judgement = judged("c2", policy=edited(floor=0.1))
    case = replace(gate_cases.clear(), judgement=judgement)
    html = report.html(case, [], {})
    assert judgement.terms is not None
    sentence = (
        f"the policy was changed after it was sealed on {judgement.terms.sealed_at} (decision 1), "
        f"first used on {judgement.terms.changed_at}: floor: 0.5, now 0.1"
    )
    assert sentence in html
    assert "this home recorded 1 look at this holdout before, and looks of other homes" in html


def test_a_holdout_keeps_its_looks_and_its_seal_under_another_workloads_name() -> None:
    first = judged("c1")
    renamed = judged("c2", holdout=held(60, "renamed"), policy=edited(alpha=0.4))
    assert (renamed.look, renamed.alpha) == (2, pytest.approx(0.05 / 6))
    assert first.terms is not None
    assert renamed.terms is not None
    assert (renamed.terms.decision, renamed.terms.others) == (first.terms.decision, ("support",))
    other = Holdout("sales", "v1", ledger.holdout_rows(f"sale {number}" for number in range(132)))
    assert judged("c3", holdout=other).look == 1


def test_the_policy_is_sealed_before_anything_is_measured_and_only_once() -> None:
    preregistration.seal_policy(POLICY, held())
    preregistration.seal_policy(edited(alpha=0.4), held(140))
    (sealed,) = book().seals
    assert (sealed.alpha, sealed.holdout_version) == (0.05, "v1-132")
    judgement = judged("c1", policy=edited(alpha=0.4), holdout=held(140))
    assert judgement.terms is not None
    assert judgement.terms.changes == ("alpha: 0.05, now 0.4",)
    assert judgement.alpha == pytest.approx(0.025)


def test_a_look_keeps_its_policy_alpha_challenger_test_and_outcome() -> None:
    judgement = judged("c1")
    (look,) = book().looks
    assert (look.alpha, look.alpha_left, look.adapter) == (judgement.alpha, 0.05, "a1")
    assert (look.test, look.outcome) == ("exact McNemar", "pass")
    assert look.policy is not None
    assert json.loads(look.policy) == POLICY.to_json()


def test_what_is_held_out_is_read_from_the_snapshot(tmp_path: Path) -> None:
    messages = ['[{"role":"user","content":"hi"}]', '[{"role":"user","content":"bye"}]']
    columns = {"messages": messages, "group": ["g", "g"], "cluster": ["c", "c"]}
    pq.write_table(pa.table(columns), tmp_path / "holdout.parquet")
    held = preregistration.digest_holdout("support", "v1", tmp_path, 2)
    assert held.rows == replace(ledger.holdout_rows(messages), clusters=(2,))
    assert held.cap == 2


def test_a_cap_of_clusters_is_recorded_and_its_lifting_is_a_change_of_the_policy() -> None:
    capped = replace(held(), cap=1)
    lifted = replace(held(396), rows=replace(held(396).rows, clusters=(3,) * 132))
    assert judged("c1", holdout=capped).look == 1
    second = judged("c2", pair(120, 6, 120, 30), holdout=lifted)
    assert (second.look, second.alpha) == (2, pytest.approx(0.05 / 6))
    assert second.terms is not None
    assert second.terms.changes == ("holdout_per_cluster: 1, now not asked",)
    assert broken() is None


@pytest.mark.parametrize(
    ("tampering", "sequence", "sentence"),
    [
        pytest.param(
            "update raw.looks set alpha = 0.0001 where number = 1",
            2,
            "was changed: the look that is kept is not the one that was recorded",
            id="alpha-bought-back",
        ),
        pytest.param(
            "delete from raw.looks where number = 1",
            2,
            "is missing",
            id="a-look-deleted",
        ),
        pytest.param(
            "update raw.looks set sketch = [1, 2] where number = 1",
            2,
            "was changed: the look",
            id="its-rows-changed",
        ),
        pytest.param(
            "update raw.seals set policy = replace(policy, '0.5', '0.1')",
            1,
            "was changed: the sealed policy that is kept is not the one",
            id="the-sealed-policy-changed",
        ),
        pytest.param("delete from raw.seals", 1, "is missing", id="the-seal-deleted"),
        pytest.param(
            "update raw.looks set decision = 9 where number = 2",
            3,
            "is missing",
            id="a-look-moved",
        ),
        pytest.param(
            "update raw.decision_chain set body = replace(body, '0.5', '0.1') where sequence = 1",
            1,
            "was changed: its content has another digest",
            id="the-chain-changed",
        ),
    ],
)
@pytest.mark.slow
def test_verify_finds_a_seal_or_a_look_that_is_not_what_was_recorded(
    tampering: str, sequence: int, sentence: str
) -> None:
    judged("c1")
    judged("c2")
    assert broken() is None
    run(tampering)
    link = broken()
    assert link is not None
    assert (link.sequence, sentence in link.problem) == (sequence, True), link


def kept(card: Scorecard, key: str) -> Scorecard:
    """Keep a scorecard where an evaluation would."""
    folder = settings.load().scorecards / "support" / key
    body = {"base": card.base, "adapter": card.adapter, "task": card.task}
    whole = {**body, "conditions": card.conditions}
    scorecard.write(folder, card.samples, card.metrics, body=whole, now=datetime.now(UTC))
    return scorecard.read(folder)


@pytest.mark.parametrize("state", ["kept", "deleted", "damaged", "cut"])
def test_bets_of_an_earlier_look_at_the_challenger_are_carried_on_if_they_are_kept(
    state: str,
) -> None:
    policy = edited(abstention_margin=None, floor=0)
    came: list[Judgement] = []
    for number, (ours, theirs) in enumerate(grown(CARRIED, (100, 130), 0.12)):
        cards = (kept(ours, f"c{number}"), kept(replace(theirs, adapter=None), f"o{number}"))
        mine, other = ({HOLDOUT: card} for card in cards)
        came.append(turn.judge_challenger(policy, held(100 + 30 * number), "a1", mine, other))
        earlier = settings.load().scorecards / "support" / "c0"
        if state == "deleted":
            shutil.rmtree(earlier, ignore_errors=True)
        elif state == "damaged":
            (earlier / scorecard.SAMPLES).write_bytes(b"PAR1")
        elif state == "cut":
            (earlier / manifest.NAME).write_text("{")
    assert [judgement.look for judgement in came] == [1, 2]
    assert came[0].outcome == "inconclusive"
    assert came[1].outcome == ("pass" if state == "kept" else "inconclusive")
    assert ("that began at look 1 and continued" in came[1].reasons[0]) is (state == "kept")


def test_bets_are_not_carried_on_where_the_same_was_measured_twice() -> None:
    """The scorecards that are kept are not those of the first look, whose level it would be."""
    policy = edited(abstention_margin=None, floor=0)
    (ours, theirs), (more, others) = grown(CARRIED, (100, 130), 0.12)
    lost = next(s for s in ours.samples if s.scores["correct_name"] == 0)
    better = [
        replace(s, scores={**s.scores, "correct_name": 1.0}) if s is lost else s
        for s in ours.samples
    ]
    again = replace(ours, samples=tuple(better), scores=aggregate(better, ours.metrics))
    came: list[Judgement] = []
    for key, mine, other in (("0", ours, theirs), ("0", again, theirs), ("1", more, others)):
        cards = {HOLDOUT: kept(mine, f"c{key}")}, {HOLDOUT: kept(other, f"o{key}")}
        came.append(turn.judge_challenger(policy, held(len(mine.samples)), "a1", *cards))
    assert [judgement.look for judgement in came] == [1, 2, 3]
    assert "began at look" not in came[2].reasons[0]


def test_a_scorecard_that_was_changed_is_named_with_the_remedy() -> None:
    card = kept(pair(40, 2, 40, 10)[0], "c1")
    folder = settings.load().scorecards / "support" / card.key
    (folder / scorecard.AGGREGATES).write_text("{}")
    with pytest.raises(scorecard.DamagedScorecardError) as caught:
        scorecard.read(folder)
    assert str(caught.value).endswith(f"delete {folder}, and the next turn measures it again")
