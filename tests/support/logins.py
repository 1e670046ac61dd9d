"""How the tests' own requests log in to the servers of a home, as its commands do by themselves."""

import os
from collections.abc import Generator
from contextlib import contextmanager

import httpx
from mlflow import MlflowClient

from flows import access
from flows.access import Credentials
from flows.settings import Settings
from flows.stack import stack_services
from flows.stack.health import PrefectAuth


def of(settings: Settings) -> Credentials:
    """Read the logins of a home that has some."""
    found = access.read_logins(settings)
    assert found is not None, f"{settings.home} has no logins"
    return found


def prefect(settings: Settings) -> httpx.Client:
    """Open a client of a home's Prefect API."""
    api = settings.prefect_api_url
    auth = PrefectAuth(of(settings).prefect, api)
    return httpx.Client(base_url=api, auth=auth, trust_env=False, timeout=60)


def mlflow(settings: Settings) -> MlflowClient:
    """Open a client of a home's MLflow."""
    login = of(settings).mlflow
    return MlflowClient(settings.mlflow_url.replace("://", f"://{login.pair}@"))


@contextmanager
def pointed_at(settings: Settings) -> Generator[None]:
    """Have this very process use the servers of a home, as its commands do."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    before = dict(os.environ)
    stack_services.point_clients(settings, os.environ)
    pair = of(settings).prefect.pair
    try:
        with temporary_settings(
            {PREFECT_API_URL: settings.prefect_api_url, PREFECT_API_AUTH_STRING: pair}
        ):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
