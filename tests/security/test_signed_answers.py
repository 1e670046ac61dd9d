"""Attack: somebody holds the answer on its way (full access to Prefect's API or database).

A flipped, moved, replayed or laxer answer changes no champion: it is refused when it is heard, does
not count when it takes effect, and `flywheel audit --verify` names it in the chain.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest

from components.decide import chain, decision_export, decision_log, statement
from components.decide.approvers import OPEN, ApprovalRules
from components.decide.record_answer import TypedAnswer
from components.store import warehouse
from components.store.warehouse import Connection
from tests.support import signed_answers, ssh, warehouses
from tests.support.signed_answers import NO, NOW, PROOF, QUESTION, YES, Desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return signed_answers.desk(tmp_path_factory.mktemp("desk"), "ada", "bob", "eve")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "warehouse.duckdb"
    warehouses.create(path)
    return path


@pytest.fixture
def con(empty: Path, tmp_path: Path) -> Iterator[Connection]:
    with warehouse.connect(Path(shutil.copy(empty, tmp_path))) as con:
        yield con


def decided(con: Connection, desk: Desk) -> str | None:
    found = decision_log.decision_on(con, "e1", desk.rules)
    return found.decision if found else None


def test_a_signed_answer_is_taken_and_the_record_says_how_the_name_was_proved(
    con: Connection, desk: Desk
) -> None:
    assert desk.hear(con, desk.sign(con, YES)) == ("approve", "")
    assert decided(con, desk) == "approve"
    link = decision_log.links(con)[-1]
    assert decision_log.proof_of(link) == "signature"
    assert decision_log.first_unproved(decision_log.links(con)) is None
    assert desk.hear(con, desk.sign(con, NO), attempt=2) == ("reject", "safety")
    assert decision_log.first_unproved(decision_log.links(con)) is None
    assert decided(con, desk) == "reject"


@pytest.mark.parametrize("comment", ["no reason given", "zero\0", " blanks ", ""])
def test_a_comment_is_what_was_signed_whatever_it_says(
    con: Connection, desk: Desk, comment: str
) -> None:
    no = TypedAnswer("reject", NO.approver, comment, reason="safety")
    assert desk.hear(con, desk.sign(con, no)) == ("reject", "safety")
    assert decided(con, desk) == "reject"
    assert decision_log.first_unproved(decision_log.links(con)) is None


def test_a_rejection_that_was_flipped_to_an_approval_is_refused(
    con: Connection, desk: Desk
) -> None:
    no = desk.sign(con, NO)
    flipped = replace(no, decision="approve")
    assert desk.hear(con, flipped) == ("refused", "signature_other")
    line, _, rest = no.signature.partition("\n")
    said = statement.read(line)
    forged = replace(said, decision="approve", reason="").text
    forged_answer = replace(no, decision="approve", signature=f"{forged}\n{rest}")
    assert desk.hear(con, forged_answer, attempt=2) == ("refused", "signature_wrong")
    assert decided(con, desk) is None


def test_a_signed_time_has_one_spelling(con: Connection, desk: Desk) -> None:
    line = statement.read(desk.sign(con, YES).signature.partition("\n")[0])
    for at in ("2026-1-2T3:4:5Z", "2026-01-02T03:04:5Z"):
        with pytest.raises(ValueError, match="expected one of the form"):
            statement.read(replace(line, at=at).text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"comment": "it is fine"}, "signature_other", id="comment"),
        pytest.param({"reason": "cost"}, "signature_other", id="reason"),
        pytest.param({"blame": "client=shop"}, "signature_other", id="blame"),
        pytest.param({"approver": "bob"}, "signature_other", id="name"),
        pytest.param({"signature": ""}, "signature_missing", id="no-signature"),
        pytest.param({"signature": "yes"}, "signature_unreadable", id="not-one"),
    ],
)
def test_words_that_were_changed_on_the_way_are_refused(
    con: Connection, desk: Desk, change: dict[str, str], said: str
) -> None:
    changed = replace(desk.sign(con, NO), **change)  # pyright: ignore[reportArgumentType] - texts
    assert desk.hear(con, changed) == ("refused", said)
    assert decided(con, desk) is None


def test_a_signature_answers_no_other_question_evidence_or_adapter(
    con: Connection, desk: Desk
) -> None:
    yes = desk.sign(con, YES)
    later = replace(QUESTION, flow_run_id="run-2")
    assert desk.hear(con, yes, question=later) == ("refused", "signature_other")
    other = replace(PROOF, adapter="b" * 64)
    assert desk.hear(con, yes, proof=other) == ("refused", "signature_other")
    other = replace(PROOF, evidence="e1" + "1" * 62)  # the same 64 bits, other evidence
    assert desk.hear(con, yes, proof=other, attempt=2) == ("refused", "signature_other")
    assert decided(con, desk) is None


def test_the_key_of_another_or_of_nobody_proves_nothing(
    con: Connection, desk: Desk, tmp_path: Path
) -> None:
    assert desk.hear(con, desk.sign(con, YES, key="eve")) == ("refused", "signature_key")
    own = replace(desk, keys={"ada": ssh.keygen(tmp_path / "mine")})
    assert desk.hear(con, own.sign(con, YES), attempt=2) == ("refused", "signature_key")
    early = desk.sign(con, YES, at=NOW + timedelta(hours=1))
    assert desk.hear(con, early, attempt=3) == ("refused", "signature_early")
    expired = replace(
        desk.rules,
        people=tuple(
            replace(
                one, signers=tuple(replace(k, valid_before=NOW - timedelta(1)) for k in one.signers)
            )
            for one in desk.rules.people
        ),
    )
    was = replace(desk, rules=expired)
    assert was.hear(con, was.sign(con, YES), attempt=4) == ("refused", "signature_key")
    dated_back = was.sign(con, YES, at=NOW - timedelta(days=2))
    assert was.hear(con, dated_back, attempt=5) == ("refused", "signature_key")


def test_a_decision_under_laxer_rules_counts_neither_now_nor_in_the_chain(
    con: Connection, desk: Desk
) -> None:
    assert desk.hear(con, YES, rules=OPEN) == ("approve", "")
    assert decision_log.decision_on(con, "e1", OPEN) is not None
    assert decided(con, desk) is None
    desk.link(con)  # the workload's own rules
    assert (
        decision_log.first_unproved(decision_log.links(con)) is None
    )  # it was under open rules, openly
    desk.hear(con, desk.sign(con, YES), attempt=2)
    assert decided(con, desk) == "approve"
    less = ApprovalRules("signature", people=desk.rules.people[1:])
    assert decision_log.decision_on(con, "e1", less) is None  # ada is not listed any more


def write_anew(con: Connection, **changes: object) -> None:
    """Rewrite the last link and the head as somebody does who can write the warehouse."""
    link = decision_log.links(con)[-1]
    texts = {name: str(value) for name, value in changes.items() if name in link.texts}
    sealed = {
        f"{name}_digest": chain.seal(str(getattr(link, f"{name}_salt")), text)
        for name, text in texts.items()
    }
    forged = replace(link, **changes, **sealed)  # pyright: ignore[reportArgumentType] - of its fields
    forged = replace(forged, digest=chain.digest(forged))
    row = asdict(forged)
    columns = ("kind", "reason", "body", "digest", *(f"{name}_digest" for name in link.texts))
    sets = ", ".join(f"{name} = ${name}" for name in columns)
    values = {name: row[name] for name in columns} | {"sequence": link.sequence}
    con.execute(f"update raw.decision_chain set {sets} where sequence = $sequence", values)
    for name, text in texts.items():
        con.execute(
            "update raw.decision_words set text = $text where sequence = $n and field = $name",
            {"text": text, "n": link.sequence, "name": name},
        )
    con.execute("update raw.decision_head set digest = $digest", {"digest": forged.digest})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            {"kind": "approve", "reason": ""}, "says another decision, reason", id="flipped"
        ),
        pytest.param({"comment": "lovely"}, "says another comment", id="comment"),
        pytest.param({"approver": "bob"}, "key that is not bob's", id="name"),
        pytest.param({"body": ""}, "not made under the rules that were in force", id="no-proof"),
    ],
)
def test_a_chain_that_was_written_anew_without_the_key_holds_by_itself_and_is_found(
    con: Connection, desk: Desk, changes: dict[str, object], said: str
) -> None:
    desk.hear(con, desk.sign(con, NO))
    write_anew(con, **changes)
    links = decision_log.links(con)
    assert chain.first_broken(links, decision_log.read_head(con)) is None  # its digests do hold
    broken = decision_log.first_unproved(links)
    assert broken is not None
    assert said in broken.problem
    assert decided(con, desk) != "approve"


def test_the_line_that_the_form_shows_signs_with_openssh_and_coreutils_alone(
    con: Connection, desk: Desk, tmp_path: Path
) -> None:
    from components.decide import record_answer

    form = record_answer.expected_statement(QUESTION, YES, PROOF, desk.link(con).digest)
    line = statement.command(form, str(desk.keys["ada"])).replace("comment=''", "comment='good'")
    run = subprocess.run(
        ["/bin/sh", "-c", line], env=bare(tmp_path), capture_output=True, text=True, check=False
    )
    said = statement.split(run.stdout)
    assert said is not None, run.stderr
    now = statement.read(said.line).signed_at
    pasted = replace(YES, signature=run.stdout.replace("\n", "\r\n"))  # as a browser sends it
    link = record_answer.record(con, QUESTION, pasted, desk.rules, PROOF, now=now)
    assert (link.kind, link.reason) == ("approve", "")


def bare(folder: Path) -> dict[str, str]:
    """Make a PATH that holds ssh-keygen and coreutils, and nothing of Flywheel."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("ssh-keygen", "cat", "cut", "date", "sha256sum", "printf"):
        (tools / name).symlink_to(str(shutil.which(name)))
    return {"PATH": str(tools), "HOME": str(folder)}


def without_flywheel(root: Path) -> list[str]:
    """Make a root with a shell, cat and ssh-keygen, and nothing else; say how to run a line there.

    It has no devices, no Python and nothing of this checkout.
    """
    for name in ("sh", "cat", "ssh-keygen"):
        place(root, Path(program(name)), Path("/bin") / name)
    (root / "dev").mkdir()
    (root / "dev/null").touch()
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("auditor:x:0:0::/:/bin/sh\n")
    entering = [] if os.geteuid() == 0 else [program("unshare"), "--map-root-user"]
    return [*entering, program("chroot"), str(root), "/bin/sh", "-c"]


def program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"this test wants {name}"
    return found


def place(root: Path, file: Path, at: Path) -> None:
    """Put a program and the libraries that it is linked with below a root."""
    linked = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=True)
    for line in linked.stdout.splitlines():
        found = re.search(r"(/\S+) \(0x", line)
        if found is not None:
            put(root, Path(found[1]), Path(found[1]))
    put(root, file, at)


def put(root: Path, file: Path, at: Path) -> None:
    to = root / at.relative_to("/")
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file.resolve(), to)


def test_the_export_is_verified_with_ssh_keygen_alone_in_a_root_without_flywheel(
    con: Connection, desk: Desk, tmp_path: Path
) -> None:
    desk.hear(con, desk.sign(con, NO))
    desk.hear(con, desk.sign(con, replace(YES, approver="bob")), attempt=2)
    path = tmp_path / "chain.jsonl"
    links = decision_log.links(con)
    decision_export.export_links(path, links)
    assert decision_export.export_signed(path, links) == 2
    root = tmp_path / "root"
    command = without_flywheel(root)
    alone = root / "export"
    shutil.copytree(decision_export.signed_folder(path), alone)
    (lines,) = re.findall(r"```sh\n(.*?)```", (alone / "README.md").read_text(), re.DOTALL)

    def verify() -> "subprocess.CompletedProcess[str]":
        line = f"PATH=/bin; cd /export || exit 2\n{lines}"
        return subprocess.run([*command, line], env={}, capture_output=True, text=True, check=False)

    said = verify()
    assert said.stdout.splitlines()[-1] == "verified 2", said.stderr
    first, second = sorted(alone.glob("*.json"))
    signature = first.with_name(f"{first.name}.sig")
    signed, other = first.read_text(), second.with_name(f"{second.name}.sig").read_text()
    own = signature.read_text()
    for file, changed in (
        (first, signed.replace('"reject"', '"approve"')),
        (first, signed.replace('"ada"', '"bob"')),
        (first, signed + "\n"),
        (signature, other),
    ):
        before = file.read_text()
        file.write_text(changed)
        assert verify().returncode == 1
        file.write_text(before)
    assert (first.read_text(), signature.read_text()) == (signed, own)
    assert verify().returncode == 0


def test_the_readme_has_the_lines_that_an_export_has() -> None:
    readme = Path(statement.__file__).with_name("README.md").read_text()
    assert decision_export.VERIFY.strip() in readme


def test_a_guess_at_what_was_erased_finds_nothing_to_be_tried_on(
    con: Connection, desk: Desk
) -> None:
    from components.erase import subject_rows
    from components.erase.subject import Subject

    about = replace(YES, comment="customer-77 was unhappy")
    desk.hear(con, desk.sign(con, about))
    subject_rows.blank_comments(con, Subject("customer-77"), ())
    link = decision_log.links(con)[-1]
    assert (link.comment, link.document) == (None, None)
    assert link.approver == "ada"
    assert chain.first_broken(decision_log.links(con), decision_log.read_head(con)) is None
    assert (
        decision_log.first_unproved(decision_log.links(con)) is None
    )  # and it is counted as erased


def test_nobody_else_can_read_an_answer_back_into_another_name(con: Connection, desk: Desk) -> None:
    """Two people, one signature: the same words under two names are one approval, not four eyes."""
    four = replace(desk.rules, four_eyes=True)
    eyes = replace(desk, rules=four)
    yes = eyes.sign(con, YES)
    assert eyes.hear(con, yes) == ("approve", "")
    assert eyes.hear(con, replace(yes, approver="bob"), attempt=2)[0] == "refused"
    assert decision_log.decision_on(con, "e1", four) is None
    bob = eyes.sign(con, TypedAnswer("approve", "bob"))
    assert eyes.hear(con, bob, attempt=3) == ("approve", "")
    assert decision_log.decision_on(con, "e1", four) is not None
