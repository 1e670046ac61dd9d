"""Changed, deleted, added or moved decisions are detected, and the first invalid link is named."""

import hashlib
import json
from pathlib import Path

import pytest

from components.decide import chain, decision_log
from components.decide.chain import Head
from components.store.warehouse import Connection
from tests.support import chains
from tests.support.chains import event

HOSTILE = "'; drop table raw.decision_chain; -- <script>alert(1)</script> {{ 7*7 }} $(id) é\n"


@pytest.fixture
def three(con: Connection) -> Connection:
    """A chain of three decisions."""
    words = [event("refused", "eve"), event(attempt=2, comment=HOSTILE), event("reject", run="r2")]
    chains.append(con, *words)
    return con


def broken(con: Connection) -> chain.Broken | None:
    return chain.first_broken(decision_log.links(con), decision_log.read_head(con))


def test_an_unchanged_chain_is_valid_and_starts_with_the_genesis(three: Connection) -> None:
    assert broken(three) is None
    links = decision_log.links(three)
    assert links[0].before == "0" * 64
    assert [link.before for link in links[1:]] == [link.digest for link in links[:-1]]


def test_a_clock_jump_does_not_change_the_order(con: Connection) -> None:
    jumps = [0, 24 * 365, -24 * 365, 1]
    chains.append(con, *(event(run=f"r{n}", hours=hours) for n, hours in enumerate(jumps)))
    chains.append(con, event("lapsed", run="r1", hours=-1))
    links = decision_log.links(con)
    assert [link.flow_run_id for link in links] == ["r0", "r1", "r2", "r3", "r1"]
    assert broken(con) is None
    decision = decision_log.decision_on(con, "e1")
    assert decision is not None
    assert decision.flow_run_id == "r0", "the first approval that did not lapse"


def test_an_empty_chain_is_valid(con: Connection) -> None:
    assert broken(con) is None


@pytest.mark.parametrize(
    ("tampering", "sequence", "problem"),
    [
        pytest.param(
            "update raw.decision_chain set kind = 'approve' where sequence = 3",
            3,
            "was changed: its content",
            id="a-rejection-made-an-approval",
        ),
        pytest.param(
            "update raw.decision_chain set decided_at = decided_at + interval 1 day"
            " where sequence = 2",
            2,
            "was changed: its content",
            id="another-day",
        ),
        pytest.param(
            "update raw.decision_words set text = 'bob' where sequence = 2 and field = 'approver'",
            2,
            "its approver is not the one that was recorded",
            id="another-approver",
        ),
        pytest.param(
            "update raw.decision_words set text = '' where sequence = 1 and field = 'comment'",
            1,
            "its comment is not the one that was recorded",
            id="another-comment",
        ),
        pytest.param(
            "delete from raw.decision_chain where sequence = 2",
            2,
            "is missing: the next one there is 3",
            id="deleted-in-the-middle",
        ),
        pytest.param(
            "delete from raw.decision_chain where sequence = 1",
            1,
            "is missing: the next one there is 2",
            id="deleted-at-the-beginning",
        ),
        pytest.param(
            "delete from raw.decision_chain where sequence = 3",
            3,
            "is missing: the chain's head is 3",
            id="deleted-at-the-end",
        ),
        pytest.param(
            "delete from raw.decision_chain",
            1,
            "is missing: the chain's head is 3",
            id="all-deleted",
        ),
        pytest.param(
            "update raw.decision_chain set sequence = sequence - 10 where sequence in (2, 3);"
            "update raw.decision_chain set sequence = -5 - sequence where sequence < 0",
            2,
            "was changed: its content",
            id="reordered",
        ),
        pytest.param(
            "insert into raw.decision_chain select * replace (4 as sequence)"
            " from raw.decision_chain where sequence = 3",
            4,
            "was changed: its content",
            id="copied-to-the-end",
        ),
        pytest.param(
            "delete from raw.decision_head",
            1,
            "was not appended by Flywheel",
            id="the-head-deleted",
        ),
    ],
)
def test_tampering_is_detected_and_the_first_invalid_row_is_named(
    three: Connection, tampering: str, sequence: int, problem: str
) -> None:
    three.execute(tampering)
    first_problem = broken(three)
    assert first_problem is not None
    assert (first_problem.sequence, problem in first_problem.problem) == (sequence, True), (
        first_problem
    )


def test_a_rewritten_row_with_its_digest_invalidates_the_next(three: Connection) -> None:
    (first, *_) = decision_log.links(three, flow_run_id="run-1")
    forged = chain.digest(first) if first.kind == "approve" else None
    assert forged is None
    three.execute("update raw.decision_chain set kind = 'approve' where sequence = 1")
    changed = decision_log.links(three)[0]
    values = {"digest": chain.digest(changed)}
    three.execute("update raw.decision_chain set digest = $digest where sequence = 1", values)
    first_problem = broken(three)
    assert first_problem is not None
    assert (
        first_problem.sequence,
        "does not follow the one before it" in first_problem.problem,
    ) == (2, True)


def test_a_rewritten_last_row_differs_from_the_head(
    three: Connection,
) -> None:
    three.execute("update raw.decision_chain set kind = 'approve' where sequence = 3")
    forged = {"digest": chain.digest(decision_log.links(three)[-1])}
    three.execute("update raw.decision_chain set digest = $digest where sequence = 3", forged)
    first_problem = broken(three)
    assert first_problem is not None
    assert (first_problem.sequence, "differs from the chain's head" in first_problem.problem) == (
        3,
        True,
    )


def test_a_truncated_chain_with_its_head_differs_from_the_anchors(
    three: Connection,
) -> None:
    anchors = {
        f"version {link.sequence}": Head(link.sequence, link.digest).anchor
        for link in decision_log.links(three)
    }
    assert chain.first_loose(decision_log.links(three), anchors) is None
    three.execute("delete from raw.decision_chain where sequence = 3")
    three.execute(
        "update raw.decision_head set sequence = 2, digest ="
        " (select digest from raw.decision_chain where sequence = 2)"
    )
    assert broken(three) is None
    first_problem = chain.first_loose(decision_log.links(three), anchors)
    assert first_problem is not None
    assert (first_problem.sequence, "is missing: in version 3" in first_problem.problem) == (
        3,
        True,
    )


def test_a_rewritten_chain_differs_from_the_anchors(three: Connection) -> None:
    three.execute("update raw.decision_chain set digest = sha256('else') where sequence = 2")
    anchors = {"version 1": f"2 {'0' * 64}", "version 2": "3 no digest"}
    first_problem = chain.first_loose(decision_log.links(three), anchors)
    assert first_problem is not None
    assert (first_problem.sequence, "differs: in version 1" in first_problem.problem) == (2, True)
    first_problem = chain.first_loose(decision_log.links(three), {"version 2": "3 no digest"})
    assert first_problem is not None
    assert "is not an anchor" in first_problem.problem


def test_an_erased_text_leaves_the_chain_valid(three: Connection) -> None:
    three.execute("delete from raw.decision_words where sequence = 2 and field = 'comment'")
    assert broken(three) is None
    link = decision_log.links(three)[1]
    assert (link.comment, link.comment_salt, link.approver) == (None, None, "ada")


def test_texts_round_trip(three: Connection) -> None:
    assert decision_log.links(three)[1].comment == HOSTILE


def test_equal_texts_have_different_digests_so_that_guesses_can_not_be_checked(
    con: Connection,
) -> None:
    chains.append(con, event(), event(run="r2"))
    first, second = decision_log.links(con)
    assert first.approver_digest != second.approver_digest


def test_an_export_is_verified_with_sha256_alone(three: Connection, tmp_path: Path) -> None:
    path = tmp_path / "audit" / "decisions.jsonl"
    assert decision_log.export_links(path, decision_log.links(three)) == 3
    before = "0" * 64
    for text in path.read_text().splitlines():
        line = json.loads(text)
        assert hashlib.sha256(line["content"].encode()).hexdigest() == line["digest"]
        content = json.loads(line["content"])
        assert content["before"] == before
        for name, word in line["words"].items():
            salted = (word["salt"] + word["text"]).encode()
            assert hashlib.sha256(salted).hexdigest() == content[f"{name}_digest"]
        before = line["digest"]


def test_a_completely_rewritten_chain_differs_from_an_earlier_export(
    three: Connection, tmp_path: Path
) -> None:
    path = tmp_path / "decisions.jsonl"
    decision_log.export_links(path, decision_log.links(three))
    chains.append(three, event(run="r3"))
    assert decision_log.first_differing_line(path, decision_log.links(three)) is None
    for table in ("decision_chain", "decision_words", "decision_head"):
        three.execute(f"delete from raw.{table}")
    chains.append(three, event(), event(run="r2"), event(run="r3"), event(run="r4"))
    assert broken(three) is None
    assert decision_log.first_differing_line(path, decision_log.links(three)) == 1


def test_the_line_breaks_of_unicode_in_a_comment_part_no_line_of_an_export(
    con: Connection, tmp_path: Path
) -> None:
    path = tmp_path / "decisions.jsonl"
    chains.append(con, event(comment="pasted\u2028from\u2029a\x85page"), event(run="r2"))
    decision_log.export_links(path, decision_log.links(con))
    assert decision_log.first_differing_line(path, decision_log.links(con)) is None
