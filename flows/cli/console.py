"""Errors and the warehouse for commands: map known errors to messages and exit codes."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from flows import settings

if TYPE_CHECKING:
    from components.store.warehouse import Connection

errors = Console(stderr=True, highlight=False)


@contextmanager
def exit_on(*known: type[Exception], code: int = 2) -> Generator[None]:
    """Print what an error says, without its traceback, and exit; others are bugs and pass.

    Args:
        known: The errors whose message a person can act on.
        code: The exit code: 2 where another command is wanted, 1 where the same one may go on.
    """
    try:
        yield
    except known as error:
        errors.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(code) from error
    except KeyboardInterrupt:
        errors.print("interrupted; run the same command again to go on")
        raise typer.Exit(130) from None


@contextmanager
def open_warehouse(*known: type[Exception]) -> "Generator[Connection]":
    """Open the home's warehouse; one that is held or newer is explained, and what is ``known``."""
    from components.store import warehouse

    expected = (OSError, warehouse.WarehouseNewerError, *known)
    with exit_on(*expected), warehouse.connect(settings.load().warehouse) as con:
        yield con
