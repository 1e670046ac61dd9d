"""Before a server of the stack stands a guard; a browser's headers say what asks."""

import asyncio
import base64
from collections.abc import Mapping

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from flows.stack.guarded_server import RUNS_COMMANDS, RequestGuard, own_hosts, own_origins

PORT = 5000
OWN = f"http://127.0.0.1:{PORT}"
LOGIN = "flywheel:a long password"
RIGHT = {"authorization": "Basic " + base64.b64encode(LOGIN.encode()).decode()}
WRONG = {"authorization": "Basic " + base64.b64encode(b"flywheel:another").decode()}
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def server(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"secret"})


def asked(
    headers: Mapping[str, str],
    method: str = "GET",
    path: str = "/api/x",
    *,
    url: str = OWN,
    exported: str = "",
) -> int:
    """Ask a guarded server; give the status of its answer."""
    origins = own_origins(PORT, exported)
    guard = RequestGuard(server, origins, own_hosts(origins), LOGIN, RUNS_COMMANDS)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard)) as http:
            return await http.request(method, url + path, headers=headers)

    answer = asyncio.run(ask())
    assert (answer.status_code == 200) == (answer.content == b"secret")
    return answer.status_code


def test_without_the_login_only_the_health_check_is_answered() -> None:
    assert asked({}) == asked(WRONG) == asked({"authorization": "Bearer x"}) == 401
    assert asked({}, path="/") == asked({}, path="/health/../api") == 401
    assert asked({}, path="/health") == asked(RIGHT) == 200


def test_what_mlflow_runs_for_its_clients_is_given_to_nobody() -> None:
    from mlflow.server import gateway_api, job_api
    from mlflow.server.assistant import api

    for router in (api.assistant_router, job_api.job_api_router, gateway_api.gateway_router):
        assert asked(RIGHT, path=f"{router.prefix}/config") == 403
        assert asked(RIGHT, "POST", router.prefix) == 403


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "origin",
    [
        pytest.param("https://evil.example", id="elsewhere"),
        pytest.param("http://127.0.0.1:5001", id="another-port-of-this-machine"),
        pytest.param("http://localhost:5001", id="another-port-by-name"),
        pytest.param("null", id="a-sandboxed-frame"),
        pytest.param("http://127.0.0.1:5000.evil.example", id="a-longer-name"),
    ],
)
def test_a_page_of_another_origin_gets_nothing_though_the_browser_is_logged_in(
    origin: str, method: str
) -> None:
    assert asked(RIGHT | {"origin": origin}, method) == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_neither_image_nor_frame_nor_script_of_another_page_is_given(site: str) -> None:
    for kind in ("image", "iframe", "script", "empty"):
        said = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": kind}
        assert asked(RIGHT | said) == 403
    framed = LINK | {"sec-fetch-site": site, "sec-fetch-dest": "iframe"}
    assert asked(RIGHT | framed) == 403
    assert asked(RIGHT | LINK | {"sec-fetch-site": site}, "POST") == 403


def test_own_pages_links_and_programs_are_answered() -> None:
    assert asked(RIGHT | {"origin": OWN, "sec-fetch-site": "same-origin"}, "POST") == 200
    assert asked(RIGHT | {"origin": f"http://localhost:{PORT}"}, "POST") == 200
    assert asked(RIGHT | LINK) == 200
    assert asked(RIGHT, "POST") == 200


@pytest.mark.parametrize("host", ["evil.example:5000", "127.0.0.1:5001", "127.0.0.1", "[::1]:5000"])
def test_a_name_that_was_made_to_point_here_is_not_answered(host: str) -> None:
    assert asked(RIGHT, url=f"http://{host}") == asked({}, url=f"http://{host}", path="/health")
    assert asked(RIGHT, url=f"http://{host}") == 403


def test_an_origin_that_the_operator_exported_is_its_own_too() -> None:
    exported = "https://flywheel.example.com/, https://other.example.com"
    origin = {"origin": "https://flywheel.example.com"}
    there = "https://flywheel.example.com"
    assert asked(RIGHT | origin, "POST", url=there, exported=exported) == 200
    assert asked(RIGHT | {"origin": "https://evil.example"}, exported=exported) == 403


def test_a_socket_of_another_page_is_closed_before_it_opens() -> None:
    origins = own_origins(PORT, None)
    guard = RequestGuard(server, origins, own_hosts(origins))
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    headers = [(b"host", b"127.0.0.1:5000"), (b"origin", b"http://127.0.0.1:5001")]
    asyncio.run(
        guard({"type": "websocket", "path": "/api/events/out", "headers": headers}, receive, send)
    )
    assert [message["type"] for message in sent] == ["websocket.close"]
