"""An answer is accepted or refused with its reason, once, and recorded either way."""

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pyotp.totp import TOTP

from components.decide import approvers, chain, decision_log, record_answer, ssh_signatures
from components.decide.approvers import Approver, Approving
from components.decide.record_answer import ProofContext, Question, TypedAnswer
from components.store import warehouse
from components.store.warehouse import Connection
from tests.components.decide.test_totp import SECRET
from tests.support import chains, warehouses
from tests.support.chains import NOW, event

ADA, BOB = Approver(name="ada"), Approver(name="bob")
LISTED = Approving(approvers=(ADA, BOB))
FOUR_EYES = Approving(approvers=(ADA, BOB), four_eyes=True)
CODED = Approving(approvers=(ADA, BOB), proof="code")
QUESTION = Question("support", "e1", "run-1", 1)
YES = TypedAnswer("approve", "ada", "fine")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtofXXQBkBB+HvirIXoKRmKwSm2ZMoHR/NJoOG/Mz+o ada@laptop"


def hear(
    con: Connection,
    answer: TypedAnswer,
    approving: Approving,
    *,
    attempt: int = 1,
    secret: str | None = None,
    minutes: float = 0,
) -> tuple[str, str]:
    """Hear an answer; give what it was recorded as."""
    at = NOW + timedelta(minutes=minutes)
    question = replace(QUESTION, attempt=attempt)
    link = record_answer.record(
        con, question, answer, approving.rules(), ProofContext(secret), now=at
    )
    stored = warehouse.storable(con, answer.approver)
    assert (link.approver, link.comment) == (stored, answer.comment)
    return link.kind, link.reason


def decided(con: Connection, approving: Approving) -> tuple[str, str] | None:
    decision = decision_log.decision_on(con, "e1", approving.rules())
    return (decision.decision, decision.approver) if decision else None


def test_anybody_may_decide_if_nobody_is_listed(con: Connection) -> None:
    assert hear(con, YES, Approving()) == ("approve", "")
    assert decided(con, Approving()) == ("approve", "ada")


def test_a_rejection_keeps_its_reason_and_what_it_blames(con: Connection) -> None:
    no = TypedAnswer("reject", "bob", "slower", reason="cost", blame="tool=search")
    assert hear(con, no, LISTED) == ("reject", "cost")
    assert decision_log.links(con)[-1].blame == "tool=search"
    assert decided(con, LISTED) == ("reject", "bob")


@pytest.mark.parametrize(
    "name", ["eve", "Ada", "ada ", "ada\x00", "ada' or '1'='1", "{{ada}}", "<b>ada</b>"]
)
def test_an_unlisted_name_is_refused_and_the_approval_stays_open(
    con: Connection, name: str
) -> None:
    assert hear(con, TypedAnswer("approve", name), LISTED) == ("refused", "unlisted")
    assert decided(con, LISTED) is None
    assert hear(con, YES, LISTED, attempt=2) == ("approve", "")


def test_nobody_decides_without_a_name(con: Connection) -> None:
    assert hear(con, TypedAnswer("reject", " ", "no"), Approving()) == ("refused", "unnamed")


def test_two_different_people_must_approve(con: Connection) -> None:
    assert hear(con, YES, FOUR_EYES) == ("approve", "")
    assert decided(con, FOUR_EYES) is None
    assert hear(con, YES, FOUR_EYES, attempt=2) == ("refused", "same_person")
    assert decided(con, FOUR_EYES) is None
    assert hear(con, replace(YES, approver="bob"), FOUR_EYES, attempt=3) == ("approve", "")
    assert decided(con, FOUR_EYES) == ("approve", "ada, bob")


def test_one_rejection_is_final_even_after_an_approval(con: Connection) -> None:
    hear(con, YES, FOUR_EYES)
    hear(con, TypedAnswer("reject", "ada", "on second thoughts"), FOUR_EYES, attempt=2)
    assert decided(con, FOUR_EYES) == ("reject", "ada")


def test_an_approval_before_the_expiry_does_not_count(con: Connection) -> None:
    hear(con, YES, FOUR_EYES)
    chains.append(con, event("lapsed", "", attempt=0, reason="cancelled"))
    later = replace(QUESTION, flow_run_id="run-2")
    record_answer.record(
        con, later, replace(YES, approver="bob"), FOUR_EYES.rules(), ProofContext(None), now=NOW
    )
    assert decided(con, FOUR_EYES) is None


def test_a_rejection_for_another_reason_needs_a_comment(con: Connection) -> None:
    assert hear(con, TypedAnswer("reject", "ada", " "), LISTED) == ("refused", "unexplained")
    assert (
        hear(con, TypedAnswer("reject", "ada", "", reason="cost"), LISTED, attempt=2)[0] == "reject"
    )


def test_an_answer_repeated_after_a_crash_is_recorded_once(con: Connection) -> None:
    code = TOTP(SECRET).at(NOW)
    for _ in range(2):
        assert hear(con, replace(YES, code=code), CODED, secret=SECRET) == ("approve", "")
    assert [link.kind for link in decision_log.links(con)] == ["rules", "approve"]


def test_a_code_is_accepted_once_and_the_next_half_a_minute_later(con: Connection) -> None:
    first = replace(YES, code=TOTP(SECRET).at(NOW))
    assert hear(con, first, CODED, secret=SECRET) == ("approve", "")
    other = replace(QUESTION, evidence="e2", flow_run_id="run-2")
    again = record_answer.record(con, other, first, CODED.rules(), ProofContext(SECRET), now=NOW)
    assert (again.kind, again.reason) == ("refused", "code_reused")
    later = NOW + timedelta(seconds=30)
    new = replace(first, code=TOTP(SECRET).at(later))
    other = replace(other, attempt=2)
    assert (
        record_answer.record(con, other, new, CODED.rules(), ProofContext(SECRET), now=later).kind
        == "approve"
    )


def test_a_code_that_was_used_is_remembered_by_other_workloads_and_after_a_restart(
    tmp_path: Path,
) -> None:
    coded = replace(YES, code=TOTP(SECRET).at(NOW))
    with warehouses.connect(tmp_path / "w.duckdb") as con:
        assert hear(con, coded, CODED, secret=SECRET) == ("approve", "")
    other = Question("routing", "e9", "run-9", 1)
    with warehouses.connect(tmp_path / "w.duckdb") as con:
        link = record_answer.record(con, other, coded, CODED.rules(), ProofContext(SECRET), now=NOW)
    assert (link.kind, link.reason) == ("refused", "code_reused")


@pytest.mark.parametrize(
    ("code", "secret", "reason"),
    [
        pytest.param("", SECRET, "code_missing", id="missing"),
        pytest.param("123456", SECRET, "code_wrong", id="wrong"),
        pytest.param(TOTP(SECRET).at(NOW - timedelta(minutes=3)), SECRET, "code_expired", id="old"),
        pytest.param(TOTP(SECRET).at(NOW), None, "code_unknown", id="nobody-enrolled"),
    ],
)
def test_a_code_that_proves_nothing_is_refused_and_the_approval_stays_open(
    con: Connection, code: str, secret: str | None, reason: str
) -> None:
    assert hear(con, replace(YES, code=code), CODED, secret=secret) == ("refused", reason)
    assert decided(con, CODED) is None
    right = replace(YES, code=TOTP(SECRET).at(NOW))
    assert hear(con, right, CODED, secret=SECRET, attempt=2) == ("approve", "")


def test_a_rejection_needs_a_code_as_well(con: Connection) -> None:
    no = TypedAnswer("reject", "ada", "no")
    assert hear(con, no, CODED, secret=SECRET) == ("refused", "code_missing")


def test_guessing_codes_locks_the_name_for_a_day_and_no_other(con: Connection) -> None:
    for attempt in range(1, 11):
        wrong = hear(con, replace(YES, code="123456"), CODED, secret=SECRET, attempt=attempt)
        assert wrong == ("refused", "code_wrong")
    right = replace(YES, code=TOTP(SECRET).at(NOW))
    assert hear(con, right, CODED, secret=SECRET, attempt=11) == ("refused", "code_locked")
    bob = replace(right, approver="bob")
    assert hear(con, bob, FOUR_EYES, attempt=12) == ("approve", "")
    tomorrow = 24 * 60 + 1
    late = replace(right, code=TOTP(SECRET).at(NOW + timedelta(minutes=tomorrow)))
    taken = hear(con, late, CODED, secret=SECRET, attempt=13, minutes=tomorrow)
    assert taken == ("approve", "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"four_eyes": True}, "needs two approvers or more, found 0", id="nobody"),
        pytest.param(
            {"four_eyes": True, "approvers": [{"name": "ada"}]}, "found 1", id="one-for-four-eyes"
        ),
        pytest.param(
            {"approvers": [{"name": "ada"}, {"name": "ada"}]}, "listed more than once", id="twice"
        ),
        pytest.param({"proof": "code"}, "list them under approvers", id="codes-of-nobody"),
        pytest.param(
            {"approvers": [{"name": "ada", "secret_env": "A"}]}, "set proof: code", id="idle-secret"
        ),
        pytest.param({"proof": "signature"}, "list them under approvers", id="signed-by-nobody"),
        pytest.param(
            {"approvers": [{"name": "ada", "keys": [KEY]}]}, "set proof: signature", id="idle-key"
        ),
        pytest.param(
            {"proof": "signature", "approvers": [{"name": "ada", "keys": ["ssh-ed25519 AAAA"]}]},
            "ends too early",
            id="no-key",
        ),
        pytest.param(
            {
                "proof": "code",
                "approvers": [
                    {"name": "ada", "secret_env": "A"},
                    {"name": "bob", "secret_env": "A"},
                ],
            },
            "A is the secret of more than one",
            id="one-secret-of-two",
        ),
        pytest.param({"approvers": [{"name": "../ada"}]}, "pattern", id="a-path"),
        pytest.param({"approvers": [{"name": "ada\n"}]}, "pattern", id="a-line"),
        pytest.param({"approvers": [{"name": "<b>ada"}]}, "pattern", id="markup"),
        pytest.param({"approvers": [{"name": "ada "}]}, "pattern", id="a-blank-at-its-end"),
        pytest.param(
            {"approvers": [{"name": "\N{CYRILLIC SMALL LETTER A}da"}]},
            "mixes scripts",
            id="scripts",
        ),
        pytest.param(
            {"approvers": [{"name": "\N{FULLWIDTH LATIN SMALL LETTER A}da"}]}, "forms", id="wide"
        ),
        pytest.param(
            {"approvers": [{"name": "ada", "secret": "GEZDGNBV"}]}, "not permitted", id="secret"
        ),
    ],
)
def test_rules_that_nobody_could_meet_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Approving.model_validate(settings)


@pytest.mark.parametrize(
    "name", ["Ада Лавлейс", "小林 ようこ", "José Núñez-1", "박지원", "a@b.org", "7"]
)
def test_names_of_any_one_script_are_taken(name: str) -> None:
    assert Approving.model_validate({"approvers": [{"name": name}]}).approvers[0].name == name


def test_decisions_under_laxer_rules_do_not_count_under_the_current_rules(
    con: Connection,
) -> None:
    hear(con, YES, LISTED)
    assert decided(con, LISTED) == ("approve", "ada")
    assert decided(con, CODED) is None
    assert decided(con, FOUR_EYES) is None
    assert decided(con, Approving(approvers=(BOB,))) is None
    right = replace(YES, code=TOTP(SECRET).at(NOW))
    assert hear(con, right, CODED, secret=SECRET, attempt=2) == ("approve", "")
    assert decided(con, CODED) == ("approve", "ada")


def test_the_rules_of_each_decision_are_in_the_chain_before_it(con: Connection) -> None:
    hear(con, YES, LISTED)
    hear(con, replace(YES, approver="bob"), LISTED, attempt=2)
    hear(con, replace(YES, approver="ada"), FOUR_EYES, attempt=3)
    links = decision_log.links(con)
    kinds = [link.kind for link in links]
    assert kinds == ["rules", "approve", "approve", "rules", "refused"]
    assert approvers.read_rules(str(links[0].document)) == LISTED.rules()
    assert decision_log.body_value(links[1], "rules") == links[0].digest
    assert decision_log.first_unproved(links) is None
    assert chain.first_broken(links, decision_log.read_head(con)) is None


@pytest.mark.parametrize("started_by", ["ada", "Ada "])
def test_the_starter_of_a_turn_may_not_approve_if_the_rules_forbid_it(
    con: Connection, started_by: str
) -> None:
    decision_log.record_starter(con, "e1", "turn-1", started_by, NOW)
    others = LISTED.model_copy(update={"refuse_starter": True})
    assert hear(con, YES, others) == ("refused", "starter")
    assert hear(con, replace(YES, approver="bob"), others, attempt=2) == ("approve", "")
    hear(con, replace(YES, approver="ada"), LISTED, attempt=3)
    (ada,) = [
        link for link in decision_log.links(con) if (link.kind, link.approver) == ("approve", "ada")
    ]
    assert not decision_log.is_counted(ada, others.rules(), [started_by])
    assert decision_log.is_counted(ada, LISTED.rules(), ["ada"])


def test_an_evidence_counts_as_approved_since_its_last_approval(con: Connection) -> None:
    assert decision_log.approved_at(con, "e1") is None
    hear(con, YES, FOUR_EYES)
    hear(con, replace(YES, approver="bob"), FOUR_EYES, attempt=2, minutes=30)
    assert decision_log.approved_at(con, "e1") == NOW + timedelta(minutes=30)


@pytest.mark.parametrize(
    "pasted",
    [
        pytest.param("{}" * 80_000, id="braces"),
        pytest.param("{}\n" * 50_000 + ssh_signatures.BEGIN * 1000, id="begins"),
        pytest.param(
            f'{{"a":{"[" * 20_000}}}\n{ssh_signatures.BEGIN}\n{ssh_signatures.END}', id="nested"
        ),
        pytest.param("{" * 10_000 + ssh_signatures.BEGIN + " \n" * 10_000, id="blanks"),
    ],
)
def test_a_maliciously_slow_paste_is_refused_quickly(con: Connection, pasted: str) -> None:
    began = time.monotonic()
    signing = Approving(approvers=(Approver(name="ada", keys=(KEY,)),), proof="signature")
    kind, reason = hear(con, replace(YES, signature=pasted), signing)
    assert (kind, reason) == ("refused", "signature_unreadable")
    assert time.monotonic() - began < 5


def test_a_lone_surrogate_in_an_answer_is_replaced_and_the_answer_is_recorded(
    con: Connection,
) -> None:
    half = "\ud83d"
    no = TypedAnswer("reject", f"bob{half}", f"slow{half}", code=half, reason="cost", blame=half)
    assert hear(con, no, Approving()) == ("reject", "cost")
    link = decision_log.links(con)[-1]
    assert (link.approver, link.comment, link.blame) == ("bob\ufffd", "slow\ufffd", "\ufffd")
    assert hear(con, replace(YES, code=half), CODED, attempt=2, secret=SECRET) == (
        "refused",
        "code_wrong",
    )
    signed = f'{{"a":"{half}"}}\n{ssh_signatures.BEGIN}\n{ssh_signatures.END}'
    signing = Approving(approvers=(Approver(name="ada", keys=(KEY,)),), proof="signature")
    assert hear(con, replace(YES, signature=signed), signing, attempt=3) == (
        "refused",
        "signature_unreadable",
    )


def test_a_surrogate_pair_stays_one_character() -> None:
    assert chain.encodable("\ud83d\ude00") == "\U0001f600"
