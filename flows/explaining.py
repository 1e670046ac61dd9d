"""Tell a person at a terminal what went wrong on a command's way: a message and an exit code."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from flows import settings

if TYPE_CHECKING:
    from components.warehouse import Connection

errors = Console(stderr=True, highlight=False)


@contextmanager
def explained(*known: type[Exception], code: int = 2) -> Generator[None]:
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
def opened(*known: type[Exception]) -> "Generator[Connection]":
    """Open the home's warehouse; one that is held or newer is explained, and what is ``known``."""
    from components import warehouse  # noqa: PLC0415 - slow to import

    expected = (OSError, warehouse.WarehouseNewerError, *known)
    with explained(*expected), warehouse.connect(settings.load().warehouse) as con:
        yield con
