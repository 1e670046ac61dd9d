"""What a token may send; no change of the file of tokens is lost."""

import json
import multiprocessing
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import httpx
import pytest

from components.receive import client_tokens
from components.receive.client_tokens import Quota, Quotas, TokenError
from components.receive.settings import RefusedError
from components.schema import Json
from tests.support import logs, receivers, terminal
from tests.support.receivers import Receiver

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
ADDERS = 40
FORK = multiprocessing.get_context("fork")


def add(file: Path, number: int, begin: Barrier) -> None:
    begin.wait()
    client_tokens.add_token(file, f"client {number}", now=NOW)


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Generator[Receiver]:
    with receivers.running(tmp_path_factory.mktemp("tokens")) as receiver:
        yield receiver


def send(
    receiver: Receiver, token: str, body: Json, path: str = "interactions", **header: str
) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}", **header}
    return httpx.post(f"{receiver.url}/v1/{path}", headers=headers, json=body, timeout=20)


def file_of(receiver: Receiver) -> Path:
    return receiver.folder.parent / "tokens.json"


@pytest.mark.slow
def test_tokens_added_by_parallel_processes_are_all_kept(tmp_path: Path):
    file = tmp_path / "tokens.json"
    begin = FORK.Barrier(ADDERS)
    adders = [FORK.Process(target=add, args=(file, number, begin)) for number in range(ADDERS)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join(60)
    assert [adder.exitcode for adder in adders] == [0] * ADDERS
    assert {token.client_id for token in client_tokens.read_tokens(file)} == {
        f"client {n}" for n in range(ADDERS)
    }


def test_a_token_without_the_newer_fields_may_send_everything(receiver: Receiver):
    token = client_tokens.add_token(file_of(receiver), "old", now=NOW)
    entries = json.loads(file_of(receiver).read_text())
    (old,) = [token for token in entries if token["client_id"] == "old"]
    assert set(old) == {"id", "client_id", "sha256", "created_at"}  # as 1f77e02 wrote them
    assert send(receiver, token, logs.interaction(workload_id="any")).status_code == 200
    assert send(receiver, token, logs.feedback(), "feedback").status_code == 200
    assert send(receiver, token, {"resourceSpans": []}, "traces").status_code == 200


def test_an_expired_token_is_refused_and_says_so(receiver: Receiver):
    past = NOW - timedelta(days=2)
    token = client_tokens.add_token(
        file_of(receiver), "late", now=past, expires_at=past + timedelta(days=1)
    )
    refused = send(receiver, token, logs.interaction())
    assert refused.status_code == 401
    token_id = token.split("_")[1]
    assert refused.json() == {
        "detail": f"the token {token_id} expired at 2026-11-25T12:00:00+00:00; ask for a new one"
    }


def test_a_kind_outside_a_tokens_kinds_is_refused(receiver: Receiver):
    token = client_tokens.add_token(file_of(receiver), "asker", now=NOW, kinds=["interactions"])
    assert send(receiver, token, logs.interaction()).status_code == 200
    refused = send(receiver, token, logs.feedback(), "feedback")
    token_id = token.split("_")[1]
    assert (refused.status_code, refused.json()) == (
        403,
        {"detail": f"the token {token_id} may send interactions, not feedback"},
    )
    spans = send(receiver, token, {"resourceSpans": []}, "traces")
    assert (spans.status_code, spans.json()["code"]) == (403, 7)  # PERMISSION_DENIED


OTHER = json.dumps(logs.interaction(workload_id="billing"))[1:-1]
OURS = json.dumps(logs.interaction(workload_id="support-eu"))


@pytest.mark.parametrize(
    ("body", "number"),
    [
        pytest.param(f"{{{OTHER}}}", 1, id="one"),
        pytest.param(f"[{OURS}, {{{OTHER}}}]", 2, id="array"),
        pytest.param(f"{OURS}\n{{{OTHER}}}", 2, id="lines"),
        pytest.param(f'{{{OTHER}, "workload_id": "support"}}', 1, id="said-twice"),
        pytest.param(f'{{"workload_id": "support", {OTHER}}}', 1, id="said-twice-last"),
        pytest.param(f'{{"workload\\u005fid": "billing", {OTHER}}}', 1, id="spelled-otherwise"),
    ],
)
def test_a_workload_outside_a_tokens_workloads_is_refused(
    receiver: Receiver, body: str, number: int
):
    token = client_tokens.add_token(file_of(receiver), "shop", now=NOW, workloads=["support*"])
    header = {"authorization": f"Bearer {token}"}
    refused = httpx.post(f"{receiver.url}/v1/interactions", headers=header, content=body)
    token_id = token.split("_")[1]
    assert (refused.status_code, refused.json()) == (
        403,
        {
            "detail": f'record {number} is of the workload "billing", and the token {token_id} '
            "may send for support*"
        },
    )


def test_a_workload_that_is_not_text_is_refused(receiver: Receiver):
    token = client_tokens.add_token(file_of(receiver), "shop", now=NOW, workloads=["support*"])
    assert send(receiver, token, logs.interaction(workload_id="support")).status_code == 200
    assert send(receiver, token, logs.interaction(workload_id=["support"])).status_code == 403


def test_telemetry_can_not_be_limited_to_workloads(tmp_path: Path):
    file = tmp_path / "tokens.json"
    with pytest.raises(TokenError, match="traces can't be limited to workloads"):
        client_tokens.add_token(file, "shop", now=NOW, workloads=["support"], kinds=["traces"])
    client_tokens.add_token(file, "shop", now=NOW, workloads=["support"])
    (token,) = client_tokens.read_tokens(file)
    assert token.kinds == ("interactions", "feedback")


def test_a_token_over_its_quota_is_refused_with_a_retry_time(receiver: Receiver):
    quota = Quota(requests=2, per="day")
    token = client_tokens.add_token(file_of(receiver), "busy", now=NOW, quota=quota)
    assert send(receiver, token, []).status_code == 200
    assert send(receiver, token, [7]).status_code == 422
    refused = send(receiver, token, logs.interaction())
    token_id = token.split("_")[1]
    assert (refused.status_code, refused.json()) == (
        429,
        {
            "detail": f"the token {token_id} of busy may send 2 requests a day, and sent "
            "2 requests in this day"
        },
    )
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert receiver.post("/v1/interactions", json=logs.interaction()).status_code == 200


def test_quota_counts_unpacked_bytes_of_stored_bodies_only(receiver: Receiver):
    body = logs.interaction()
    size = len(httpx.Request("POST", "http://receiver", json=body).content)
    quota = Quota(bytes=2 * size + 10, per="day")
    token = client_tokens.add_token(file_of(receiver), "large", now=NOW, quota=quota)
    assert send(receiver, token, "no record" * size).status_code == 422  # nothing of it is stored
    assert [send(receiver, token, body).status_code for _ in range(3)] == [200, 200, 429]
    assert send(receiver, token, {}).status_code == 422  # a small one would still have room
    assert send(receiver, token, [body, body, body]).status_code == 413


def test_a_quota_restarts_with_its_period(tmp_path: Path):
    file = tmp_path / "tokens.json"
    client_tokens.add_token(file, "busy", now=NOW, quota=Quota(requests=1, bytes=10, per="minute"))
    (token,) = client_tokens.read_tokens(file)
    quotas = Quotas()
    quotas.count_request(token, 59.0)
    quotas.count_bytes(token, 10, 59.0)
    with pytest.raises(RefusedError) as refused:
        quotas.count_request(token, 59.5)
    assert refused.value.retry_after == 1
    quotas.count_request(token, 60.0)
    quotas.count_bytes(token, 6, 60.0)
    with pytest.raises(RefusedError, match="sent 6 bytes and 5 of this one"):
        quotas.count_bytes(token, 5, 60.0)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{", id="no-json"),
        pytest.param('[{"id": "1"}]', id="no-token"),
        pytest.param(
            '[{"id": "1", "client_id": "a", "sha256": "", "created_at": "", "admin": true}]',
            id="unknown-field",
        ),
    ],
)
def test_an_unreadable_token_file_refuses_all_requests(tmp_path: Path, content: str):
    with receivers.running(tmp_path) as receiver:
        (tmp_path / "tokens.json").write_text(content)
        refused = receiver.post("/v1/interactions", json=logs.interaction())
        assert (refused.status_code, refused.json()) == (
            503,
            {"detail": "the receiver's tokens can't be read"},
        )


def test_the_commands_add_and_show_a_tokens_rights(tmp_path: Path):
    shell = terminal.in_home(tmp_path / "home", is_forked=True)
    shell.env["COLUMNS"] = "200"
    limits = ("--workload", "support*", "--workload", "faq", "--kind", "interactions")
    quota = ("--requests", "10000", "--bytes", "5000000", "--per", "hour")
    assert shell.run("token", "add", "shop", *limits, *quota, "--expires", "90d").returncode == 0
    shell.run("token", "add", "plain")
    _, shop, plain = shell.run("token", "list").stdout.rstrip().split("\n")
    until = f"{datetime.now(UTC) + timedelta(days=90):%Y-%m-%d}"
    assert shop.split()[1:4] == ["shop", "support*", "faq"]
    assert f"interactions  10,000 requests, 5,000,000 bytes a hour  {until}" in shop
    assert plain.split()[1:6] == ["plain", "*", "all", "none", "never"]
    shell.env["COLUMNS"] = "30"
    assert shop in shell.run("token", "list").stdout  # which a terminal wraps
    for line in (shop, plain):
        assert shell.run("token", "remove", line.split()[0]).returncode == 0
    assert shell.run("token", "list").stdout == "there is no token\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ("--expires", "soon"),
            "reading 'soon': expected a date such as 2027-01-31, or a time from now such as 90d or "
            "12h\n",
            id="no-date",
        ),
        pytest.param(
            ("--expires", "2020-01-01"),
            "adding a token: it would have expired at 2020-01-01T00:00:00+00:00, before now\n",
            id="past",
        ),
    ],
)
def test_a_wrong_expiry_is_an_error_with_the_reason(
    tmp_path: Path, arguments: tuple[str, ...], message: str
):
    ended = terminal.in_home(tmp_path / "home", is_forked=True).run(
        "token", "add", "shop", *arguments
    )
    assert (ended.returncode, ended.stderr) == (2, message)
