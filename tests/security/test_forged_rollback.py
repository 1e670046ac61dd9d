"""Attack: with full MLflow credentials, tags are typed that make a version look approved.

A rollback goes by the chain of decisions and the journal, so no tag crowns anything; and who orders
one proves the name as for an approval.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components import warehouse
from components.decide import proofs, record
from components.decide.approvers import Approving
from components.gate import evidence
from components.register import aliases, champion, registry
from components.register.journal import Change
from components.register.rollback import RollbackError
from flows import champions, signing, workload_files
from flows.settings import Settings
from tests import ssh
from tests.register.versions import NOW, ask, crowned, say_yes


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.chdir(folder)
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    return Settings(tmp_path / "home", 4200, 5000)


def forge(name: str, number: str, **tags: str) -> None:
    client = MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, number, f"flywheel.{key}", value)


def test_a_tag_that_was_typed_crowns_no_version_that_nobody_approved(home: Settings) -> None:
    crowned("forged", 2, home)
    ask("forged", 3)
    forge("forged", "3", decision="approve", approver="ann")
    with pytest.raises(RollbackError, match="nobody has approved it, says the chain"):
        champions.roll_back(home, "forged", "3", by="eve", reason="")
    forge("forged", "3", evidence="e1")  # that of a version which was approved
    with pytest.raises(RollbackError, match="nobody has approved it"):
        champions.roll_back(home, "forged", "3", by="eve", reason="")
    assert aliases.read("forged").champion == "2"
    aliases.put("forged", aliases.PREVIOUS, "3")  # a rollback reads the journal, not this
    assert champions.roll_back(home, "forged", None, by="bob", reason="rude").step == "done"
    assert aliases.read("forged").champion == "1"


@pytest.mark.parametrize("number", [3, 4])
def test_an_interrupted_promotion_is_finished_only_if_it_is_approved_by_the_rules_of_now(
    home: Settings, tmp_path: Path, number: int
) -> None:
    name = f"settled-{number}"
    crowned(name, 2, home)
    ask(name, 3)
    if number == 4:  # it was approved, by a name that was typed
        ask(name, 4)
        say_yes(home, name, 4)
        listed = [{"name": "ann", "keys": [ssh.public(ssh.keygen(tmp_path))]}]
        rules = Approving.model_validate({"proof": "signature", "approvers": listed}).rules()
        with warehouse.connect(home.warehouse) as con, warehouse.transaction(con):
            record.in_force(con, name, rules, now=NOW)
    keys = (name, str(number), f"e{number}", f"a{number}")
    change = champion.promotion(*keys, by="eve", reason="")
    champions.books(home).intend(change)
    (settled,) = champions.reconcile(home)
    assert settled.step == "undone"
    assert settled.said.startswith("nobody has approved")
    assert aliases.read(name).champion == "2"


def test_an_interrupted_rollback_is_finished_only_to_a_version_with_its_own_approved_evidence(
    home: Settings,
) -> None:
    crowned("paired", 2, home)
    ask("paired", 3)
    forged = Change("paired", "rollback", "e1", "a3", "3", "2", "a2", "eve", "")  # of version 1
    champions.books(home).intend(forged)
    (ended,) = champions.reconcile(home)
    assert (ended.step, ended.said) == (
        "undone",
        "nobody has approved version 3, says the chain",
    )
    assert aliases.read("paired").champion == "2"


def test_a_rollback_under_signatures_is_signed_and_leads_to_what_was_approved(
    home: Settings, tmp_path: Path
) -> None:
    crowned("signs", 2, home)
    key, other = ssh.keygen(tmp_path), ssh.keygen(tmp_path, "eve")
    listed = [{"name": "ada", "keys": [ssh.public(key)]}]
    rules = Approving.model_validate({"proof": "signature", "approvers": listed}).rules()
    with warehouse.connect(home.warehouse) as con, warehouse.transaction(con):
        record.in_force(con, "signs", rules, now=NOW)
    folder = home.evidence / "signs" / "e1"
    folder.mkdir(parents=True)
    (folder / evidence.VERDICT).write_text('{"subject": {}, "judgement": {}, "policy": {}}')
    adapter = home.adapters / "signs" / "a1"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    assert workload_files.find(home, "signs") is None  # the chain still knows the rules

    for by, said in (("ada", "a signature is wanted"), ("eve", "this name is not on the list")):
        with pytest.raises(RollbackError, match=said):
            champions.roll_back(home, "signs", None, by=by, reason="rude")
    form, found = champions.form(home, "signs", None, by="ada", reason="rude")
    assert found == rules
    forged = signing.signed(form, rules, other)
    with pytest.raises(RollbackError, match="a key that the rules do not list"):
        champions.roll_back(home, "signs", None, by="ada", reason="rude", signature=forged)
    assert aliases.read("signs").champion == "2"

    made = signing.signed(form, rules, key)
    with pytest.raises(RollbackError, match="for something else"):
        champions.roll_back(home, "signs", None, by="ada", reason="kind", signature=made)
    champions.roll_back(home, "signs", None, by="ada", reason="rude", signature=made)
    assert aliases.read("signs").champion == "1"
    with warehouse.connect(home.warehouse) as con:
        links = record.links(con)
    assert (links[-1].kind, proofs.proof_of(links[-1])) == ("rollback", "signature")
    assert registry.numbered("signs", "2").rolled_back
