"""Changed, deleted, added or moved decisions are detected, and the first invalid link is named."""

import hashlib
import json
from pathlib import Path

import pytest

from components.decide import chain, decision_export, decision_log
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
    assert links[1].comment == HOSTILE
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


LINKS, WORDS = "raw.decision_chain", "raw.decision_words"

TAMPERINGS = {
    f"update {LINKS} set kind = 'approve' where sequence = 3": (3, "was changed: its content"),
    f"update {LINKS} set decided_at = decided_at + interval 1 day where sequence = 2": (
        *(2, "was changed: its content"),
    ),
    f"update {WORDS} set text = 'bob' where sequence = 2 and field = 'approver'": (
        *(2, "its approver is not the one that was recorded"),
    ),
    f"update {WORDS} set text = '' where sequence = 1 and field = 'comment'": (
        *(1, "its comment is not the one that was recorded"),
    ),
    f"delete from {LINKS} where sequence = 2": (2, "is missing: the next one there is 3"),
    f"delete from {LINKS} where sequence = 1": (1, "is missing: the next one there is 2"),
    f"delete from {LINKS} where sequence = 3": (3, "is missing: the chain's head is 3"),
    f"delete from {LINKS}": (1, "is missing: the chain's head is 3"),
    f"update {LINKS} set sequence = sequence - 10 where sequence in (2, 3);"
    f"update {LINKS} set sequence = -5 - sequence where sequence < 0": (
        *(2, "was changed: its content"),
    ),
    f"insert into {LINKS} select * replace (4 as sequence) from {LINKS} where sequence = 3": (
        *(4, "was changed: its content"),
    ),
    "delete from raw.decision_head": (1, "was not appended by Flywheel"),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_tampering_is_detected_and_the_first_invalid_row_is_named(
    three: Connection, tampering: str
) -> None:
    three.execute(tampering)
    require_problem(broken(three), *TAMPERINGS[tampering])


def require_problem(first: chain.Broken | None, sequence: int, problem: str) -> None:
    assert first is not None
    assert (first.sequence, problem in first.problem) == (sequence, True), first


def test_a_rewritten_row_with_its_digest_invalidates_the_next(three: Connection) -> None:
    three.execute("update raw.decision_chain set kind = 'approve' where sequence = 1")
    changed = decision_log.links(three)[0]
    values = {"digest": chain.digest(changed)}
    three.execute("update raw.decision_chain set digest = $digest where sequence = 1", values)
    require_problem(broken(three), 2, "does not follow the one before it")


def test_a_rewritten_last_row_differs_from_the_head(
    three: Connection,
) -> None:
    three.execute("update raw.decision_chain set kind = 'approve' where sequence = 3")
    forged = {"digest": chain.digest(decision_log.links(three)[-1])}
    three.execute("update raw.decision_chain set digest = $digest where sequence = 3", forged)
    require_problem(broken(three), 3, "differs from the chain's head")


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
    loose = chain.first_loose(decision_log.links(three), anchors)
    require_problem(loose, 3, "is missing: in version 3")


def test_a_rewritten_chain_differs_from_the_anchors(three: Connection) -> None:
    three.execute("update raw.decision_chain set digest = sha256('else') where sequence = 2")
    anchors = {"version 1": f"2 {'0' * 64}", "version 2": "3 no digest"}
    links = decision_log.links(three)
    require_problem(chain.first_loose(links, anchors), 2, "differs: in version 1")
    loose = chain.first_loose(links, {"version 2": "3 no digest"})
    require_problem(loose, 0, "is not an anchor")


def test_an_erased_text_leaves_the_chain_valid(three: Connection) -> None:
    three.execute("delete from raw.decision_words where sequence = 2 and field = 'comment'")
    assert broken(three) is None
    link = decision_log.links(three)[1]
    assert (link.comment, link.comment_salt, link.approver) == (None, None, "ada")


def test_equal_texts_have_different_digests_so_that_guesses_can_not_be_checked(
    con: Connection,
) -> None:
    chains.append(con, event(), event(run="r2"))
    first, second = decision_log.links(con)
    assert first.approver_digest != second.approver_digest


def test_an_export_is_verified_with_sha256_alone(three: Connection, tmp_path: Path) -> None:
    path = tmp_path / "audit" / "decisions.jsonl"
    assert decision_export.export_links(path, decision_log.links(three)) == 3
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
    decision_export.export_links(path, decision_log.links(three))
    chains.append(three, event(run="r3"))
    assert decision_export.first_differing_line(path, decision_log.links(three)) is None
    for table in ("decision_chain", "decision_words", "decision_head"):
        three.execute(f"delete from raw.{table}")
    chains.append(three, event(), event(run="r2"), event(run="r3"), event(run="r4"))
    assert broken(three) is None
    assert decision_export.first_differing_line(path, decision_log.links(three)) == 1


def test_the_line_breaks_of_unicode_in_a_comment_part_no_line_of_an_export(
    con: Connection, tmp_path: Path
) -> None:
    path = tmp_path / "decisions.jsonl"
    chains.append(con, event(comment="pasted\u2028from\u2029a\x85page"), event(run="r2"))
    decision_export.export_links(path, decision_log.links(con))
    assert decision_export.first_differing_line(path, decision_log.links(con)) is None
