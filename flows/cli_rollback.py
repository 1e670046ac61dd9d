"""``flywheel rollback``: a bad champion is gone, now."""

import getpass
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
) -> None:
    """Make an older champion the champion again, at once; MLflow must be up, Prefect need not.

    Only a version that a person once approved, and whose rows nobody has had erased, can be gone
    back to. What was rolled back is not asked about again: the next turn needs new data for it.

    `flywheel rollback support-routing --reason "answers in French"` goes to the version before;
    `flywheel rollback support-routing --to 3` to version 3, also to undo a rollback.
    """
    from components.register.rollback import RollbackError
    from flows import champions, versions

    home = settings.load()
    with explained(LookupError, RollbackError, code=1):
        versions.require_mlflow(home, f"rolling back {workload}")
        entry = champions.roll_back(home, workload, to, by=by, reason=reason, say=_say)
    _say(champions.say_rollback(entry))


def _say(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
