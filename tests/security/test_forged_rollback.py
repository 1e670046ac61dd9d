"""Attack: with full MLflow credentials, tags are typed that make a version look approved.

A rollback goes by the chain of decisions and the journal, so no tag crowns anything; and who orders
one proves the name as for an approval.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.decide import chain, decision_log, ssh_signatures
from components.decide.approvers import Approving
from components.decide.decision_log import LogEvent
from components.gate import evidence_folder
from components.register import registry, taint, version_tags
from components.release import champions
from components.release.release_state import ChampionChange, ChangeKind, RollbackError
from components.release.rollback_rules import Order
from components.store import warehouse
from flows import approver_keys, home_workloads, release_home
from flows.settings import Settings
from tests.support import mlflow_stores, ssh, warehouses
from tests.support.versions import NOW, ask, crowned


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_stores.create(folder))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.chdir(folder)
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    home = Settings(tmp_path / "home", 4200, 5000)
    warehouses.create(home.warehouse)
    return home


def forge(name: str, number: str, **tags: str) -> None:
    client = MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, number, f"flywheel.{key}", value)


def roll_back(home: Settings, order: Order) -> None:
    champions.roll_back(release_home.of(home), order)


def test_a_tag_that_was_typed_crowns_no_version_that_nobody_approved(home: Settings) -> None:
    crowned("forged", 2, home)
    ask("forged", 3)
    forge("forged", "3", decision="approve", approver="ann")
    with pytest.raises(RollbackError, match="nobody has approved it according to the chain"):
        roll_back(home, Order("forged", "3", "eve", ""))
    forge("forged", "3", evidence="e1")  # that of a version which was approved
    with pytest.raises(RollbackError, match="nobody has approved it"):
        roll_back(home, Order("forged", "3", "eve", ""))
    assert registry.read_aliases("forged").champion == "2"
    registry.put_alias(
        "forged", version_tags.PREVIOUS, "3"
    )  # a rollback reads the journal, not this
    roll_back(home, Order("forged", None, "bob", "rude"))
    assert registry.read_aliases("forged").champion == "1"


def test_a_model_whose_name_no_filter_can_quote_blinds_neither_audit_nor_erasure(
    home: Settings,
) -> None:
    crowned("seen", 1, home)
    MlflowClient().create_registered_model("it's '%\n")
    tags = {version_tags.LINK_TAG: "7 " + "0" * 64, taint.TEXT_TAGS[0]: "of a person"}
    registry.tag_version("seen", "1", tags)
    assert champions.chain_anchors()["version 1 of seen in MLflow"] == "7 " + "0" * 64
    assert "it's '%\n" not in registry.model_names()
    assert taint.blank_tags("of a person".__eq__) == 1


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(("promoted", "e3", "a3", "3"), id="promotion"),
        pytest.param(("rollback", "e1", "a3", "3"), id="rollback-on-another-versions-evidence"),
    ],
)
def test_a_change_in_the_chain_that_nobody_approved_does_not_count(
    home: Settings, forged: tuple[ChangeKind, str, str, str]
) -> None:
    name = f"forged-{forged[0]}"
    crowned(name, 2, home)
    ask(name, 3)
    kind, evidence, *_ = forged
    fields = ChampionChange(name, *forged, "2", "a2", "eve", "").fields
    event = LogEvent(kind, name, evidence, "", NOW, "eve", body=json.dumps(fields))
    with warehouses.connect(home.warehouse) as con, warehouse.transaction(con):
        decision_log.append_event(con, event)
    assert champions.reconcile(release_home.of(home)) == []
    assert registry.read_aliases(name).champion == "2"


def test_a_row_that_was_rewritten_in_the_chain_leads_nowhere(home: Settings) -> None:
    crowned("rewritten", 2, home)
    with warehouses.connect(home.warehouse) as con:
        con.execute("update raw.decision_chain set evidence_digest = 'e3' where kind = 'approve'")
    with pytest.raises(RollbackError, match="was changed: its content has another digest"):
        roll_back(home, Order("rewritten", None, "eve", ""))
    assert registry.read_aliases("rewritten").champion == "2"


def test_a_chain_whose_end_was_cut_off_with_its_head_is_detected_by_the_versions_in_mlflow(
    home: Settings,
) -> None:
    crowned("cut", 2, home)
    with warehouses.connect(home.warehouse) as con, warehouse.transaction(con):
        last = decision_log.links(con)[-1].sequence
        con.execute("delete from raw.decision_chain where sequence = $last", {"last": last})
        kept = decision_log.links(con)
        head = {"sequence": last - 1, "digest": kept[-1].digest}
        con.execute("update raw.decision_head set sequence = $sequence, digest = $digest", head)
        assert chain.first_broken(kept, decision_log.read_head(con)) is None
    champions.reconcile(release_home.of(home))  # it follows what is left, and hides nothing
    anchors = {at: text for at, text in champions.chain_anchors().items() if " of cut " in at}
    lost = chain.first_loose(kept, anchors)
    assert lost is not None
    assert lost.problem.startswith("is missing: in version 2 of cut in MLflow")


@pytest.mark.slow
def test_a_rollback_under_signatures_is_signed_and_leads_to_what_was_approved(
    home: Settings, tmp_path: Path
) -> None:
    crowned("signs", 2, home)
    key, other = ssh.keygen(tmp_path), ssh.keygen(tmp_path, "eve")
    listed = [{"name": "ada", "keys": [ssh.public(key)]}]
    rules = Approving.model_validate({"proof": "signature", "approvers": listed}).rules()
    with warehouses.connect(home.warehouse) as con, warehouse.transaction(con):
        decision_log.in_force(con, "signs", rules, now=NOW)
    folder = home.evidence / "signs" / "e1"
    folder.mkdir(parents=True)
    (folder / evidence_folder.VERDICT).write_text('{"subject": {}, "judgement": {}, "policy": {}}')
    adapter = home.adapters / "signs" / "a1"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    assert home_workloads.find(home, "signs") is None  # the chain still knows the rules

    for by, said in (("ada", "a signature is required"), ("eve", "this name is not on the list")):
        with pytest.raises(RollbackError, match=said):
            roll_back(home, Order("signs", None, by, "rude"))
    form, found = champions.rollback_form(
        release_home.of(home), Order("signs", None, "ada", "rude")
    )
    assert found == rules
    forged = approver_keys.sign_statement(form, rules, other)
    with pytest.raises(RollbackError, match="a key that the rules do not list"):
        roll_back(home, Order("signs", None, "ada", "rude", signature=forged))
    assert registry.read_aliases("signs").champion == "2"

    made = approver_keys.sign_statement(form, rules, key)
    with pytest.raises(RollbackError, match="for something else"):
        roll_back(home, Order("signs", None, "ada", "kind", signature=made))
    roll_back(home, Order("signs", None, "ada", "rude", signature=made))
    assert registry.read_aliases("signs").champion == "1"
    with warehouses.connect(home.warehouse) as con:
        links = decision_log.links(con)
    assert (links[-1].kind, decision_log.proof_of(links[-1])) == ("rollback", "signature")
    assert registry.version_numbered("signs", "2").rolled_back

    shutil.copytree(folder, folder.with_name("e2"))
    shutil.copytree(adapter, adapter.with_name("a2"))
    other_form, _ = champions.rollback_form(
        release_home.of(home), Order("signs", "2", "ada", "kind")
    )
    kind = approver_keys.sign_statement(other_form, rules, key)
    roll_back(home, Order("signs", "2", "ada", "kind", signature=kind))
    body = made.partition(ssh_signatures.BEGIN)[2].partition(ssh_signatures.END)[0]
    line = made.partition("\n")[0]
    anew = f"{line}\n{ssh_signatures.BEGIN}\n{''.join(body.split())}\n{ssh_signatures.END}\n"
    for used in (made, anew):  # a signature can be written down in many ways
        with pytest.raises(RollbackError, match="this signature was used before"):
            roll_back(home, Order("signs", "1", "ada", "rude", signature=used))
    assert registry.read_aliases("signs").champion == "2"
