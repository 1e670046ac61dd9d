"""`make spin`: the whole wheel turns on the demo's requests; exit code 0 if every promise held."""

import sys
from contextlib import suppress
from typing import Annotated

import typer

from flows import access, settings
from flows.cli import main
from flows.cli.console import exit_on
from tests.spin import course
from tests.spin.spin_plan import SpinError


@main.app.command()
@exit_on(SpinError, code=1)
def spin(
    turns: Annotated[
        int, typer.Option(min=1, help="How many turns; those of an earlier spin count.")
    ] = 4,
) -> None:
    """Let the wheel turn: an application asks the gateway, and each turn learns from its traffic.

    Nobody is asked: it approves as `demo`. It takes 10 to 35 minutes a turn, needs an empty home,
    and goes on from where it was interrupted.
    """
    course.run_spin(settings.load(), turns)


if __name__ == "__main__":
    with suppress(settings.SettingsError, OSError):  # which the command then explains
        home = settings.load()
        if not home.home.exists():
            access.secure_home(home)
    sys.argv.insert(1, "spin")
    main.main()
