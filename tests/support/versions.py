"""Versions in MLflow as promotions leave them there."""

from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory

from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus

from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.gate.evidence_folder import Evidence, EvidenceSubject
from components.gate.judgement import Judgement
from components.register import registry, version_tags
from components.release import champion_alias, champions, release_state, releases
from components.store import manifest, warehouse
from components.store.ledger import Decision
from flows import promotion, release_home, settings
from flows.settings import Settings
from flows.workload_file import Workload
from tests.support import warehouses

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def ask(name: str, number: int, source: str = "file:///nowhere", model: str = "") -> Evidence:
    """Register a challenger as a promotion does before it asks."""
    tags = {version_tags.EVIDENCE_TAG: f"e{number}", version_tags.ADAPTER_TAG: f"a{number}"}
    client = MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    made = registry.as_version(
        client.create_model_version(name, source, tags=tags, model_id=model or None)
    )
    champion_alias.set_challenger(made)
    subject = subject_of(name, f"a{number}")
    return Evidence(Path(f"e{number}"), subject, Judgement("pass", ("better",), "correct_name"))


def subject_of(name: str, adapter: str, opponent: str = "base") -> EvidenceSubject:
    """Return what evidence on an adapter is about; on its bytes, where the home has it."""
    folder = settings.load().adapters / name / adapter
    adapter_bytes = manifest.folder_digest(folder) if folder.exists() else ""
    parts = (name, "s1", "v1", "b1", adapter, opponent, "c1", "o1")
    return EvidenceSubject(*parts, adapter_bytes=adapter_bytes)


def ask_with_files(name: str, number: int) -> Evidence:
    """Register a challenger whose files are at MLflow, signed, and its adapter in the home."""
    model_id = log_files(name, number)
    return ask(name, number, f"models:/{model_id}", model_id)


def log_files(name: str, number: int) -> str:
    """Write an adapter into the home and, signed, into a logged model; return the model's id."""
    home, client = settings.load(), MlflowClient()
    experiment = client.get_experiment_by_name("files")
    model = client.create_logged_model(
        experiment.experiment_id if experiment else client.create_experiment("files")
    )
    adapter = home.adapters / name / f"a{number}"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_text(f"weights {number}")
    with TemporaryDirectory() as scratch:
        copytree(adapter, Path(scratch) / "artifacts" / adapter.name)
        (Path(scratch) / "MLmodel").write_text("model_uuid: none\n")
        releases.folder_signer(home.keys)(Path(scratch))
        client.log_model_artifacts(model.model_id, scratch)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def decide(name: str, number: int, word: str = "approve") -> Decision:
    return Decision(name, f"e{number}", word, "ann", "good", "run", NOW)  # pyright: ignore


def workload(name: str, base_model: Path) -> Workload:
    given = {"workload": name, "base": base_model}
    return Workload.model_validate(given, context=base_model.parent)


def say_yes(home: Settings, name: str, number: int) -> None:
    """Put the approval into the chain, as a promotion does when it has heard it."""
    with warehouses.connect(home.tables) as con, warehouse.transaction(con):
        _append_yes(con, name, number)


def approve(name: str, number: int, base_model: Path) -> None:
    found = ask_with_files(name, number)
    say_yes(settings.load(), name, number)
    made = workload(name, base_model)
    promotion.promote_version(made, found, decide(name, number), lambda: None)


def record_champion(name: str, number: int, evidence: str) -> None:
    """Make a registered and approved version champion, as a promotion does."""
    home = settings.load()
    with warehouses.connect(home.tables) as con, warehouse.transaction(con):
        _append_promotion(con, name, number, evidence)
    champions.project(release_home.of(home), name)


def crowned(name: str, count: int, home: Settings) -> None:
    """Approve so many versions, one after the other; what follows from it is projected once."""
    for number in range(1, count + 1):
        ask(name, number)
    with warehouses.connect(home.tables) as con, warehouse.transaction(con):
        for number in range(1, count + 1):
            _append_yes(con, name, number)
            _append_promotion(con, name, number, f"e{number}")
    champions.project(release_home.of(home), name)


def _append_yes(con: warehouse.Connection, name: str, number: int) -> None:
    run = f"run-{number}"
    decision_log.append_event(con, LogEvent("approve", name, f"e{number}", run, NOW, "ann", "good"))


def _append_promotion(con: warehouse.Connection, name: str, number: int, evidence: str) -> None:
    keys = (name, str(number), evidence, f"a{number}")
    change = release_state.plan_promotion(*keys, by="ann", reason="good")
    release_state.append_change(con, change, NOW)
