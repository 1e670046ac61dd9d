"""`flywheel rollback` and `lineage`: the history of a champion."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.tree import Tree

from flows import settings
from flows.cli.console import (
    console,
    errors,
    exit_on,
    fail,
    has_person,
    print_line,
)
from flows.cli.parameters import CodeOption, KeyOption, PersonOption, WorkloadArgument

if TYPE_CHECKING:
    from components.release.ancestry import Ancestry, RowSource, ScorecardSummary, TrainingRecord

app = typer.Typer(add_completion=False, no_args_is_help=True)

PICTURE_SUFFIXES = (".png", ".svg")

MAX_FILES = 20  # files of rows that are listed; a folder may hold one for each request


@app.command()
@exit_on(LookupError, code=1)
def rollback(
    workload: WorkloadArgument,
    by: PersonOption,
    to: Annotated[
        str | None,
        typer.Option(help="A version's number; the one before the champion if left out."),
    ] = None,
    reason: Annotated[str, typer.Option(help="What the champion did wrong; stored.")] = "",
    is_sure: Annotated[
        bool, typer.Option("--yes", "-y", help="Don't ask, though a canary runs.")
    ] = False,
    code: CodeOption = "",
    key: KeyOption = None,
) -> None:
    """Make an older champion the champion again, at once; MLflow must be up, Prefect need not.

    It is about the champion, not about a canary, which `flywheel serve canary stop` ends. While a
    canary runs, it ends with its champion: a person at a terminal is asked first, unless --to or
    --yes is given, and a script is not.

    The version must have been champion once, by an approval in the chain of decisions, and none of
    its rows may have been erased. You prove your name as for an approval. What was rolled back is
    not offered again: the next turn needs new data for it.

    `flywheel rollback support-routing --reason "answers in French"` goes to the version before;
    `flywheel rollback support-routing --to 3` to version 3, also to undo a rollback.
    """
    home = settings.load()
    with errors.status("looking up the version"):
        from components.release import champions, rollback_rules
        from flows import approver_keys, lookup, release_home

        lookup.require_mlflow(home, f"rolling back {workload}")
        order = rollback_rules.Order(workload, to, by, reason, code)
        outlook = champions.rollback_outlook(workload, to)
    for sentence in outlook.sentences:
        print_line(sentence)
    if outlook.canary is not None and to is None and not is_sure and has_person():
        # Of what changes meanwhile nothing was asked.
        order = replace(order, ordered_at=datetime.now(UTC))
        typer.confirm("Roll the champion back, and end the canary with it?", abort=True)
    if rollback_rules.is_signed(release_home.of(home), workload):
        form, rules = champions.rollback_form(release_home.of(home), order)
        if rules.proof == "signature":
            signature = approver_keys.sign_statement(form, rules, key)
            order = replace(order, signature=signature)
    entry = champions.roll_back(release_home.of(home), order, print_line)
    print_line(champions.describe_rollback(entry))


@app.command()
@exit_on(LookupError)
def lineage(
    workload: WorkloadArgument,
    version: Annotated[
        str, typer.Argument(help="A version's number, or `champion`, `challenger`, `previous`.")
    ] = "champion",
    picture: Annotated[
        Path | None, typer.Option(help="Draw it, too: a file that ends in .png or .svg.")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--all", help="List every file, not only those with the most rows.")
    ] = False,
) -> None:
    """Show what a version came from: who decided, on what scores, which rows, from which lines.

    Lists the first few ids of each kind of row, with file and line, and names what was erased,
    archived or deleted since.

    `flywheel lineage support-routing` is about the champion; `flywheel lineage support-routing 3
    --picture v3.svg` about version 3, and draws it.
    """
    if picture is not None and picture.suffix not in PICTURE_SUFFIXES:
        fail(f"--picture: expected a file that ends in {' or '.join(PICTURE_SUFFIXES)}: {picture}")
    with errors.status("tracing"):
        from flows import lookup

        ancestry = lookup.trace_version(settings.load(), workload, version)
    console.print(lineage_tree(ancestry, whole=whole))
    if picture is not None:
        from components.release import ancestry_chart

        ancestry_chart.draw_ancestry(ancestry, picture)
        print_line(str(picture))


def lineage_tree(ancestry: "Ancestry", *, whole: bool = False) -> Tree:
    """Return an ancestry as a tree, with the largest files or with the ``whole`` list."""
    version = ancestry.version
    standing = ", ".join(ancestry.aliases) or version.decision or "waits for a decision"
    root = Tree(f"{version.name} version {version.number}: {standing}")
    if version.tainted:
        root.add(f"learned from rows that were erased: certificate {version.tainted}")
    for recorded in ancestry.changes:
        change = recorded.change
        to = f"version {change.version}" if change.version else "no version"
        step = f"{change.kind} to {to} {recorded.changed_at:%Y-%m-%d}"
        root.add(f"{step}, by {change.asked_by}: {change.reason or 'no reason given'}")
    for word in ancestry.words:
        who = word.approver or "a name since erased"
        decision = f"{word.decision} by {who} on {word.decided_at:%Y-%m-%d %H:%M} UTC"
        root.add(f"{decision}: {word.comment}" if word.comment else decision)
    judged = root.add(f"evidence {version.evidence}: {ancestry.outcome}")
    for reason in ancestry.reasons:
        judged.add(reason)
    for card in ancestry.scorecards:
        judged.add(_scorecard_text(card))
    for learned in ancestry.learned:
        _add_training(root, learned, None if whole else MAX_FILES)
    return root


def _scorecard_text(card: "ScorecardSummary") -> str:
    model = f"adapter {card.adapter}" if card.adapter else "the base"
    size = "its folder is gone" if card.requests is None else f"{card.requests:,} requests"
    return f"{card.whose}'s scorecard {card.key} of {model}: {card.task}, {size}"


def _add_training(root: Tree, learned: "TrainingRecord", most: int | None) -> None:
    made = learned.made_from
    base, commit = (made.base, made.commit) if made else ("unknown", "unknown")
    adapter = root.add(f"adapter {learned.adapter}: on base {base}, code {commit}")
    kept = f"holdout {learned.holdout_version}" if learned.rows else "its folder is gone"
    snapshot = adapter.add(f"snapshot {learned.snapshot}: {kept}")
    for side in learned.rows:
        counts = f"of {side.interactions:,} interactions, {side.feedback:,} feedback"
        ids = ", ".join(side.first_ids)
        snapshot.add(f"{side.side}: {side.row_count:,} rows {counts}; first {ids}")
    for votes in learned.feedback:
        ids = ", ".join(votes.first_ids)
        snapshot.add(f"{votes.kind}: {votes.events:,} events; first {ids}")
    for source in learned.sources[:most]:
        branch = snapshot.add(_source_text(source))
        for id, line in zip(source.first_ids, source.first_lines, strict=True):
            branch.add(f"line {line}: {id}" if line is not None else id)
    if rest := learned.sources[most:] if most else []:
        rows = sum(source.row_count for source in rest)
        snapshot.add(f"and {len(rest):,} more files of {rows:,} rows: --all lists them")


def _source_text(source: "RowSource") -> str:
    rows = f"{source.row_count:,} {source.kind}"
    if source.place is None:
        return f"gone: {rows}, erased or of no file"
    if source.first_line is None:
        return f"{source.place}: {rows}, archived"
    return f"{source.place}: {rows} from lines {source.first_line} to {source.last_line}"
