"""What Caddy passes on of what a person asks Prefect, by every route that Prefect has."""

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from flows.stack import processes
from tests.production.composed import INFRA

pytestmark = pytest.mark.production

SECRET = re.compile("block_documents|^/collections/|^/admin/(?!version$)")
"""Paths that a person gets nothing of."""


class Anything(BaseHTTPRequestHandler):
    """Stands for MLflow, which knows the person, and for Prefect."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - as the base class calls them

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client that has logged in, before Caddy with our rules."""
    folder: Path = tmp_path_factory.mktemp("caddy")
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Anything) as servers,
        ThreadingHTTPServer(("127.0.0.1", 0), Anything) as free,
    ):
        port = free.server_port
        threading.Thread(target=servers.serve_forever, daemon=True).start()
        upstream = f"127.0.0.1:{servers.server_port}"
        free.server_close()
        (folder / "Caddyfile").write_text(
            "{\n\tadmin off\n\tauto_https off\n}\n"
            f"(prefect) {{\n\treverse_proxy {upstream}\n}}\n"
            f"import {INFRA / 'people.caddy'}\n"
            f"http://127.0.0.1:{port} {{\n\timport people\n}}\n"
        )
        run = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
        env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "MLFLOW": upstream}
        with subprocess.Popen(
            processes.dying_with_parent(run, "KILL"),
            env=env | {"PREFECT_LOGIN": "login"},
            stderr=subprocess.DEVNULL,
        ) as caddy:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/api", trust_env=False) as client:
                deadline = time.monotonic() + 20
                while True:
                    with suppress(httpx.TransportError):
                        client.get("/health")
                        break
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                yield client
            caddy.terminate()
        servers.shutdown()


def routes() -> list[tuple[str, str]]:
    """List method and path of each route, with something in the place of each parameter."""
    from prefect.server.api.server import create_api_app  # takes seconds, in any test run

    return [
        (method.upper(), re.sub(r"\{\w+\}", str(UUID(int=1)), path))
        for path, methods in create_api_app().openapi()["paths"].items()
        for method in methods
    ]


def test_no_route_gives_a_person_a_secret_or_the_server(person: httpx.Client) -> None:
    secret = [(method, path) for method, path in routes() if SECRET.search(path)]
    assert len(secret) >= 10
    opened = [
        f"{method} {path}"
        for method, path in secret
        if person.request(method, path).status_code != 403
    ]
    assert opened == []


def test_a_person_can_look_at_everything_else(person: httpx.Client) -> None:
    looks = [path for method, path in routes() if method == "GET" and not SECRET.search(path)]
    assert len(looks) >= 20
    assert [path for path in looks if person.get(path).status_code != 200] == []


def test_a_person_changes_nothing_but_runs(person: httpx.Client) -> None:
    changed = {
        re.sub(r"[\w-]*0{4}[\w-]*", "ID", f"{method} {path}")
        for method, path in routes()
        if method != "GET" and person.request(method, path).status_code != 403
    }
    reads = re.compile("/(filter|count|paginate|history|lateness)$|/count-by/|^POST /ui/")
    assert {each for each in changed if not reads.search(each)} == {
        "POST /deployments/ID/create_flow_run",
        "POST /deployments/get_scheduled_flow_runs",
        "POST /flow_runs/ID/resume",
        "POST /flow_runs/ID/set_state",
        "POST /task_runs/ID/set_state",
        "POST /work_pools/ID/get_scheduled_flow_runs",
    }
