"""``flywheel rollback``: a bad champion is gone, now."""

import getpass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows import settings
from flows.explaining import explained

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)


@app.command()
def rollback(
    workload: Annotated[str, typer.Argument(help="The workload's name, as in its file.")],
    by: Annotated[
        str, typer.Option("--as", help="Your name; kept.", default_factory=getpass.getuser)
    ],
    to: Annotated[
        str | None,
        typer.Option(help="A version's number; the one before the champion if left out."),
    ] = None,
    reason: Annotated[str, typer.Option(help="What the champion did wrong; kept.")] = "",
    code: Annotated[
        str,
        typer.Option(
            help="Your one-time code, where the workload's file asks for one; it proves that you "
            "were here, not what you said.",
            envvar="FLYWHEEL_CODE",
        ),
    ] = "",
    key: Annotated[
        Path | None,
        typer.Option(
            help="The SSH key to sign with, where the workload's file asks for signatures.",
            envvar="FLYWHEEL_KEY",
        ),
    ] = None,
) -> None:
    """Make an older champion the champion again, at once; MLflow must be up, Prefect need not.

    Only a version that was champion once, by an approval in the chain of decisions, and whose rows
    nobody has had erased, can be gone back to. Who asks for it proves the name as for an approval.
    What was rolled back is not asked about again: the next turn needs new data for it.

    `flywheel rollback support-routing --reason "answers in French"` goes to the version before;
    `flywheel rollback support-routing --to 3` to version 3, also to undo a rollback.
    """
    from components.register.rollback import RollbackError
    from flows import champions, signing, versions

    home = settings.load()
    with explained(LookupError, RollbackError, signing.SigningError, code=1):
        versions.require_mlflow(home, f"rolling back {workload}")
        signature = ""
        if champions.is_signed(home, workload):
            form, rules = champions.form(home, workload, to, by=by, reason=reason)
            signature = signing.signed(form, rules, key) if rules.proof == "signature" else ""
        entry = champions.roll_back(
            home, workload, to, by=by, reason=reason, code=code, signature=signature, say=_say
        )
    _say(champions.say_rollback(entry))


def _say(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
