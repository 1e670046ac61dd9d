"""Errors of a tracking server that is away are told from those of one that refuses."""

import httpx
import pytest

from components.json_http import Rest
from components.register import mlflow_api

REQUEST = httpx.Request("GET", "http://127.0.0.1:9/api")


def answered(status: int) -> Exception:
    response = httpx.Response(status, request=REQUEST)
    return httpx.HTTPStatusError("", request=REQUEST, response=response)


def test_a_server_that_accepts_no_connection_is_away(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(httpx.ConnectError) as refused:
        Rest("http://127.0.0.1:9").get("/api")
    assert mlflow_api.is_away(refused.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Exception, match=r"127\.0\.0\.1") as unreachable:  # MLflow's own client
        mlflow_api.full_client().get_run("0" * 32)
    assert mlflow_api.is_away(unreachable.value)


@pytest.mark.parametrize(("status", "is_away"), [(502, True), (503, True), (403, False)])
def test_a_proxy_says_that_a_server_is_away(status: int, is_away: bool):
    assert mlflow_api.is_away(answered(status)) == is_away


def test_an_error_of_the_promotion_itself_is_none():
    assert not mlflow_api.is_away(ValueError("the approval no longer holds"))
