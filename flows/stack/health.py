"""Ask the servers of the stack whether they work."""

import time

import httpx


def client() -> httpx.Client:
    """Open a client that ignores the machine's proxies: the stack is on the loopback interface."""
    return httpx.Client(trust_env=False, timeout=5.0)


def answers(http: httpx.Client, url: str) -> bool:
    """Tell whether ``url`` answers 200."""
    try:
        return http.get(url).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(url: str) -> None:
    """Return once ``url`` answers 200; whoever started this process sets the limit."""
    with client() as http:
        while not answers(http, url):
            time.sleep(0.1)
