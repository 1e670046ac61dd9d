"""Attack a real stack with both servers' logins in hand: nothing is approved, served or run by it.

Each attack leaves the champion where it was, and `flywheel audit` names it.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import load_model

from components.register import registry
from tests.support import besieged, logins, small_workload
from tests.support.besieged import Besieged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

NAME = small_workload.WORKLOAD
REJECTED, CHAMPION = "1", "2"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Besieged]:
    """Version 1 waits for a decision, and there is no champion."""
    yield from besieged.besieged(tmp_path_factory.mktemp("besieged"))


@pytest.fixture(scope="module")
def held(asked: Besieged) -> Besieged:
    """Version 1 was rejected, and version 2 is champion, as ada has signed in a terminal."""
    asked.crown_another()
    assert asked.champion() == CHAMPION
    return asked


@pytest.fixture(autouse=True)
def unmoved(request: pytest.FixtureRequest, asked: Besieged) -> Iterator[None]:
    """Once an attack and its traces are gone, the champion is the one that it was."""
    if "held" in request.fixturenames:
        request.getfixturevalue("held")
    before = asked.champion()
    yield
    assert asked.champion() == before
    verified = asked.audit()
    assert verified.returncode == 0, verified.stderr


def evidence_of(held: Besieged, number: str) -> Path:
    tags = held.mlflow.get_model_version(NAME, number).tags
    return held.home.evidence / NAME / tags["flywheel.evidence"]


def refused_everywhere(held: Besieged, named: str) -> None:
    """The audit names the attack and exits with 1, and nothing leaves for a server."""
    found = held.audit()
    assert found.returncode == 1, found.stdout
    assert re.search(named, found.stderr), found.stderr
    to = held.home.home.parent / "out"
    exported = held.shell.run("export", NAME, "--as", "peft", "--to", to)
    assert exported.returncode != 0
    assert re.search(named, exported.stderr), exported.stderr
    assert not to.exists()


def answered(asked: Besieged, **said: str) -> None:
    """Resume the promotion with an answer, and wait until it was heard and refused."""
    key = asked.state(asked.waiting)["state_details"]["pause_key"]
    body = {"run_input": {"comment": "", "reason": "other", "blame": "", **said}}
    assert asked.ask("POST", f"/flow_runs/{asked.waiting}/resume", body)["status"] == "ACCEPT"
    asked.wait_until_asked_again(key)


def test_a_rejection_that_was_flipped_on_its_way_approves_nothing(asked: Besieged) -> None:
    signed = asked.sign("bob", "reject", reason="safety", comment="rude")
    said = {"approver": "bob", "reason": "safety", "comment": "rude", "signature": signed}
    answered(asked, decision="approve", **said)
    assert "refused signature_other by bob rude" in asked.last()
    answered(asked, decision="approve", approver="ada", signature=signed)
    assert "refused signature_other by ada" in asked.last()


def test_an_answer_that_is_written_behind_the_form_approves_nothing(asked: Besieged) -> None:
    """By a key of the attacker's own; Prefect is then told that the run was resumed."""
    details = asked.state(asked.waiting)["state_details"]
    run, key = f"/flow_runs/{asked.waiting}", details["run_input_keyset"]["response"]
    signed = asked.sign("ada", "approve", key=asked.keys["eve"])
    forged = {"decision": "approve", "approver": "ada", "signature": signed}
    asked.ask("POST", f"{run}/input", {"key": key, "value": json.dumps(forged)})
    policy = {"resuming": True, "pause_keys": [details["pause_key"]]}
    asked.ask("PATCH", run, {"empirical_policy": policy})
    asked.ask("POST", f"{run}/set_state", {"state": {"type": "SCHEDULED"}, "force": True})
    asked.wait_until_asked_again(details["pause_key"])
    assert "refused signature_key by ada" in asked.last()


def test_a_promotion_whose_end_is_typed_crowns_nothing(asked: Besieged) -> None:
    run = asked.start("promote/promote", workload=NAME, evidence=evidence_of(asked, REJECTED).name)
    assert "asks about this evidence already" in asked.wait(run)["message"]
    state = {"type": "COMPLETED", "message": "approved by ada: version 1 is champion"}
    asked.ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
    assert asked.state(run)["type"] == "COMPLETED"


# It ends the promotion, so what needs one comes before.
def test_a_rejection_that_was_heard_stays_whatever_prefect_says_later(asked: Besieged) -> None:
    run, details = f"/flow_runs/{asked.waiting}", asked.state(asked.waiting)["state_details"]
    signed = asked.sign("bob", "reject", reason="safety", comment="rude")
    said = {"approver": "bob", "reason": "safety", "comment": "rude", "blame": ""}
    no = said | {"decision": "reject", "signature": signed}
    asked.ask("POST", f"{run}/resume", {"run_input": no})
    ended = asked.wait(asked.waiting)
    assert (ended["type"], ended["message"]) == ("COMPLETED", "rejected by bob: rude")
    key = details["run_input_keyset"]["response"]
    asked.ask("DELETE", f"{run}/input/{key}")
    yes = json.dumps(no | {"decision": "approve"})
    asked.ask("POST", f"{run}/input", {"key": key, "value": yes})
    asked.ask("POST", f"{run}/set_state", {"state": {"type": "SCHEDULED"}, "force": True})
    ended = asked.wait(asked.waiting)
    assert (ended["type"], ended["message"]) == ("COMPLETED", "rejected by bob: rude")
    again = asked.start(
        "promote/promote", workload=NAME, evidence=evidence_of(asked, REJECTED).name
    )
    assert asked.wait(again)["message"] == "rejected by bob: rude"
    verified = asked.audit()
    assert "names proved by signature 1, by code 0, by what was typed 0" in verified.stdout


def test_flows_take_no_file_evidence_snapshot_or_adapter_from_elsewhere(held: Besieged) -> None:
    home, kept = held.home, held.home.mlflow_home / "artifacts" / "notes"
    text = held.config.read_text().partition("approve:")[0]
    held.put("notes/small.yaml", text.encode())
    held.put("notes/evil.yaml", text.replace(f"workload: {NAME}", "workload: evil").encode())
    mine, evil, own = str(kept / "small.yaml"), str(kept / "evil.yaml"), str(held.config)
    laxer = held.config.with_name("laxer.yaml")
    laxer.write_text(text)
    asked = evidence_of(held, REJECTED)
    for file in ("verdict.json", "brief.md"):
        held.put(f"notes/{asked.name}/{file}", (asked / file).read_bytes())
    adapter = held.mlflow.get_model_version(NAME, REJECTED).tags["flywheel.adapter"]
    held.put(f"notes/{adapter}/manifest.json", b"{}")
    snapshot = str(next((home.snapshots / NAME).iterdir()))
    trained, cards = str(home.adapters / NAME / adapter), str(home.workloads / "small.yaml")
    elsewhere = os.path.relpath(kept / asked.name, asked.parent)
    below, sent = "expected one below", "keeps what its clients send"
    unknown = "this home knows no such file"
    attacks = {
        held.start("promote/promote", workload=NAME, evidence=elsewhere): "not evidence of this",
        held.start("turn/turn", config=mine): sent,
        held.start("turn/turn", config=evil): sent,
        held.start("turn/turn", config=str(laxer)): unknown,
        held.start("turn/turn", config="/etc/passwd"): unknown,
        held.start(
            "evaluate/evaluate", config=str(laxer), snapshot=snapshot, adapter=trained
        ): unknown,
        held.start("collect/collect", config=mine): sent,
        held.start("curate/curate", config=mine): sent,
        held.start("train/train", config=mine, snapshot=snapshot): sent,
        held.start("train/train", config=own, snapshot=str(kept)): below,
        held.start("train/train", config=own, snapshot=snapshot, order=mine): below,
        held.start(
            "evaluate/evaluate", config=own, snapshot=snapshot, adapter=str(kept / adapter)
        ): below,
        held.start(
            "evaluate/evaluate", config=own, snapshot=snapshot, adapter=trained, cards=cards
        ): below,
    }
    for run, named in attacks.items():
        ended = held.wait(run)
        assert ended["type"] == "FAILED", ended
        assert named in ended["message"], ended["message"]
    assert [file.name for file in home.workloads.rglob("*.yaml")] == [f"{NAME}.yaml"]


def test_nothing_that_prefect_gives_is_a_secret(held: Besieged) -> None:
    enrolled = held.shell.run("approver", "add", "ada").stdout
    (code,) = re.findall(r"secret=([A-Z2-7]+)", enrolled)
    token = held.shell.run("token", "add", "app").stdout.split()[-1]
    files = [*held.keys.values(), *(held.home.keys.glob("*"))]
    private = [file for file in files if file.suffix != ".pub"]
    lines = [line for file in private for line in file.read_text().splitlines()]
    secrets = [code, token, logins.of(held.home).mlflow.password]
    secrets += [line for line in lines if len(line) > 40]
    assert len(secrets) > 5
    found = "\n".join(everything(held))
    assert held.waiting in found, "it was read at all"
    assert not [secret for secret in secrets if secret in found]


def everything(held: Besieged) -> Iterator[str]:
    """Read all that Prefect's API gives to who asks."""
    yield json.dumps(held.ask("GET", "/admin/settings"))
    kinds = ("block_types", "block_schemas", "block_documents", "variables", "logs", "flows")
    kinds += ("flow_runs", "task_runs", "artifacts", "deployments", "work_pools", "automations")
    kinds += ("concurrency_limits", "v2/concurrency_limits", "work_queues", "saved_searches")
    for kind in kinds:
        offset = 0
        while page := held.ask("POST", f"/{kind}/filter", asking(kind, offset)):
            yield json.dumps(page)
            if len(page) < 200:
                break
            offset += 200
    for run in held.ask("POST", "/flow_runs/filter", {"limit": 200}):
        inputs = held.ask("POST", f"/flow_runs/{run['id']}/input/filter", {"prefix": ""})
        yield json.dumps(inputs)


def asking(kind: str, offset: int) -> dict[str, Any]:
    more = {"include_secrets": True} if kind == "block_documents" else {}
    return {"limit": 200, "offset": offset, **more}


def test_a_moved_alias_is_named_by_the_audit_by_maintenance_and_whoever_loads_it(
    held: Besieged,
) -> None:
    held.mlflow.set_registered_model_alias(NAME, "champion", REJECTED)
    named = "`champion` of small stands on version 1, but .* is version 2: somebody moved it"
    refused_everywhere(held, named)
    looked = held.wait(held.start("maintenance/maintenance"))
    assert looked["type"] == "FAILED"
    assert re.search(named, looked["message"])
    load_is_refused(held, "nobody has approved what is in")
    held.mlflow.set_registered_model_alias(NAME, "champion", CHAMPION)


def path_of(held: Besieged, pattern: str) -> str:
    """Name a file of the champion as MLflow's API does."""
    root = held.home.mlflow_home / "artifacts"
    (found,) = (root / held.files_of(CHAMPION)).rglob(pattern)
    return str(found.relative_to(root))


def verify(held: Besieged, to: Path) -> str:
    """Fetch the champion and have its bytes verified, which runs nothing of it."""
    with logins.pointed_at(held.home):
        folder = registry.download_version(NAME, CHAMPION, to)
    done = held.shell.run("verify", folder)
    assert done.returncode == 1, done.stdout
    return done.stderr


def load_is_refused(held: Besieged, why: str) -> None:
    """MLflow's own way to load the champion refuses it."""
    refused = pytest.raises((ValueError, MlflowException), match=why)
    with logins.pointed_at(held.home), refused:
        load_model(f"models:/{NAME}@champion")


def test_changed_weights_are_named_and_not_loaded(held: Besieged, tmp_path: Path) -> None:
    path = path_of(held, "adapter_model.safetensors")
    before = held.get(path)
    with held.changed(path, before[:-1] + bytes([before[-1] ^ 1])):
        refused_everywhere(held, "version 2 of small .*Hash mismatch for .*adapter_model")
        assert "adapter_model.safetensors" in verify(held, tmp_path / "copy")
        load_is_refused(held, "verifying")


@pytest.mark.parametrize("file", ["chat_model.py", "adapter_config.json", "MLmodel"])
def test_changed_code_and_settings_are_named_and_not_run(
    held: Besieged, tmp_path: Path, file: str
) -> None:
    owned, path = tmp_path / "owned", path_of(held, file)
    evil = f"import os; os.system('touch {owned}')" if file.endswith(".py") else "{}"
    with held.changed(path, evil.encode()):
        refused_everywhere(held, f"version 2 of small .*Hash mismatch for .*{file}")
        assert file in verify(held, tmp_path / "copy")
    assert not owned.exists()


def test_a_file_that_is_added_or_changed_on_disk_is_named(held: Besieged, tmp_path: Path) -> None:
    root = held.home.mlflow_home / "artifacts" / held.files_of(CHAMPION)
    added = root / "sitecustomize.py"
    added.write_text("raise SystemExit('the attacker ran code')")
    refused_everywhere(held, "version 2 of small .*Extra files .*sitecustomize.py")
    assert "sitecustomize.py" in verify(held, tmp_path / "copy")
    added.unlink()
    code = root / "chat_model.py"
    before = code.read_bytes()
    code.write_bytes(before + b"\n")
    refused_everywhere(held, "version 2 of small .*Hash mismatch for .*chat_model.py")
    code.write_bytes(before)


def test_a_forged_tag_is_named_and_leads_a_rollback_nowhere(held: Besieged) -> None:
    client, before = held.mlflow, evidence_of(held, REJECTED).name
    client.set_model_version_tag(NAME, REJECTED, "flywheel.decision", "approve")
    client.set_model_version_tag(NAME, REJECTED, "flywheel.approver", "ada")
    client.set_registered_model_alias(NAME, "previous", REJECTED)
    refused_everywhere(held, "flywheel.decision of version 1 .*nobody has approved evidence")
    to_alias = held.wait(held.start("rollback/rollback", workload=NAME, by="ada", reason="rude"))
    assert "no version is `previous`" in to_alias["message"], to_alias  # the alias is not read
    ended = [held.wait(held.start("rollback/rollback", workload=NAME, to=REJECTED, by="ada"))]
    client.set_model_version_tag(
        NAME, REJECTED, "flywheel.evidence", evidence_of(held, CHAMPION).name
    )
    refused_everywhere(held, "flywheel.evidence of version 1 .*somebody forged it")
    ended += [held.wait(held.start("rollback/rollback", workload=NAME, to=REJECTED, by="ada"))]
    for one in ended:
        assert one["type"] == "FAILED", one
        assert "nobody has approved it" in one["message"], one["message"]
    client.set_model_version_tag(NAME, REJECTED, "flywheel.evidence", before)
    client.delete_model_version_tag(NAME, REJECTED, "flywheel.decision")
    client.delete_model_version_tag(NAME, REJECTED, "flywheel.approver")
    client.delete_registered_model_alias(NAME, "previous")


def test_mlflow_writes_and_reads_nothing_outside_its_own_folder(held: Besieged) -> None:
    for place in (f"file://{held.home.home}", str(held.home.evidence), "/tmp", "s3://anybody/x"):
        with pytest.raises(MlflowException, match="keeps files in its own folder only"):
            held.mlflow.create_experiment("elsewhere", artifact_location=place)
    for path in ("../../credentials.json", "..%2F..%2Fcredentials.json", "/etc/passwd"):
        assert not held.tried("GET", path).is_success
        assert not held.tried("PUT", path, b"owned").is_success
    assert held.mlflow.get_experiment_by_name("elsewhere") is None


def test_mlflow_runs_no_assistant_job_or_other_model_for_who_logs_in(held: Besieged) -> None:
    login = logins.of(held.home).mlflow
    for path in ("3.0/mlflow/assistant/config", "3.0/mlflow/assistant/providers", "3.0/jobs/x"):
        for method in ("GET", "PUT", "POST"):
            url = f"{held.home.mlflow_url}/ajax-api/{path}"
            pair = (login.user, login.password)
            answer = httpx.request(method, url, json={}, auth=pair, trust_env=False)
            assert answer.status_code == 403, answer.text


def test_a_result_that_is_typed_into_prefect_is_not_loaded(held: Besieged, tmp_path: Path) -> None:
    """A pickle at MLflow, which the state of a turn's subflow names as its result."""
    from prefect._internal.result_records import ResultRecord, ResultRecordMetadata
    from prefect.serializers import PickleSerializer

    owned, kept = tmp_path / "owned", held.home.mlflow_home / "artifacts" / "notes" / "result"
    metadata = ResultRecordMetadata(serializer=PickleSerializer(), storage_key=str(kept))
    record = ResultRecord(result=Evil(owned), metadata=metadata)
    held.put("notes/result", record.serialize())
    ran = held.ask("POST", "/task_runs/filter", {"task_runs": {"name": {"any_": ["collect-0"]}}})
    turn = held.ask("GET", "/deployments/name/turn/turn")["id"]
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}
    given = {"parameters": {"config": str(held.config)}, "state": later}
    run = held.ask("POST", f"/deployments/{turn}/create_flow_run", given)["id"]
    place = {"flow_run_id": run, "task_key": ran[0]["task_key"], "dynamic_key": "0"}
    done = {"type": "COMPLETED"}
    task = held.ask("POST", "/task_runs/", place | {"name": "collect-0", "state": done})["id"]
    flow = held.ask("GET", "/flows/name/collect")["id"]
    below = held.ask("POST", "/flow_runs/", {"flow_id": flow, "parent_task_run_id": task})["id"]
    result = done | {"data": metadata.model_dump(mode="json", serialize_as_any=True)}
    held.ask("POST", f"/flow_runs/{below}/set_state", {"state": result, "force": True})
    now = {"type": "SCHEDULED"}
    held.ask("POST", f"/flow_runs/{run}/set_state", {"state": now, "force": True})
    ended = held.wait(run)
    assert not owned.exists()
    assert ended["type"] == "FAILED", ended
    assert "ResultRefusedError" in ended["message"]


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, owned: Path) -> None:
        self.owned = owned

    def __reduce__(self) -> tuple[object, tuple[list[str]]]:
        return subprocess.call, (["touch", str(self.owned)],)
