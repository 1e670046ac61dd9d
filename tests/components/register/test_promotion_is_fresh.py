"""A decision counts only while champion, policy and holdout are those of the evidence."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from components.chat import chat_templates
from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.models import base
from components.register import registry, tracking, version_tags
from components.register.logged_model import ServingParameters
from components.release.releases import NotApprovedError
from components.store import manifest, warehouse
from components.store.ledger import Decision
from flows import approval_loop, home_workloads, promote, settings
from flows import workload_file as configs
from flows.approval_loop import StaleEvidenceError
from flows.workload_file import Workload
from tests.support import versions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PASSED = Judgement("pass", ("better",), "correct_name")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def crown(name: str, adapter: Path, base_model: Path, evidence: str) -> None:
    version = registry.register_version(
        name,
        tracking.open_run(name, adapter.name, params={}, tags={}),
        adapter,
        served=ServingParameters(
            base=str(base_model),
            base_hash=base.content_hash(base_model),
            prompt_template=chat_templates.template_hash(base_model),
            precision="nf4",
            max_new_tokens=8,
        ),
        tags={version_tags.EVIDENCE_TAG: evidence, version_tags.ADAPTER_TAG: adapter.name},
        sign=lambda _: None,  # nobody loads it
    )
    registry.put_alias(name, version_tags.CHAMPION, version.number)


def approved(name: str, evidence: str) -> None:
    with warehouse.connect(settings.load().tables) as con, warehouse.transaction(con):
        decision_log.append_event(con, LogEvent("approve", name, evidence, "run", NOW, "ann"))
    versions.record_champion(name, 1, evidence)


def asked(home: Path, workload: str, opponent: str = "base") -> Evidence:
    """Write evidence as a turn does, measured on holdout ``v1``."""
    adapter = home / "adapters" / workload / "a2" / "adapter_model.safetensors"
    adapter.parent.mkdir(parents=True, exist_ok=True)
    adapter.write_text("weights")
    subject = versions.subject_of(workload, "a2", opponent)
    folder = home / "evidence" / workload / evidence_folder.digest(subject, PASSED, Policy())
    folder.mkdir(parents=True)
    return evidence_folder.finish(folder, subject, PASSED, Policy(), {}, brief="", now=NOW)


def workload_file(home: Path, name: str, base_model: Path, **gate: object) -> Workload:
    """Write the workload's file as it is by now."""
    path = home.parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"workload": name, "base": str(base_model), "gate": gate}))
    return configs.read_workload(path)


def freeze(home: Path, workload: str, version: str, now: datetime = NOW) -> None:
    """Leave a snapshot with that version of the holdout."""
    folder = home / "snapshots" / workload / f"snapshot-{version}"
    folder.mkdir(parents=True)
    body = {"workload": workload, "rows": {}, "holdout_version": version}
    manifest.write(folder, kind="snapshot", now=now, body=body)


def test_evidence_against_the_base_is_fresh_until_there_is_a_champion(
    home: Path, adapter: Path, base_model: Path
) -> None:
    evidence, workload = asked(home, "fresh"), workload_file(home, "fresh", base_model)
    approval_loop.require_fresh(evidence, workload)
    crown("fresh", adapter, base_model, "e1")
    with pytest.raises(NotApprovedError, match="somebody moved it"):  # so nothing went stale
        approval_loop.require_fresh(evidence, workload)
    approved("fresh", "e1")
    with pytest.raises(StaleEvidenceError, match="the champion is now version 1"):
        approval_loop.require_fresh(evidence, workload)
    approval_loop.require_fresh(asked(home, "fresh", opponent="1"), workload)


def test_evidence_against_a_demoted_champion_is_stale(home: Path, base_model: Path) -> None:
    workload = workload_file(home, "demoted", base_model)
    with pytest.raises(StaleEvidenceError, match=r"version 3.*now nobody, so the base answers"):
        approval_loop.require_fresh(asked(home, "demoted", opponent="3"), workload)


def test_a_promotion_killed_after_the_change_of_champion_may_end_whatever_changed(
    home: Path, adapter: Path, base_model: Path
) -> None:
    evidence = asked(home, "crowned")
    crown("crowned", adapter, base_model, evidence.digest)
    approved("crowned", evidence.digest)
    freeze(home, "crowned", "v2")
    approval_loop.require_fresh(evidence, workload_file(home, "crowned", base_model, floor=0.9))


def test_evidence_not_approved_under_the_current_rules_is_not_promoted(
    home: Path, base_model: Path
) -> None:
    evidence, workload = asked(home, "typed"), workload_file(home, "typed", base_model)
    home_workloads.adopt(settings.load(), "typed", home.parent / "typed.yaml")
    typed = Decision("typed", evidence.digest, "approve", "eve", "", "run", NOW)
    with pytest.raises(StaleEvidenceError, match="not approved under the current rules"):
        promote.promote_task.fn(workload, evidence, typed)
    assert registry.champion_version("typed") is None


def test_evidence_that_another_policy_judged_is_stale_and_says_what_changed(
    home: Path, base_model: Path
) -> None:
    evidence = asked(home, "policed")
    approval_loop.require_fresh(evidence, workload_file(home, "policed", base_model, floor=0.5))
    changed = workload_file(home, "policed", base_model, floor=0.6)
    with pytest.raises(StaleEvidenceError, match=r"changed \(floor: 0.5, now 0.6\)"):
        approval_loop.require_fresh(evidence, changed)


def test_evidence_on_a_holdout_that_has_grown_is_stale(home: Path, base_model: Path) -> None:
    evidence, workload = asked(home, "held"), workload_file(home, "held", base_model)
    freeze(home, "held", "v1")
    approval_loop.require_fresh(evidence, workload)
    freeze(home, "held", "v2", datetime(2026, 1, 2, tzinfo=UTC))
    with pytest.raises(StaleEvidenceError, match="holdout version v1, but the newest is v2"):
        approval_loop.require_fresh(evidence, workload)
