"""Attack: with full MLflow credentials, something else than what was approved is to be served.

Each attack is found and named, by the audit, by maintenance and by whoever loads the champion, and
nothing of it is loaded.
"""

import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient, get_tracking_uri
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import load_model
from prefect.logging import disable_run_logger
from typer.testing import CliRunner

from components import scorecard
from components.decide import decision_log
from components.decide.decision_log import LogEvent
from components.evaluate.settings import EvaluationSettings
from components.evaluate.task_metrics import CALL_METRICS
from components.gate import evidence_folder
from components.gate.evidence_folder import Evidence, EvidenceSubject
from components.gate.judgement import Judgement
from components.gate.policy import Policy
from components.models import base as bases
from components.models import model_signature
from components.models.model_signature import ModelSignatureError
from components.register import logged_model, registry, tracking, version_tags
from components.release import champions, releases
from components.release.rollback_rules import Order
from components.store import warehouse
from components.store.ledger import Decision
from components.store.manifest import folder_digest
from flows import export, maintenance, promote, promotion, release_home
from flows.cli import main
from flows.export import ExportRequest
from flows.settings import Settings
from flows.workload_file import Workload
from tests.support import adapter_folders, cards, mlflow_stores, tiny
from tests.support.adapter_folders import NOW

NAME = "tools"
PASSED = Judgement("pass", ("better",), "correct_name")


@dataclass(frozen=True)
class Served:
    """A home in which version 1 and then 2 was approved and crowned, and 3 waits for an answer."""

    home: Settings
    workload: Workload

    def objections(self) -> str:
        return "; ".join(releases.release_status(release_home.of(self.home), NAME).objections)

    def located(self, number: str) -> Path:
        """Where MLflow keeps the version's files, which its credentials can write."""
        model = MlflowClient().get_logged_model(registry.logged_model_id(NAME, number))
        return Path(model.artifact_location.removeprefix("file://"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_stores.create(root))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
        patch.setenv("FLYWHEEL_HOME", str(root / "home"))
        patch.chdir(root)
        base = tiny.build(root / "base")
        workload = Workload.model_validate({"workload": NAME, "base": str(base)}, context=root)
        served = Served(Settings(root / "home", 4200, 5000), workload)
        snapshot = adapter_folders.snapshot(root / "5af1")
        for number in (1, 2, 3):
            found = adapted(served, base, snapshot, number)
            promote.challenge_task.fn(workload, found)
            if number < 3:
                approve(served, found)
        yield served


def adapted(served: Served, base: Path, snapshot: Path, number: int) -> Evidence:
    """Make an adapter, its scorecard and evidence on it."""
    home, key = served.home, f"ada{number}"
    adapter = home.adapters / NAME / key
    adapter_folders.adapter(base, snapshot, adapter)
    settings = EvaluationSettings(precision="fp32", max_new_tokens=8).model_dump(mode="json")
    conditions = {**cards.CONDITIONS, "settings": settings}
    body = {"base": "b", "adapter": key, "task": scorecard.HOLDOUT, "conditions": conditions}
    card = home.scorecards / NAME / f"c{number}"
    scorecard.write(card, [cards.sample(0, 1.0)], CALL_METRICS, body=body, now=NOW)
    tracking.open_run(NAME, key, params={}, tags={})
    subject = EvidenceSubject(
        NAME, "5af1", "v1", bases.content_hash(base), key, "base", card.name, "c0"
    )
    subject = replace(subject, adapter_bytes=folder_digest(adapter))
    folder = home.evidence / NAME / evidence_folder.digest(subject, PASSED, Policy())
    folder.mkdir(parents=True)
    return evidence_folder.finish(folder, subject, PASSED, Policy(), {}, brief="", now=NOW)


def approve(served: Served, found: Evidence) -> None:
    decision = Decision(NAME, found.digest, "approve", "ann", "good", "run", NOW)
    with warehouse.connect(served.home.warehouse) as con, warehouse.transaction(con):
        decision_log.append_event(
            con, LogEvent("approve", NAME, found.digest, "run", NOW, "ann", "good")
        )
    promotion.promote_version(served.workload, found, decision, lambda: None)


@pytest.fixture
def served(made: Served, tmp_path: Path) -> Iterator[Served]:
    """The same home, as it was, for each test: what MLflow holds is put back."""
    client = MlflowClient()
    before = {one.version: dict(one.tags) for one in client.search_model_versions(f"name='{NAME}'")}
    files = {number: made.located(number) for number in ("1", "2", "3")}
    for number, folder in files.items():
        shutil.copytree(folder, tmp_path / "before" / number)
    yield made
    for number, folder in files.items():
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "before" / number, folder)
    for number, tags in before.items():
        registry.tag_version(
            NAME, str(number), dict.fromkeys(registry.version_tags(NAME)[str(number)]) | tags
        )
    for alias, number in (("champion", "2"), ("previous", "1"), ("challenger", "3")):
        registry.put_alias(NAME, alias, number)


def test_models_of_others_in_one_mlflow_are_theirs(served: Served) -> None:
    client = MlflowClient()
    client.create_registered_model("fraud")
    client.create_model_version("fraud", get_tracking_uri())
    client.set_registered_model_alias("fraud", "champion", "1")
    try:
        assert releases.release_status(release_home.of(served.home), "fraud").objections
        assert releases.own_models(served.home.tables) == [NAME]
    finally:
        client.delete_registered_model("fraud")


def test_what_was_approved_is_verified_to_the_byte_and_answers(served: Served) -> None:
    home = release_home.of(served.home)
    assert releases.release_status(home, NAME) == releases.ReleaseStatus((), 2)
    champion = releases.require_champion(home, NAME)
    assert champion is not None
    assert champion.number == "2"
    model = load_model(f"models:/{NAME}@champion")
    assert model.predict(model.input_example)["object"] == "chat.completion"


def test_a_challenger_is_loaded_only_by_who_says_that_nobody_has_decided(served: Served) -> None:
    with pytest.raises((ValueError, MlflowException), match="nobody has approved what is in it"):
        load_model(f"models:/{NAME}/3")
    load_model(f"models:/{NAME}/3", model_config={"undecided": True})


def moved_to_a_challenger(_: Served) -> None:
    registry.put_alias(NAME, "champion", "3")


def moved_to_an_older_version(_: Served) -> None:
    registry.put_alias(NAME, "champion", "1")


def taken_away(_: Served) -> None:
    registry.put_alias(NAME, "champion", None)


def moved_previous(_: Served) -> None:
    registry.put_alias(NAME, "previous", "3")


def changed(served: Served, pattern: str, content: bytes | None = None) -> None:
    (path,) = served.located("2").rglob(pattern)
    path.write_bytes(content if content is not None else path.read_bytes()[:-1] + b"\x7f")


def changed_weights(served: Served) -> None:
    changed(served, "adapter_model.safetensors")


def changed_code(served: Served) -> None:
    changed(served, "chat_model.py", b"raise SystemExit('the attacker ran code')")


def added_bytecode(served: Served) -> None:
    (served.located("2") / "__pycache__").mkdir()
    (served.located("2") / "__pycache__" / "chat_model.cpython-311.pyc").write_bytes(b"evil")


def removed_signature(served: Served) -> None:
    (served.located("2") / model_signature.SIGNATURE).unlink()
    (served.located("2") / logged_model.RECORD_FILE).unlink()
    changed_weights(served)


def files_of_another(served: Served) -> None:
    """Put the challenger's files, which are signed, in the champion's place."""
    shutil.rmtree(served.located("2"))
    shutil.copytree(served.located("3"), served.located("2"))


def typed(number: str, **tags: str) -> None:
    registry.tag_version(NAME, number, {f"flywheel.{name}": value for name, value in tags.items()})


def forged_decision(_: Served) -> None:
    typed("3", decision="approve", approver="ann")


def forged_evidence(_: Served) -> None:
    typed("3", evidence=registry.version_numbered(NAME, "2").evidence)


def forged_adapter(_: Served) -> None:
    typed("2", adapter="ada3")


ATTACKS: list[tuple[Callable[[Served], None], str]] = [
    (moved_to_a_challenger, "`champion` of tools stands on version 3, but .* is version 2"),
    (moved_to_an_older_version, "`champion` of tools stands on version 1, but .* is version 2"),
    (taken_away, "`champion` of tools is on no version, but .* is version 2"),
    (moved_previous, "`previous` of tools stands on version 3, which was never approved"),
    (changed_weights, "version 2 of tools .*Hash mismatch for .*artifacts/ada2/adapter_model"),
    (changed_code, "version 2 of tools .*Hash mismatch for .*chat_model.py"),
    (added_bytecode, "version 2 of tools .*Extra files .*chat_model.cpython"),
    (removed_signature, "version 2 of tools .*its signature was removed"),
    (files_of_another, "version 2 of tools .*they are not those of decision"),
    (forged_decision, "flywheel.decision of version 3 .* nobody has approved evidence"),
    (forged_evidence, "flywheel.evidence of version 3 .* on which version 2 was approved"),
    (forged_adapter, "flywheel.adapter of version 2 .* says 'ada3', but .* 'ada2'"),
]


@pytest.mark.parametrize(
    ("attack", "named"),
    [
        pytest.param(*one, id=one[0].__name__, marks=[pytest.mark.slow] if number % 3 else [])
        for number, one in enumerate(ATTACKS)
    ],
)
def test_each_attack_is_found_and_named_and_nothing_of_it_leaves(
    served: Served, attack: Callable[[Served], None], named: str
) -> None:
    attack(served)
    assert re.search(named, served.objections())
    if attack is not taken_away:
        with pytest.raises(releases.NotApprovedError, match=named):
            releases.require_champion(release_home.of(served.home), NAME)


@pytest.mark.parametrize("attack", [moved_to_a_challenger, changed_weights, removed_signature])
def test_mlflow_itself_loads_nothing_of_them(
    served: Served, attack: Callable[[Served], None]
) -> None:
    attack(served)
    with pytest.raises((ValueError, MlflowException), match=r"verifying|reading"):
        load_model(f"models:/{NAME}@champion")


def test_files_that_were_changed_before_the_approval_are_not_released(served: Served) -> None:
    (path,) = served.located("3").rglob("adapter_model.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    found = evidence_folder.read(
        served.home.evidence / NAME / registry.version_numbered(NAME, "3").evidence
    )
    with pytest.raises(ModelSignatureError, match="Hash mismatch"):
        releases.release_version(
            release_home.of(served.home), registry.version_numbered(NAME, "3"), found
        )


@pytest.mark.slow
def test_maintenance_puts_previous_back_in_its_place(served: Served) -> None:
    served.home.mlflow_home.mkdir(exist_ok=True)
    (served.home.mlflow_home / "mlflow.db").touch()  # it is told by this whether there is one
    for number in (None, "2"):
        registry.put_alias(NAME, version_tags.PREVIOUS, number)
        with disable_run_logger():
            assert maintenance.verify_champions.fn() == []
        assert registry.read_aliases(NAME).previous == "1"
    registry.put_alias(NAME, version_tags.PREVIOUS, "3")
    with disable_run_logger():
        (objection,) = maintenance.verify_champions.fn()
    assert "`previous` of tools stands on version 3, which was never approved" in objection


def test_a_rollback_is_no_attack(served: Served) -> None:
    champions.roll_back(release_home.of(served.home), Order(NAME, None, "bob", "rude"))
    assert releases.release_status(release_home.of(served.home), NAME).objections == ()
    champions.roll_back(release_home.of(served.home), Order(NAME, "2", "bob", "it was the network"))
    assert releases.release_status(release_home.of(served.home), NAME).objections == ()


def test_the_command_says_whether_a_folder_is_what_was_signed(
    served: Served, tmp_path: Path
) -> None:
    folder = registry.download_version(NAME, "2", tmp_path / "copy")
    command, typed = CliRunner(), ["verify", str(folder)]
    verified = command.invoke(main.app, typed)
    assert verified.exit_code == 0, verified.output
    assert re.search(r"released version 2 of tools on evidence \w+$", verified.output.strip())
    assert command.invoke(main.app, [*typed, "--key", str(tmp_path / "no.pub")]).exit_code == 2
    (folder / "README.md").write_text("added")
    refused = command.invoke(main.app, typed)
    assert refused.exit_code == 1
    assert refused.output.splitlines()[-1].startswith("refused: ")
    (folder / model_signature.SIGNATURE).unlink()
    assert command.invoke(main.app, typed).exit_code == 3


@pytest.fixture
def healthy() -> Iterator[int]:
    """The port of a server that says it is well; the store itself needs none here."""

    class Well(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Well) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_an_export_carries_the_decision_and_leaves_only_if_it_is_what_was_approved(
    served: Served, tmp_path: Path, healthy: int
) -> None:
    home = replace(served.home, mlflow_port=healthy)
    exported = export.export_adapter(home, ExportRequest(NAME, "peft", tmp_path / "out"))
    assert exported == "ada2"
    found = CliRunner().invoke(main.app, ["verify", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    assert "released version 2 of tools" in found.output
    forged_adapter(served)
    for version in (None, "2"):
        with pytest.raises(releases.NotApprovedError, match=r"flywheel\.adapter of version 2"):
            export.export_adapter(
                home, ExportRequest(NAME, "peft", tmp_path / "forged", version=version)
            )
    assert not (tmp_path / "forged").exists()


def flip(folder: Path, keys: Path, count: int) -> list[str]:
    """Flip bytes of a released version, one at a time; return those that nobody noticed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    places = [(path, at) for path in files for at in range(path.stat().st_size)]
    chosen = random.Random(20).sample(places, count)
    # Small files are as dangerous as weights, so each has its share.
    chosen += [(path, random.Random(path.name).randrange(path.stat().st_size)) for path in files]
    unnoticed: list[str] = []
    for path, at in chosen:
        before = path.read_bytes()
        path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        try:
            model_signature.verify(folder, keys / model_signature.PUBLIC)
            unnoticed.append(f"{path.name} at {at}")
        except ModelSignatureError:
            pass
        path.write_bytes(before)
    return unnoticed


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_byte_of_a_released_version_can_be_flipped(
    served: Served, tmp_path: Path, count: int
) -> None:
    copy = registry.download_version(NAME, "2", tmp_path / "copy")
    (copy / "registered_model_meta").unlink(missing_ok=True)
    model_signature.verify(copy, served.home.keys / model_signature.PUBLIC)
    assert flip(copy, served.home.keys, count) == []
