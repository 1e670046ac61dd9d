"""Two gateways whose homes share an object store and nothing else."""

import shutil
import subprocess
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml
from s3fs import S3FileSystem

from components.extensions.machines.object_store import ObjectStore, StoreError
from components.models import model_signature
from components.serve import response_id
from components.serve.response_id import ResponseKeyError
from flows import gateway_status
from flows.gateway_status import ServeFileError
from tests.support import buckets, gateways, terminal
from tests.support.terminal import Terminal

STORE = ObjectStore("s3://flywheel/team")


@pytest.fixture(scope="module")
def server() -> Generator[None]:
    with buckets.serving():
        yield


@pytest.fixture
def shells(tmp_path: Path, server: None) -> tuple[Terminal, Terminal]:
    """Two homes with nothing in common but an empty store."""
    buckets.emptied()
    first, second = (terminal.in_home(tmp_path / name) for name in "ab")
    for shell in (first, second):
        shell.env["FLYWHEEL_STORE"] = STORE.url
        shell.settings.home.mkdir()
        keys = model_signature.make_key(tmp_path / "keys").parent
        shutil.copytree(keys, shell.settings.keys)
    return first, second


def serve(shell: Terminal, stack: ExitStack) -> str:
    command = [shell.command, "serve", "--port", "0"]
    process = subprocess.Popen(command, env=shell.env, stdout=subprocess.PIPE, text=True)
    stack.enter_context(process)
    stack.callback(process.kill)
    assert process.stdout is not None
    return process.stdout.readline().split()[2]


def ask(url: str, token: str) -> httpx.Response:
    body = {"model": "support", "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"authorization": f"Bearer {token}"}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=None)


def settings_for(teacher: str, model: str) -> str:
    fallback = {"url": f"{teacher}/v1", "model": model}
    return yaml.safe_dump({"workloads": {"support": {"fallbacks": [fallback]}}})


@pytest.mark.slow
@pytest.mark.lake
def test_feedback_may_go_to_any_gateway_of_a_store(shells: tuple[Terminal, Terminal]):
    first, second = shells
    token = first.run("token", "add", "app").stdout.split()[-1]
    assert second.run("ship", "--once").returncode == 0
    with ExitStack() as stack:
        teacher = stack.enter_context(gateways.scripted_engine("teacher"))
        for shell in shells:
            shell.settings.serve_settings.write_text(settings_for(teacher, "one"))
        urls = [serve(shell, stack) for shell in shells]
        answer = ask(urls[0], token).json()
        vote = {"response_id": answer["id"], "kind": "thumb", "value": "up"}
        headers = {"authorization": f"Bearer {token}"}
        there = httpx.post(f"{urls[1]}/v1/feedback", json=vote, headers=headers, timeout=None)
        assert there.status_code == 200, there.text


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "A B", ""])
def test_no_settings_send_the_gateways_own_credentials_to_another_server(name: str):
    text = f"fallbacks: [{{url: 'http://evil.example/v1', model: x, api_key_env: '{name}'}}]"
    with pytest.raises(ServeFileError, match=r"api_key_env: .*expected the name of a variable"):
        gateway_status.parse_settings(text, "serve.yaml")


def test_the_key_of_the_first_gateway_is_everybodys(tmp_path: Path, shells: object):
    first, second, third = (tmp_path / "keys" / name for name in "123")
    own = response_id.read_key(first)
    before = response_id.read_key(second)
    response_id.share_key(first, STORE)
    response_id.share_key(second, STORE)
    assert own == response_id.read_key(first) == response_id.read_key(second) != before
    assert (second / response_id.KEY_FILE).stat().st_mode & 0o777 == 0o600
    STORE.write(response_id.SHARED_KEY, "not hex")
    with pytest.raises(ResponseKeyError, match="expected 32 bytes in hex"):
        response_id.share_key(third, STORE)


def test_a_first_start_needs_the_store_and_a_later_one_does_not(
    tmp_path: Path, shells: object, monkeypatch: pytest.MonkeyPatch
):
    known, new = tmp_path / "keys" / "known", tmp_path / "keys" / "new"
    response_id.share_key(known, STORE)
    buckets.take_away(monkeypatch)
    try:
        response_id.share_key(known, STORE)
        with pytest.raises(StoreError, match="first start"):
            response_id.share_key(new, STORE)
    finally:
        monkeypatch.undo()
        S3FileSystem.clear_instance_cache()
