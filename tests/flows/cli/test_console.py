"""What a command says, and how it exits, when something goes wrong on its way."""

import pytest
import typer

from flows.cli.console import exit_on


def ended(error: BaseException, code: int) -> int:
    """Raise an error on a command's way; give the exit code."""
    with pytest.raises(typer.Exit) as found, exit_on(LookupError, code=code):
        raise error
    return found.value.exit_code


@pytest.mark.parametrize("code", [1, 2])
def test_a_known_error_is_its_message_as_it_is(code: int, capsys: pytest.CaptureFixture[str]):
    assert ended(LookupError("[red]no such version[/red]"), code) == code
    assert capsys.readouterr() == ("", "[red]no such version[/red]\n")


def test_an_interrupted_command_says_how_to_go_on(capsys: pytest.CaptureFixture[str]):
    assert ended(KeyboardInterrupt(), 2) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), exit_on(LookupError):
        raise ZeroDivisionError
