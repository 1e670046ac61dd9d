"""Evidence is bound to everything a decision depends on, and reads back as written."""

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.gate import evidence_folder, judge, policy
from components.gate.evidence_folder import EvidenceSubject
from components.gate.policy import Guard, Policy
from components.scorecard import HOLDOUT
from components.store import manifest
from tests.support.cards import pair

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECT = EvidenceSubject("support", "s1", "v1", "b1", "a1", "base", "c1", "o1")
POLICY = Policy()
CHALLENGER, OPPONENT = pair(40, 2, 20, 10)
JUDGEMENT = judge.judge({HOLDOUT: CHALLENGER}, {HOLDOUT: OPPONENT}, POLICY)
DIGEST = evidence_folder.digest(SUBJECT, JUDGEMENT, POLICY)


def finish(folder: Path) -> evidence_folder.Evidence:
    folder.mkdir(parents=True)
    scores = evidence_folder.scores(CHALLENGER, OPPONENT)
    return evidence_folder.finish(
        folder, SUBJECT, JUDGEMENT, POLICY, scores, brief="# Page\n", now=NOW
    )


def test_equal_inputs_have_equal_digests() -> None:
    ours, theirs = pair(40, 2, 20, 10)
    again = judge.judge({HOLDOUT: ours}, {HOLDOUT: theirs}, POLICY)
    assert evidence_folder.digest(replace(SUBJECT), again, Policy()) == DIGEST


@pytest.mark.parametrize("name", [field.name for field in fields(EvidenceSubject)])
def test_a_different_subject_changes_the_digest(name: str) -> None:
    value: Any = ("other",) if name in ("guard_scorecards", "anchor_scorecards") else "other"
    other = replace(SUBJECT, **{name: value})
    assert evidence_folder.digest(other, JUDGEMENT, POLICY) != DIGEST


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metric", "correct"),
        ("alpha", 0.01),
        ("floor", 0.4),
        ("abstention_margin", None),
        ("min_documents", 50),
        ("looks", 5),
        ("guards", (Guard(metric="name", margin=0.1),)),
    ],
)
def test_a_different_policy_changes_the_digest(name: str, value: object) -> None:
    other = POLICY.model_copy(update={name: value})
    assert evidence_folder.digest(SUBJECT, JUDGEMENT, other) != DIGEST


def test_a_different_look_changes_the_digest() -> None:
    later = judge.judge({HOLDOUT: CHALLENGER}, {HOLDOUT: OPPONENT}, POLICY, look=2)
    assert evidence_folder.digest(SUBJECT, later, POLICY) != DIGEST


def test_a_different_verdict_changes_the_digest() -> None:
    other = replace(JUDGEMENT, outcome="fail")
    assert evidence_folder.digest(SUBJECT, other, POLICY) != DIGEST


def test_finished_evidence_reads_back_equal(tmp_path: Path) -> None:
    written = finish(tmp_path / DIGEST)
    assert evidence_folder.read(tmp_path / DIGEST) == written
    assert written.digest == DIGEST
    assert written.judgement == JUDGEMENT
    assert (written.folder / evidence_folder.BRIEF).read_text() == "# Page\n"


def test_finished_evidence_names_the_whole_policy_that_judged_it(tmp_path: Path) -> None:
    judged_by = evidence_folder.policy(finish(tmp_path / DIGEST).folder)
    assert policy.changes(judged_by, POLICY.to_json()) == ()


def test_evidence_of_an_older_version_with_fewer_fields_is_read(tmp_path: Path) -> None:
    folder = finish(tmp_path / DIGEST).folder
    verdict = json.loads((folder / evidence_folder.VERDICT).read_text())
    del verdict["subject"]["remarks"], verdict["policy"]["looks"]
    content = {name: verdict[name] for name in ("subject", "judgement", "policy")}
    older = folder.with_name(manifest.digest(content))
    older.mkdir()
    (older / evidence_folder.VERDICT).write_text(json.dumps(verdict))
    manifest.write(older, kind="evidence", now=NOW, body=verdict)
    assert evidence_folder.read(older).subject == SUBJECT


def test_the_manifest_covers_the_shown_files(tmp_path: Path) -> None:
    folder = finish(tmp_path / DIGEST).folder
    assert manifest.read(folder)["files"] == {
        name: manifest.file_digest(folder / name) for name in ("brief.md", "verdict.json")
    }


def test_unfinished_evidence_is_not_read(tmp_path: Path) -> None:
    folder = finish(tmp_path / DIGEST).folder
    (folder / manifest.NAME).unlink()
    with pytest.raises(FileNotFoundError):
        evidence_folder.read(folder)


def test_scores_are_listed_side_by_side_and_missing_is_not_zero() -> None:
    challenger, opponent = pair(3, 1, 0, 0)
    scores = evidence_folder.scores(challenger, opponent)
    wilson = {"low": pytest.approx(0.3006, abs=1e-4), "high": pytest.approx(0.9544, abs=1e-4)}
    assert scores["name"] == {
        "n": 4,
        "clusters": 4,
        "challenger": 0.75,
        "opponent": 0.25,
        **wilson,
    }
    bare, _ = pair(0, 0, 0, 0)
    nothing = dict.fromkeys(("challenger", "low", "high", "opponent"))
    assert evidence_folder.scores(bare, bare)["name"] == {"n": 0, "clusters": 0, **nothing}


def test_an_edited_verdict_is_rejected(tmp_path: Path) -> None:
    folder = finish(tmp_path / DIGEST).folder
    verdict = (folder / evidence_folder.VERDICT).read_text()
    (folder / evidence_folder.VERDICT).write_text(verdict.replace('"a1"', '"another"'))
    with pytest.raises(ValueError, match=r"verdict\.json .* was changed"):
        evidence_folder.read(folder)


def test_an_edited_verdict_with_a_matching_manifest_is_rejected(tmp_path: Path) -> None:
    folder = finish(tmp_path / DIGEST).folder
    verdict = (folder / evidence_folder.VERDICT).read_text()
    (folder / evidence_folder.VERDICT).write_text(verdict.replace('"a1"', '"another"'))
    (folder / manifest.NAME).unlink()
    manifest.write(folder, kind="evidence", now=NOW, body={})
    with pytest.raises(ValueError, match="its contents have the digest"):
        evidence_folder.read(folder)


def test_an_edited_page_is_rejected(tmp_path: Path) -> None:
    folder = finish(tmp_path / DIGEST).folder
    (folder / evidence_folder.BRIEF).write_text("# All is well")
    with pytest.raises(ValueError, match=r"brief\.md .* was changed"):
        evidence_folder.read(folder)


def test_the_digest_is_a_prefix_of_a_whole_sha256(tmp_path: Path) -> None:
    finish(tmp_path / DIGEST)
    whole = evidence_folder.whole_digest(tmp_path / DIGEST)
    assert len(whole) == 64
    assert whole.startswith(DIGEST)
