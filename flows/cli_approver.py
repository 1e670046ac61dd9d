"""``flywheel approver``: give a person the secret of one-time codes."""

from typing import Annotated

import typer
from rich.console import Console

from flows import settings
from flows.explaining import explained

app = typer.Typer(help="Let a person prove with one-time codes who decides.", no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


@app.command("add")
def add_approver(
    name: Annotated[str, typer.Argument(help="The name, as the workload's file lists it.")],
    block: Annotated[
        str | None,
        typer.Option(
            help="Keep the secret in the Prefect Secret block of this name, and not in a file of "
            "the home; the stack must be up."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Replace the secret that the person has.")
    ] = False,
) -> None:
    """Draw the secret of a person's one-time codes, and show it once for an authenticator app.

    List the person under `approve: approvers:` in the workload's file, with `codes: true`.
    """
    import segno

    from components.decide import approvers, totp
    from flows import secrets

    try:
        listed = approvers.Approver(name=name, secret_block=block)
        home = settings.load()
        drawn = (
            _enrol_in_block(name, block, again=again)
            if block
            else secrets.enrol(home, listed.name, again=again)
        )
    except ValueError as error:
        errors.print(f"enrolling {name!r}: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    address = totp.uri(drawn, name, home=home.home.name)
    segno.make(address, error="m").terminal(compact=True)
    console.print(address, markup=False, soft_wrap=True)
    place = f"the Secret block {block}" if block else str(secrets.file(home, name))
    console.print(f"kept in {place}; scan it, or type it in: it is not shown again", markup=False)


def _enrol_in_block(name: str, block: str, *, again: bool) -> str:
    from prefect.exceptions import PrefectHTTPStatusError

    from flows import secret_blocks, watch

    with explained(watch.TurnError, PrefectHTTPStatusError, code=1):
        return watch.patiently(lambda: secret_blocks.enrol(name, block, again=again))
