"""``flywheel approver``: give a person the secret of one-time codes."""

from typing import Annotated

import typer
from rich.console import Console

from flows import settings

app = typer.Typer(help="Let a person prove with one-time codes who decides.", no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


@app.command("add")
def add_approver(
    name: Annotated[str, typer.Argument(help="The name, as the workload's file lists it.")],
    again: Annotated[
        bool, typer.Option("--again", help="Replace the secret that the person has.")
    ] = False,
) -> None:
    """Draw the secret of a person's one-time codes, and show it once for an authenticator app.

    List the person under `approve: approvers:` in the workload's file, with `proof: code`. A code
    proves that somebody who has the secret was there, not what was said: `proof: signature`, with
    the person's SSH key, proves both, and needs no secret here.
    """
    import segno

    from components.decide import approvers, totp
    from flows import secrets

    try:
        listed, home = approvers.Approver(name=name), settings.load()
        drawn = secrets.enrol(home, listed.name, again=again)
    except ValueError as error:
        errors.print(f"enrolling {name!r}: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    address = totp.uri(drawn, name, home=home.home.name)
    segno.make(address, error="m").terminal(compact=True)
    console.print(address, markup=False, soft_wrap=True)
    place = secrets.file(home, name)
    console.print(f"kept in {place}; scan it, or type it in: it is not shown again", markup=False)
