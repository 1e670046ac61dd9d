"""Ask the servers of the stack whether they work."""

import time

import httpx

from flows import credentials
from flows.settings import Settings
from flows.stack.prefect_auth import PrefectAuth

LONGEST_SECONDS = 5.0
"""After which a request is given up."""


def client(*, trust_env: bool = False) -> httpx.Client:
    """Open a client; the stack's own servers are on the loopback, where no proxy is wanted.

    Args:
        trust_env: Heed the environment's proxies and certificates, for servers elsewhere.
    """
    # On the loopback there is no TLS, and certificates take 40 ms to load.
    return httpx.Client(trust_env=trust_env, verify=trust_env, timeout=LONGEST_SECONDS)


def prefect_client(settings: Settings) -> httpx.Client:
    """Open a client of the home's own Prefect, logged in."""
    logins = credentials.read(settings)
    http = client()
    if logins is not None:
        http.auth = PrefectAuth(logins.prefect, settings.prefect_api_url)
    return http


def mlflow_answers(settings: Settings) -> bool:
    """Tell whether MLflow works."""
    with client(trust_env=settings.elsewhere is not None) as http:
        return answers(http, f"{settings.mlflow_url}/health")


def prefect_answers(settings: Settings) -> bool:
    """Tell whether Prefect works."""
    with client(trust_env=settings.elsewhere is not None) as http:
        return answers(http, f"{settings.prefect_api_url}/health")


def answers(http: httpx.Client, url: str, seconds: float = LONGEST_SECONDS) -> bool:
    """Return whether ``url`` answers 200 within ``seconds``."""
    try:
        return http.get(url, timeout=seconds).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(url: str) -> None:
    """Return once ``url`` answers 200; whoever started this process sets the limit."""
    with client(trust_env=True) as http:
        while not answers(http, url):
            time.sleep(0.1)
