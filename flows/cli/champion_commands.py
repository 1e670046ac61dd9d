"""`flywheel rollback`, `lineage` and `starts`: the history of a champion and of turns."""

import getpass
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text
from rich.tree import Tree

from flows import settings
from flows.cli.console import exit_on

if TYPE_CHECKING:
    from components.register.ancestry import Ancestry, RowSource, ScorecardSummary, TrainingRecord


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
    from components.register.champion_change import RollbackError
    from flows import approver_keys, champions, lookup, rollback_rules

    home = settings.load()
    with exit_on(LookupError, RollbackError, approver_keys.SigningError, code=1):
        lookup.require_mlflow(home, f"rolling back {workload}")
        order = rollback_rules.Order(workload, to, by, reason, code)
        if rollback_rules.is_signed(home, workload):
            form, rules = champions.rollback_form(home, order)
            if rules.proof == "signature":
                signature = approver_keys.sign_statement(form, rules, key)
                order = replace(order, signature=signature)
        entry = champions.roll_back(home, order, _print_line)
    _print_line(champions.describe_rollback(entry))


def _print_line(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


errors = Console(stderr=True, highlight=False)

PICTURE_SUFFIXES = (".png", ".svg")

TREE_WIDTH = 1000  # characters of a line where nobody's terminal has to wrap it


@app.command()
def lineage(
    workload: Annotated[str, typer.Argument(help="The workload's name, as in its file.")],
    version: Annotated[
        str, typer.Argument(help="A version's number, or `champion`, `challenger`, `previous`.")
    ] = "champion",
    picture: Annotated[
        Path | None, typer.Option(help="Draw it, too: a file that ends in .png or .svg.")
    ] = None,
) -> None:
    """Tell what a version came from: who decided, on what scores, of which rows, from which lines.

    Of each kind of row the first few ids are told, with file and line. What was erased, archived
    or deleted since is told as such.

    `flywheel lineage support-routing` is about the champion; `flywheel lineage support-routing 3
    --picture v3.svg` about version 3, and draws it.
    """
    from flows import lookup

    if picture is not None and picture.suffix not in PICTURE_SUFFIXES:
        errors.print(
            f"--picture: {picture} wants to end in {' or '.join(PICTURE_SUFFIXES)}", markup=False
        )
        raise typer.Exit(2)
    with exit_on(LookupError):
        found = lookup.trace_version(settings.load(), workload, version)
    wide = console if console.is_terminal else Console(highlight=False, width=TREE_WIDTH)
    wide.print(lineage_tree(found))
    if picture is not None:
        from components.register import ancestry_chart

        ancestry_chart.draw_ancestry(found, picture)
        console.print(str(picture), markup=False, soft_wrap=True)


def lineage_tree(ancestry: "Ancestry") -> Tree:
    """Put an ancestry as a tree; what comes from anywhere stays text."""
    version = ancestry.version
    standing = ", ".join(ancestry.aliases) or version.decision or "waits for a decision"
    root = Tree(Text(f"{version.name} version {version.number}: {standing}"))
    if version.tainted:
        root.add(Text(f"learned from rows that were erased: certificate {version.tainted}"))
    for entry in ancestry.changes:
        change = entry.change
        told = f"{change.kind} to version {change.version}, {entry.step} {entry.noted_at:%Y-%m-%d}"
        root.add(Text(f"{told}, by {change.asked_by}: {change.reason or 'no reason given'}"))
    for word in ancestry.words:
        who = word.approver or "a name since erased"
        said = f"{word.decision} by {who} on {word.decided_at:%Y-%m-%d %H:%M} UTC"
        root.add(Text(f"{said}: {word.comment}" if word.comment else said))
    judged = root.add(Text(f"evidence {version.evidence}: {ancestry.outcome}"))
    for reason in ancestry.reasons:
        judged.add(Text(reason))
    for card in ancestry.scorecards:
        judged.add(Text(_scorecard_text(card)))
    for learned in ancestry.learned:
        _add_training(root, learned)
    return root


def _scorecard_text(card: "ScorecardSummary") -> str:
    of = f"of adapter {card.adapter}" if card.adapter else "of the base"
    many = "its folder is gone" if card.requests is None else f"{card.requests:,} requests"
    return f"{card.whose}'s scorecard {card.key} {of}: {card.task}, {many}"


def _add_training(root: Tree, learned: "TrainingRecord") -> None:
    made = learned.made_from
    base, commit = (made.base, made.commit) if made else ("unknown", "unknown")
    adapter = root.add(Text(f"adapter {learned.adapter}: on base {base}, code {commit}"))
    kept = f"holdout {learned.holdout_version}" if learned.rows else "its folder is gone"
    snapshot = adapter.add(Text(f"snapshot {learned.snapshot}: {kept}"))
    for side in learned.rows:
        counts = f"of {side.interactions:,} interactions, {side.feedback:,} feedback"
        ids = ", ".join(side.first_ids)
        snapshot.add(Text(f"{side.side}: {side.row_count:,} rows {counts}; first {ids}"))
    for votes in learned.feedback:
        ids = ", ".join(votes.first_ids)
        snapshot.add(Text(f"{votes.kind}: {votes.events:,} events; first {ids}"))
    for one in learned.sources:
        branch = snapshot.add(Text(_source_text(one)))
        for id, line in zip(one.first_ids, one.first_lines, strict=True):
            branch.add(Text(f"line {line}: {id}" if line is not None else id))


def _source_text(source: "RowSource") -> str:
    rows = f"{source.row_count:,} {source.kind}"
    if source.place is None:
        return f"gone: {rows}, erased or of no file"
    if source.first_line is None:
        return f"{source.place}: {rows}, archived"
    return f"{source.place}: {rows} from lines {source.first_line} to {source.last_line}"


starts_app = typer.Typer(add_completion=False)


@starts_app.command()
def starts(
    workload: Annotated[str | None, typer.Argument(help="Whose; all if left out.")] = None,
    most: Annotated[int, typer.Option("--most", "-n", min=1, help="So many, the newest.")] = 20,
) -> None:
    """List the turns that were started, and the looks that started none, each with its reason."""
    from components.monitor import turn_starts
    from components.store import warehouse

    with warehouse.connect(settings.load().warehouse) as con:
        found = turn_starts.read_starts(con, workload, most)
    console = Console(highlight=False)
    if not found:
        console.print("no turn has been started or thought of yet")
        return
    table = Table("when (UTC)", "workload", "", "by", Column("why", overflow="fold"), box=None)
    for one in found:
        said = "turn" if one.started else "no turn"
        when = f"{one.looked_at:%Y-%m-%d %H:%M}"
        table.add_row(when, one.workload_id, said, one.cause, escape(one.reason))
    console.print(table)
