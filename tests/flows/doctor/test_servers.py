import threading
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from flows import settings
from flows.doctor import diagnosis, probes, server_checks
from flows.doctor.server_checks import ServerStatus

GOOD = ServerStatus(
    "Prefect",
    "https://flywheel.example.com:4200",
    is_open=False,
    takes_ours=True,
    guards_forms=True,
    seconds_behind=0.4,
)


def wrongs(server: ServerStatus) -> list[str]:
    status = server_checks.check_server(server, "start it", "PREFECT_API_AUTH_STRING")
    return [f"{one.state}; {one.fix}" for one in status if one.level == "wrong"]


def test_a_server_with_tls_credentials_and_csrf_is_fine() -> None:
    assert not wrongs(GOOD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"trouble": "timed out"}, "does not answer: timed out; start it", id="silent"),
        pytest.param({"is_open": True}, "PREFECT_SERVER_API_AUTH_STRING=user:password", id="open"),
        pytest.param({"takes_ours": False}, "set PREFECT_API_AUTH_STRING as", id="our-credentials"),
        pytest.param({"guards_forms": False}, "CSRF_PROTECTION_ENABLED=true", id="no-csrf"),
        pytest.param({"answers_pages": True}, "PREFECT_SERVER_CORS_ALLOWED_ORIGINS", id="cors"),
        pytest.param({"url": "http://flywheel.example.com"}, "is not encrypted", id="plain"),
        pytest.param({"url": "http://10.0.0.7:4200"}, "is not encrypted", id="plain-private"),
        pytest.param({"seconds_behind": -90.0}, "90 s ahead of", id="clock"),
    ],
)
def test_what_is_wrong_with_a_server_is_said_once_with_its_fix(
    change: dict[str, object], message: str
) -> None:
    (status,) = wrongs(replace(GOOD, **change))  # pyright: ignore[reportArgumentType]
    assert message in status


def test_what_answers_in_place_of_a_stack_that_is_down_is_not_taken_for_its_server() -> None:
    other = replace(GOOD, url="http://127.0.0.1:4200", takes_ours=False)
    (status,) = server_checks.check_server(other, "`flywheel up`", "", is_down=True)
    assert "this home's is down" in status.state
    assert "set FLYWHEEL_PREFECT_PORT to a free port; then `flywheel up`" in status.fix


def test_an_open_mlflow_is_told_how_to_ask_for_accounts() -> None:
    (status,) = wrongs(replace(GOOD, name="MLflow", is_open=True, guards_forms=None))
    assert "--app-name basic-auth" in status


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4200", "http://localhost:1", "http://[::1]:4200"]
)
def test_on_the_loopback_a_server_may_be_plain_and_must_not_be_open(url: str) -> None:
    assert not wrongs(replace(GOOD, url=url))
    message = wrongs(replace(GOOD, url=url, is_open=True, guards_forms=False, answers_pages=True))
    assert len(message) == 3
    assert "to every user and program of this machine" in message[0]


@pytest.mark.parametrize("host", ["proxy:8080", "mlflow.flywheel.svc.cluster.local:5000"])
def test_inside_a_network_of_containers_no_tls_is_wanted(host: str) -> None:
    assert not wrongs(replace(GOOD, url=f"http://{host}"))


def test_a_clock_that_is_a_little_off_is_a_note() -> None:
    status = [*server_checks.check_server(replace(GOOD, seconds_behind=20.0), "", "")]
    assert [one.state for one in status if one.level == "note"] == [
        "this machine is 20 s behind Prefect's server"
    ]


def prefect(env: Path, answer: Callable[[httpx.Request], int], allowed: str = "") -> ServerStatus:
    """Look at a server that answers as said."""

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(answer(request), headers={"access-control-allow-origin": allowed})

    home = settings.load({"FLYWHEEL_HOME": str(env)})
    with httpx.Client(transport=httpx.MockTransport(respond)) as http:
        return probes.probe_prefect(http, home, ("flywheel", "secret"))


def test_a_server_that_wants_credentials_is_seen_to(tmp_path: Path) -> None:
    status = prefect(
        tmp_path,
        lambda request: (
            200 if request.url.path == "/api/health" or "authorization" in request.headers else 401
        ),
    )
    assert (status.is_open, status.takes_ours, status.guards_forms) == (False, True, True)


def test_a_server_without_credentials_and_csrf_is_seen_to_be_open(tmp_path: Path) -> None:
    status = prefect(tmp_path, lambda request: 422 if "csrf" in request.url.path else 200, "*")
    assert (status.is_open, status.takes_ours, status.guards_forms) == (True, True, False)
    assert status.answers_pages


def test_a_server_that_breaks_is_seen_not_to_work(tmp_path: Path) -> None:
    assert prefect(tmp_path, lambda _: 503).trouble == "it says 503"


def test_a_server_whose_database_is_gone_is_not_said_to_refuse_our_credentials(
    tmp_path: Path,
) -> None:
    def answer(request: httpx.Request) -> int:
        return 200 if request.url.path.endswith("/health") else 500

    assert prefect(tmp_path, answer).trouble == "it says 500"


def test_the_clock_of_a_server_that_does_not_tell_its_time_is_not_said_to_be_right() -> None:
    silent = replace(GOOD, seconds_behind=None)
    results = server_checks.check_server(silent, "start it", "PREFECT_API_AUTH_STRING")
    assert "clock" not in {result.about for result in results}


class Recording(BaseHTTPRequestHandler):
    """Answer every request, and keep the logins that were sent."""

    logins: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.logins.append(self.headers["authorization"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def test_without_a_login_none_is_sent(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Recording) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ports = {"FLYWHEEL_PREFECT_PORT": str(server.server_port), "FLYWHEEL_MLFLOW_PORT": "1"}
        home = settings.load({"FLYWHEEL_HOME": str(tmp_path)} | ports)
        next(diagnosis.check_servers(home, {}))
        server.shutdown()
    assert Recording.logins
    assert set(Recording.logins) == {None}
