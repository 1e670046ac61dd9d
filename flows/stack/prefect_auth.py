"""How our own requests log in to Prefect and pass its CSRF check, without importing Prefect."""

import base64
from collections.abc import Generator
from uuid import uuid4

import httpx

from flows.credentials import Login


class PrefectAuth(httpx.Auth):
    """Logs each request in; a change is sent again with a CSRF token when Prefect wants one."""

    requires_response_body = True

    def __init__(self, login: Login, api: str) -> None:
        self._login = "Basic " + base64.b64encode(login.pair.encode()).decode()
        self._tokens = f"{api}/csrf-token"
        self._csrf = {"Prefect-Csrf-Client": str(uuid4())}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Send the request, and once more where the token was missing or too old."""
        request.headers["Authorization"] = self._login
        if request.method == "GET":
            yield request
            return
        request.headers.update(self._csrf)
        refused = yield request
        if refused.status_code == 403:
            yield from self._with_new_token(request)

    def _with_new_token(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        client = self._csrf["Prefect-Csrf-Client"]
        asking = httpx.Request("GET", self._tokens, params={"client": client})
        asking.headers["Authorization"] = self._login
        answer = yield asking
        if answer.is_success:
            self._csrf["Prefect-Csrf-Token"] = answer.json()["token"]
            request.headers.update(self._csrf)
            yield request
