"""`flywheel rollback` says what it will do, and asks a person before it ends a canary as well."""

import os
import pty
import sys
import tty
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import typer
from typer.testing import CliRunner

from components.register.registry import Aliases
from flows.cli import champion_commands
from flows.settings import Settings
from tests.support import canary_home
from tests.support.canary_home import CanaryHome


class Healthy(BaseHTTPRequestHandler):
    """MLflow's health; what it has is asked of its database."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Generator[Settings]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    thread = Thread(target=server.serve_forever)
    thread.start()
    with (
        pytest.MonkeyPatch.context() as patch,
        canary_home.empty_home(tmp_path_factory.mktemp("rollbacks")) as made,
    ):
        patch.setenv("FLYWHEEL_MLFLOW_PORT", str(server.server_port))
        yield made
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def terminal(typed: str) -> Generator[list[str]]:
    """Have commands find a person at a terminal; what it shows is added at the end."""
    shown: list[str] = []
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    os.write(ours, typed.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", os.fdopen(os.dup(theirs)))
        patch.setattr(sys, "stdout", os.fdopen(os.dup(theirs), "w"))
        yield shown
        sys.stdout.flush()
    shown.append(os.read(ours, 2**16).decode())
    os.close(theirs)
    os.close(ours)


def type_rollback(*words: str) -> None:
    command = typer.main.get_command(champion_commands.app)
    command.main(["rollback", *words, "--as", "bob"], standalone_mode=False)


@pytest.mark.slow
def test_a_person_who_means_the_canary_is_told_and_nothing_moves(home: Settings) -> None:
    made = canary_home.canary_of_a_third(home, "meant-the-canary")
    with terminal("n\n") as shown, pytest.raises(typer.Abort):
        type_rollback("meant-the-canary")
    (screen,) = shown
    assert "version 2 is champion, and version 1, the one before it, becomes champion" in screen
    assert "version 3 is a canary beside it, which ends with this" in screen
    assert "flywheel serve canary stop meant-the-canary --reason WHY" in screen
    assert made.aliases() == Aliases(champion="2", previous="1", canary="3")
    with terminal("y\n"):
        type_rollback("meant-the-canary")
    assert made.aliases() == Aliases(champion="1")


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--yes"], ["--to", "1"]], ids=["yes", "to"])
def test_an_explicit_order_is_not_asked_about(home: Settings, words: list[str]) -> None:
    made = canary_home.canary_of_a_third(home, f"explicit{words[0]}")
    with terminal("") as shown:
        type_rollback(made.workload, *words)
    assert "version 3 is a canary beside it" in shown[0]
    assert made.aliases() == Aliases(champion="1")


@pytest.mark.slow
def test_a_script_is_not_asked_and_its_log_says_what_was_done(home: Settings) -> None:
    made = canary_home.canary_of_a_third(home, "scripted")
    ended = CliRunner().invoke(champion_commands.app, ["rollback", "scripted", "--as", "cron"])
    assert ended.exit_code == 0, ended.output
    assert "version 3 is a canary beside it, which ends with this" in ended.output
    assert made.aliases() == Aliases(champion="1")


@pytest.mark.slow
def test_without_a_canary_nobody_is_asked(home: Settings) -> None:
    made = CanaryHome(home, "no-canary")
    made.describe(serve={"rollout": "immediate"})
    made.approve(1)
    made.approve(2)
    with terminal("") as shown:
        type_rollback("no-canary")
    assert "version 2 is champion, and version 1, the one before it, becomes" in shown[0]
    assert made.aliases() == Aliases(champion="1")


@pytest.mark.slow
def test_where_nothing_can_become_champion_nothing_is_announced(home: Settings) -> None:
    made = CanaryHome(home, "only-one")
    made.describe(serve={"rollout": "immediate"})
    made.approve(1)
    for workload, standing in (("only-one", "version 1 is champion"), ("unknown", "no champion")):
        ended = CliRunner().invoke(champion_commands.app, ["rollback", workload, "--as", "cron"])
        assert ended.exit_code == 1
        assert standing in ended.stdout
        assert "becomes champion" not in ended.stdout
