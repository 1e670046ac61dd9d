"""Two gateways whose homes share an object store and nothing else."""

import shutil
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml
from s3fs import S3FileSystem

from components.models import model_signature
from components.serve import response_id
from components.serve.response_id import ResponseKeyError
from components.serve.settings import OpenAiFallback
from components.store.object_store import ObjectStore, StoreError
from flows import gateway_status, settings
from flows.gateway_status import ServeFileError
from flows.stack import shared_gateways
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


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.2)


def settings_for(teacher: str, model: str) -> str:
    fallback = {"url": f"{teacher}/v1", "model": model}
    return yaml.safe_dump({"workloads": {"support": {"fallbacks": [fallback]}}})


@pytest.mark.slow
@pytest.mark.lake
def test_settings_shared_by_one_reach_every_gateway_and_feedback_may_go_to_any(
    shells: tuple[Terminal, Terminal], tmp_path: Path
):
    first, second = shells
    token = first.run("token", "add", "app").stdout.split()[-1]
    assert second.run("ship", "--once").returncode == 0
    file = tmp_path / "serve.yaml"
    with ExitStack() as stack:
        teacher = stack.enter_context(gateways.scripted_engine("teacher"))
        urls = [serve(shell, stack) for shell in shells]
        assert [ask(url, token).status_code for url in urls] == [404, 404]
        file.write_text(settings_for(teacher, "one"))
        assert second.run("serve", "share", file).returncode == 0
        until(lambda: [ask(url, token).status_code for url in urls] == [200, 200])
        answer = ask(urls[0], token).json()
        vote = {"response_id": answer["id"], "kind": "thumb", "value": "up"}
        headers = {"authorization": f"Bearer {token}"}
        there = httpx.post(f"{urls[1]}/v1/feedback", json=vote, headers=headers, timeout=None)
        assert there.status_code == 200, there.text
        # What is not valid, or gone, changes nothing, for a gateway that starts now, too.
        file.write_text("loging: never\n")
        refused = first.run("serve", "share", file)
        assert (refused.returncode, "loging: no such" in refused.stderr) == (2, True)
    second.env.update(buckets.UNREACHABLE)
    with ExitStack() as stack:
        teacher = stack.enter_context(gateways.scripted_engine("teacher"))
        file.write_text(settings_for(teacher, "two"))
        assert first.run("serve", "share", file).returncode == 0
        urls = [serve(shell, stack) for shell in shells]
        assert ask(urls[0], token).status_code == 200
        # The second one's settings are those of before, whose server has ended.
        assert ask(urls[1], token).status_code == 502


def test_a_gateway_keeps_the_engine_of_its_own_file(shells: tuple[Terminal, Terminal]):
    home = shells[0].settings
    home.serve_settings.write_text("engine: {threads: 3}\nlogging: best_effort\n")
    file = home.home / "shared.yaml"
    file.write_text("engine: {threads: 1}\nlimits: {max_tokens: 7}\n")
    shared_gateways.publish(home, STORE, file)
    assert shared_gateways.refresh(home, STORE)
    assert not shared_gateways.refresh(home, STORE)
    options = gateway_status.read_serve_settings(home, None)
    assert (options.engine.threads, options.limits.max_tokens) == (3, 7)
    assert options.logging == "required"


@pytest.mark.parametrize("text", ["logging: [", "only: 2027-13-01", "[" * 10_000, "only: &a [*a]"])
def test_settings_that_are_no_yaml_change_nothing_and_end_no_look(
    shells: tuple[Terminal, Terminal], text: str
):
    home = shells[0].settings
    time = "2026-12-02T00:00:00Z"
    key = home.keys / model_signature.PRIVATE
    signature = model_signature.sign_text(f"flywheel shared settings {time}\n{text}", key)
    STORE.write(shared_gateways.SETTINGS, f"# shared {time} {signature}\n{text}")
    with pytest.raises(ServeFileError, match=f"{shared_gateways.SETTINGS}: "):
        shared_gateways.refresh(home, STORE)
    assert not (home.serve / gateway_status.SHARED_SETTINGS).exists()


def test_only_what_the_home_signed_last_is_taken_from_the_bucket(
    shells: tuple[Terminal, Terminal], tmp_path: Path
):
    home, file = shells[0].settings, tmp_path / "serve.yaml"
    file.write_text(settings_for("http://evil.example", "x"))
    for forged in (file.read_text(), f"# shared 2027-01-01T00:00:00Z AAAA\n{file.read_text()}"):
        STORE.write(shared_gateways.SETTINGS, forged)
        with pytest.raises(ServeFileError, match="sign"):
            shared_gateways.refresh(home, STORE)
    stranger = settings.load({"FLYWHEEL_HOME": str(tmp_path / "c"), "FLYWHEEL_STORE": STORE.url})
    shared_gateways.publish(stranger, STORE, file)
    with pytest.raises(ServeFileError, match="not by the key"):
        shared_gateways.refresh(home, STORE)
    assert not (home.serve / gateway_status.SHARED_SETTINGS).exists()

    earlier = ""
    for model in ("old", "new"):
        file.write_text(settings_for("http://ours.example", model))
        shared_gateways.publish(home, STORE, file)
        if model == "old":
            earlier = STORE.read(shared_gateways.SETTINGS) or ""
        assert shared_gateways.refresh(home, STORE)
    for replayed in (earlier, earlier.replace("model: old", "model: new")):
        STORE.write(shared_gateways.SETTINGS, replayed)
        with pytest.raises(ServeFileError, match=r"before those in use|not by the key"):
            shared_gateways.refresh(home, STORE)
    (fallback,) = gateway_status.read_serve_settings(home, None).fallbacks_of("support")
    assert isinstance(fallback, OpenAiFallback)
    assert fallback.model == "new"


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
