"""A server that hangs is found; one that goes on or slept is left alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows.stack import health
from flows.stack.children import Pulse

SERVER = (
    "import http.server\n"
    "class Handler(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200); self.end_headers()\n"
    "    def log_message(self, *_): pass\n"
    "server = http.server.HTTPServer(('127.0.0.1', 0), Handler)\n"
    "print(server.server_port, flush=True); server.serve_forever()"
)


@pytest.fixture
def server() -> Iterator[tuple[int, str]]:
    """Start a server of one thread; return its pid and its address."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield process.pid, f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.kill()


def asking(url: str) -> Callable[[], bool]:
    http = health.http_client()
    return lambda: health.is_answering(http, url, 0.4)


def look_until(pulse: Pulse, claim: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(1) as threads:
        while not claim() and time.monotonic() < deadline:
            pulse.look(time.monotonic(), threads)
            time.sleep(0.02)
    return claim()


def test_a_server_that_stands_still_is_lost_after_some_checks(server: tuple[int, str]) -> None:
    pid, url = server
    pulse = Pulse(asking(url), every=0.1, lost_after=3)
    assert not look_until(pulse, lambda: pulse.misses > 0, seconds=1)
    os.kill(pid, signal.SIGSTOP)
    assert look_until(pulse, lambda: pulse.is_lost)
    assert pulse.misses == 3


def test_a_server_that_goes_on_is_not_lost_any_more(server: tuple[int, str]) -> None:
    pid, url = server
    pulse = Pulse(asking(url), every=0.1)
    os.kill(pid, signal.SIGSTOP)
    assert look_until(pulse, lambda: pulse.misses == 2)
    os.kill(pid, signal.SIGCONT)
    assert look_until(pulse, lambda: pulse.misses == 0)
    assert not pulse.is_lost


def test_a_night_of_sleep_is_one_missed_check_at_most() -> None:
    pulse = Pulse(iter([True, False, True, True]).__next__)
    with ThreadPoolExecutor(1) as threads:
        for now in (0.0, 1.0, 36000.0, 36001.0, 36002.0):
            pulse.look(now, threads)
            threads.submit(int).result()  # the check before it is over
            assert pulse.misses <= 1
            assert not pulse.is_lost
