"""A challenger is registered with its lineage, and promoted with the decision."""

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components import scorecard
from components.chat import chat_templates
from components.evaluate.settings import EvaluationSettings
from components.evaluate.task_metrics import CALL_METRICS
from components.gate.evidence_folder import Evidence, EvidenceSubject
from components.gate.judgement import Judgement
from components.models import base as bases
from components.register import registry, tracking
from components.register.registry import Aliases
from components.release import release_state, releases
from components.store.ledger import Decision
from components.store.manifest import folder_digest
from flows import promote, promotion
from flows.settings import Settings
from flows.workload_file import Workload
from tests.support import adapter_folders, cards, versions, warehouses
from tests.support.adapter_folders import NOW

NAME = "tools"


@pytest.fixture
def home(tmp_path: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home with a trained and measured adapter."""
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path))
    snapshot = adapter_folders.snapshot(tmp_path / "5af1")
    adapter_folders.adapter(base_model, snapshot, tmp_path / "adapters" / NAME / "ada9")
    conditions = {
        **cards.CONDITIONS,
        "settings": EvaluationSettings(precision="fp32", max_new_tokens=8).model_dump(mode="json"),
    }
    body = {"base": "b", "adapter": "ada9", "task": scorecard.HOLDOUT, "conditions": conditions}
    folder = tmp_path / "scorecards" / NAME / "c1"
    scorecard.write(folder, [cards.sample(0, 1.0)], CALL_METRICS, body=body, now=NOW)
    tracking.open_run(NAME, "ada9", params={}, tags={})
    return Settings(tmp_path, 4200, 5000)


def test_a_challenger_has_its_lineage_and_its_card_and_a_champion_the_decision_besides(
    home: Settings, base_model: Path
) -> None:
    from mlflow.pyfunc import load_model

    base, template = bases.content_hash(base_model), chat_templates.template_hash(base_model)
    subject = EvidenceSubject(NAME, "5af1", "v1-abc", base, "ada9", "base", "c1", "c0")
    evidence = Evidence(home.evidence / NAME / "e1", subject, Judgement("pass", ("b",), "correct"))
    workload = Workload.model_validate({"workload": NAME, "base": str(base_model)}, context=Path())

    changed = replace(evidence, subject=replace(subject, adapter_bytes="0" * 64))
    with pytest.raises(releases.ChangedAdapterError, match="its bytes have the digest"):
        promote.challenge_task.fn(workload, changed)
    adapter = folder_digest(home.adapters / NAME / "ada9")
    evidence = replace(evidence, subject=replace(subject, adapter_bytes=adapter))
    promote.challenge_task.fn(workload, evidence)
    assert registry.read_aliases(NAME) == Aliases(challenger="1")
    kept = MlflowClient().get_model_version(NAME, "1")
    made_from = {
        "flywheel.evidence": "e1",
        "flywheel.adapter": "ada9",
        "flywheel.snapshot": "5af1",
        "flywheel.holdout_version": "v1-abc",
        "flywheel.base": base,
        "flywheel.prompt_template": template,
        "flywheel.scorecard": "c1",
        "flywheel.commit": "c0ffee",
    }
    assert kept.tags == made_from
    assert kept.description
    assert kept.description.startswith("# tools adapter ada9\n")
    assert "| correct name: " in kept.description  # the scores of now

    versions.say_yes(home, NAME, 1)
    decision = Decision(NAME, "e1", "approve", "ann", "good", "run", NOW)
    promotion.promote_version(workload, evidence, decision, lambda: None)
    crowned = promotion.promote_version(
        workload, evidence, decision, lambda: None
    )  # repeated by a crash
    assert registry.read_aliases(NAME) == Aliases(champion="1")
    assert crowned.version == registry.champion_version(NAME)
    decided = {"decision": "approve", "approver": "ann", "comment": "good"}
    tags = MlflowClient().get_model_version(NAME, "1").tags
    with warehouses.connect(home.tables) as con:
        decided["link"] = release_state.read_state(con, NAME).changes[-1].head.anchor
    assert tags == made_from | {f"flywheel.{name}": value for name, value in decided.items()}
    model = load_model(f"models:/{NAME}@champion")
    assert model.predict(model.input_example)["object"] == "chat.completion"
