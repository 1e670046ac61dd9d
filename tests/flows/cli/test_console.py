"""What a command prints, and how it exits, when something goes wrong on its way."""

import importlib
import os
import signal
import threading
from pathlib import Path

import pytest
import typer

from components.store import warehouse
from flows.cli import console
from flows.cli.console import exit_on


def exit_code(error: BaseException, code: int | None = None) -> int:
    """Raise an error on a command's way; return the exit code."""
    with pytest.raises(typer.Exit) as ended, exit_on(LookupError, code=code):
        raise error
    return ended.value.exit_code


@pytest.mark.parametrize(("code", "expected"), [(None, 2), (1, 1)])
def test_a_known_error_is_its_message_as_it_is(
    code: int | None, expected: int, capsys: pytest.CaptureFixture[str]
):
    hostile = LookupError("[red]no such version[/red] :smile: \x1b[2J \u202e \ud800")
    assert exit_code(hostile, code) == expected
    shown = "[red]no such version[/red] :smile: \\u001b[2J \\u202e \\ud800\n"
    assert capsys.readouterr() == ("", shown)


def test_what_a_spinner_shows_is_no_markup_and_steers_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("TERM", "xterm")
    with console.PlainConsole().status("[/red] first \x1b]0;title\x07") as spinner:
        spinner.console.print("a line")  # which draws it at once
        spinner.update("[/red] then \x1b]0;title\x07")
    shown = capsys.readouterr().out
    assert "[/red] first" in shown
    assert "[/red] then" in shown
    assert "\x1b]" not in shown


@pytest.mark.parametrize("name", console.EXIT_CODES)
def test_an_error_of_ours_has_one_exit_code_in_every_command(name: str):
    module, _, kind = name.rpartition(".")
    error = getattr(importlib.import_module(module), kind)
    assert name in console.class_names(error.__new__(error))
    assert exit_code(error.__new__(error)) == console.EXIT_CODES[name]


def test_an_interrupted_command_says_how_to_resume(capsys: pytest.CaptureFixture[str]):
    assert exit_code(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"


@pytest.mark.parametrize("bug", [ZeroDivisionError, KeyError, IndexError])
def test_a_bug_keeps_its_traceback(bug: type[Exception]):
    with pytest.raises(bug), exit_on(LookupError):
        raise bug


def test_a_command_that_is_interrupted_in_a_query_says_how_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    press = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    try:
        with pytest.raises(typer.Exit) as ended, exit_on(), warehouse.in_memory(tmp_path) as con:
            press.start()  # not before: what is interrupted while it is opened may go on
            con.execute("select sum(hash(i)) from range(500_000_000) as numbers (i)")
    finally:
        press.cancel()
        signal.signal(signal.SIGINT, before)
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        pytest.param(
            30, ["  better on 40 requests, worse", "  on 2, of 100"], id="a-narrow-terminal"
        ),
        pytest.param(None, ["  better on 40 requests, worse on 2, of 100"], id="a-file"),
        pytest.param(
            12, ["  better on", "  40", "  requests,", "  worse on", "  2, of 100"], id="a-slit"
        ),
    ],
)
def test_a_sentence_is_broken_between_words(width: int | None, lines: list[str]):
    text = "better on 40 requests, worse on 2, of 100"
    assert console.wrapped(text, "  ", width).splitlines() == lines
