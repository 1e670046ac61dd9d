"""The commands ``flywheel receive`` and ``flywheel token``."""

import json
import signal
from pathlib import Path

import httpx
import pytest

from components.store import spool
from tests.support import logs, terminal
from tests.support.terminal import Terminal


@pytest.fixture
def shell(tmp_path: Path) -> Terminal:
    (tmp_path / "home").mkdir()
    return terminal.in_home(tmp_path / "home", is_forked=True)


def test_a_token_lets_a_client_in_until_it_is_removed(shell: Terminal):
    token = shell.run("token", "add", "shop").stdout.strip()
    receiver = shell.start("receive", "--port", "0")
    assert receiver.stdout is not None
    url = receiver.stdout.readline().split()[2]
    header = {"authorization": f"Bearer {token}"}
    assert httpx.post(f"{url}/v1/interactions", headers=header, json=logs.interaction()).is_success

    (token_id,) = [line.split()[0] for line in shell.run("token", "list").stdout.split("\n")[1:2]]
    assert shell.run("token", "remove", token_id).stdout == f"removed {token_id} of shop\n"
    refused = httpx.post(f"{url}/v1/interactions", headers=header, json=logs.interaction())
    assert refused.status_code == 401

    receiver.send_signal(signal.SIGINT)
    assert receiver.wait(20) == 0
    assert receiver.stdout.read() == ""
    receiver.stdout.close()
    (segment,) = spool.sealed(shell.settings.spool)
    (entry,) = spool.read(segment)
    assert isinstance(entry, spool.Entry)
    assert (entry.client_id, json.loads(entry.body)) == ("shop", logs.interaction())


def test_tokens_are_kept_as_hashes_that_only_the_owner_can_read(shell: Terminal):
    token = shell.run("token", "add", "shop").stdout.strip()
    file = shell.settings.tokens
    assert token.split("_", 2)[2] not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_client_may_have_several_tokens(shell: Terminal):
    first, second = (shell.run("token", "add", "shop").stdout.strip() for _ in range(2))
    assert first != second
    assert shell.run("token", "list").stdout.count("shop") == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        pytest.param(
            ("add", ""), "adding a token: the client is '', expected a name\n", id="no-name"
        ),
        pytest.param(
            ("remove", "12345678"),
            "removing token 12345678: there is no such id; known: none\n",
            id="no-token",
        ),
    ],
)
def test_a_wrong_token_command_fails_with_the_reason(
    shell: Terminal, command: tuple[str, ...], message: str
):
    ended = shell.run("token", *command)
    assert (ended.returncode, ended.stderr) == (2, message)


def test_a_used_port_is_an_error_with_the_reason(shell: Terminal):
    shell.run("token", "add", "shop")
    first = shell.start("receive", "--port", "0")
    assert first.stdout is not None
    port = first.stdout.readline().split()[2].rpartition(":")[2]
    second = shell.run("receive", "--port", port)
    first.terminate()
    first.communicate(timeout=20)
    assert second.returncode == 1
    assert second.stderr == (
        f"listening on 127.0.0.1 port {port}: Address already in use; choose another --port, or "
        "--host 127.0.0.1\n"
    )


def test_without_a_token_the_receiver_prints_how_to_add_one(shell: Terminal):
    receiver = shell.start("receive", "--port", "0")
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == (
        "nobody may send yet; `flywheel token add CLIENT` makes a token\n"
    )
    receiver.terminate()
    receiver.communicate(timeout=20)
