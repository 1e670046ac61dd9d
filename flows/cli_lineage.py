"""``flywheel lineage``: from a version back to the decision, the rows and the lines of the logs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from flows import settings
from flows.explaining import explained

if TYPE_CHECKING:
    from components.register.ancestry import Ancestry, Learned, Measured, Source

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

PICTURES = (".png", ".svg")

WIDE = 1000
"""Characters of a line where nobody's terminal has to wrap it."""


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
    from flows import descent

    if picture is not None and picture.suffix not in PICTURES:
        errors.print(f"--picture: {picture} wants to end in {' or '.join(PICTURES)}", markup=False)
        raise typer.Exit(2)
    with explained(LookupError):
        found = descent.of(settings.load(), workload, version)
    wide = console if console.is_terminal else Console(highlight=False, width=WIDE)
    wide.print(tree(found))
    if picture is not None:
        from components.register import ancestry_picture

        ancestry_picture.draw(found, picture)
        console.print(str(picture), markup=False, soft_wrap=True)


def tree(found: "Ancestry") -> Tree:
    """Put an ancestry as a tree; what comes from anywhere stays text."""
    version = found.version
    standing = ", ".join(found.aliases) or version.decision or "waits for a decision"
    root = Tree(Text(f"{version.name} version {version.number}: {standing}"))
    if version.tainted:
        root.add(Text(f"learned from rows that were erased: certificate {version.tainted}"))
    for entry in found.changes:
        change = entry.change
        told = f"{change.kind} to version {change.version}, {entry.step} {entry.noted_at:%Y-%m-%d}"
        root.add(Text(f"{told}, by {change.asked_by}: {change.reason or 'no reason given'}"))
    for word in found.words:
        who = word.approver or "a name since erased"
        said = f"{word.decision} by {who} on {word.decided_at:%Y-%m-%d %H:%M} UTC"
        root.add(Text(f"{said}: {word.comment}" if word.comment else said))
    judged = root.add(Text(f"evidence {version.evidence}: {found.outcome}"))
    for reason in found.reasons:
        judged.add(Text(reason))
    for card in found.scorecards:
        judged.add(Text(_card(card)))
    for learned in found.learned:
        _add_training(root, learned)
    return root


def _card(card: "Measured") -> str:
    of = f"of adapter {card.adapter}" if card.adapter else "of the base"
    many = "its folder is gone" if card.requests is None else f"{card.requests:,} requests"
    return f"{card.whose}'s scorecard {card.key} {of}: {card.task}, {many}"


def _add_training(root: Tree, learned: "Learned") -> None:
    base, commit = (learned.made_from.get(name, "unknown") for name in ("base", "commit"))
    adapter = root.add(Text(f"adapter {learned.adapter}: on base {base}, code {commit}"))
    kept = f"holdout {learned.holdout_version}" if learned.rows else "its folder is gone"
    snapshot = adapter.add(Text(f"snapshot {learned.snapshot}: {kept}"))
    for one in learned.rows:
        if one.count:
            ids = ", ".join(one.first_ids)
            named = f"of {one.interactions:,} interactions, {one.feedback:,} feedback"
            snapshot.add(Text(f"{one.side}: {one.count:,} rows {named}; first {ids}"))
    for one in learned.feedback:
        snapshot.add(Text(f"{one.kind}: {one.events:,} events; first {', '.join(one.first_ids)}"))
    for one in learned.sources:
        branch = snapshot.add(Text(_source(one)))
        for id, line in zip(one.first_ids, one.first_lines, strict=True):
            branch.add(Text(f"line {line}: {id}" if line is not None else id))


def _source(one: "Source") -> str:
    rows = f"{one.row_count:,} {one.kind}"
    if one.place is None:
        return f"gone: {rows}, erased or of no file"
    if one.first_line is None:
        return f"{one.place}: {rows}, archived"
    return f"{one.place}: {rows} from lines {one.first_line} to {one.last_line}"
