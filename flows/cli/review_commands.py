"""`flywheel review` and `feedback`: label interactions, and see what feedback did."""

import getpass
import json
import os
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import click
import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from flows import settings
from flows.cli.console import exit_on, open_warehouse

if TYPE_CHECKING:
    from components.curate.preferences.outcomes import FeedbackEvidence
    from components.review.pick import ReviewQuestion
    from components.schema import Answer, Json
    from flows.review import Answered
    from flows.workload_file import Workload


app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

ANSWER_KEYS = "[b]g[/b]ood  [b]b[/b]ad  [b]c[/b]orrect  [b]s[/b]kip  [b]q[/b]uit: "
MOST_CHARACTERS = 2000  # characters of a message that are shown; the beginning of a longer one


@app.command()
def review(
    config: Annotated[Path, typer.Argument(help="The YAML file that describes the workload.")],
    reviewer: Annotated[
        str,
        typer.Option(
            "--as", help="Your name; stored with each answer.", default_factory=getpass.getuser
        ),
    ],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many to ask about.")] = 20,
    export: Annotated[
        Path | None, typer.Option(help="Write the questions to a file of lines, and ask nothing.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", help="Load such a file with its answers filled in.")
    ] = None,
) -> None:
    """Ask a person about the interactions whose label would help most, and load the answers.

    What people or models disagree about comes first, then large kinds that nobody has judged and
    what rules flagged; of nearly equal requests one is asked about. Each answer is kept at once.
    Nobody is asked about what one has judged before. In an exported line set `verdict` to good or
    bad, or `correction` to a text or an assistant message.
    """
    if export and import_:
        errors.print("wants --export or --import, not both")
        raise typer.Exit(2)
    with _exit_on_review_errors():
        workload = _read_workload(config)
        if import_:
            _import_answers(workload, import_, reviewer)
        else:
            _review(workload, count, reviewer, export)


def _review(workload: "Workload", count: int, reviewer: str, path: Path | None) -> None:
    from flows import review

    home = settings.load()
    if not home.warehouse.exists():
        errors.print(f"reviewing: there is no warehouse at {home.warehouse}", soft_wrap=True)
        raise typer.Exit(2)
    now = datetime.now(UTC)
    asked = review.choose_questions(home, workload, count, reviewer=reviewer, now=now)
    if not asked:
        console.print(f"{workload.workload}: nothing is left to ask {escape(reviewer)} about")
        return
    if path:
        written = review.export_questions(path, asked, now=now)
        console.print(f"{written} questions written to {path}", markup=False, soft_wrap=True)
        return
    ended = review.ask_questions(
        home,
        asked,
        lambda number, question: _ask_question(number, len(asked), question, reviewer),
        now=lambda: datetime.now(UTC),
    )
    console.print(f"{ended.answered} of {len(asked)} answered; {ended.loaded} new rows loaded")
    _print_reminder(workload, reviewer)


def _import_answers(workload: "Workload", path: Path, reviewer: str) -> None:
    from flows import review

    home, now = settings.load(), datetime.now(UTC)
    loaded, unanswered = review.import_answers(
        home, path, workload.workload, reviewer=reviewer, now=now
    )
    if loaded.skipped:
        console.print(f"{path}: loaded before", markup=False, soft_wrap=True)
        return
    console.print(
        f"{path}: {loaded.new} answers, {loaded.known} known, {unanswered} unanswered, "
        f"{loaded.quarantined} lines in quarantine",
        markup=False,
        soft_wrap=True,
    )
    _print_reminder(workload, reviewer)


def _ask_question(number: int, total: int, question: "ReviewQuestion", reviewer: str) -> "Answered":
    """Show a question and take one answer; a correction that is none is asked for again."""
    from flows import review

    _show_question(number, total, question)
    while True:
        try:
            key = console.input(ANSWER_KEYS).strip().lower()[:1]
        except (EOFError, KeyboardInterrupt):
            return "quit"
        now = datetime.now(UTC)
        match key:
            case "g" | "b":
                verdict = "good" if key == "g" else "bad"
                return review.vote(question.about, verdict, reviewer=reviewer, at=now)
            case "c":
                if (text := _ask_correction(question)) is None:
                    continue
                try:
                    return review.correction(question.about, text, reviewer=reviewer, at=now)
                except ValueError as error:
                    console.print(str(error), markup=False)
            case "s":
                return "skip"
            case "q":
                return "quit"
            case _:
                console.print("wants g, b, c, s or q")


def _show_question(number: int, total: int, question: "ReviewQuestion") -> None:
    from components.schema import Answer

    about = question.about
    why = "; ".join(reason.text for reason in question.pick.reasons)
    console.rule(f"{number} of {total}  {about.interaction_id[:12]}")
    console.print(f"[dim]asked because: {escape(why)}[/dim]", soft_wrap=True)
    for message in cast("list[dict[str, Json]]", json.loads(about.messages)):
        _print_message(str(message.get("role")), _message_text(message))
    if names := _tool_names(about.tools):
        console.print(f"[dim]tools: {escape(', '.join(names))}[/dim]", soft_wrap=True)
    answer = _answer_text(Answer.from_json(about.answer))
    console.print(Panel(escape(_shorten(answer)), title="answer", title_align="left"))


def _ask_correction(question: "ReviewQuestion") -> str | None:
    """Take a correction from the person's editor, or, without one, from a line."""
    from components.review import label_files
    from components.schema import Answer

    answer = Answer.from_json(question.about.answer)
    written = (
        json.dumps(label_files.to_message(answer), indent=2, ensure_ascii=False)
        if answer.calls
        else answer.text
    )
    if os.environ.get("VISUAL") or os.environ.get("EDITOR"):
        edited = click.edit(written)
        return None if edited is None or edited.strip() == written.strip() else edited
    typed = console.input("the answer should have been: ")
    return typed if typed.strip() else None


def _answer_text(answer: "Answer") -> str:
    calls = [
        f"{call.name}({json.dumps(call.arguments, ensure_ascii=False)})" for call in answer.calls
    ]
    return "\n".join(filter(None, [answer.text, *calls]))


def _message_text(message: "dict[str, Json]") -> str:
    content, calls = message.get("content"), message.get("tool_calls")
    said = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return said if not calls else json.dumps(calls, ensure_ascii=False)


def _tool_names(tools: str) -> list[str]:
    found = cast("list[dict[str, dict[str, str]]]", json.loads(tools))
    return [str(tool.get("function", {}).get("name")) for tool in found]


def _print_message(role: str, text: str) -> None:
    console.print(f"[b]{escape(role)}[/b]  {escape(_shorten(text))}", soft_wrap=True)


def _shorten(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + " ..."


def _print_reminder(workload: "Workload", reviewer: str) -> None:
    if reviewer not in workload.curate.preferences.trusted:
        console.print(
            f"{escape(reviewer)} is not among `curate: preferences: trusted`, so that "
            "what is much or fast from one person may be held back",
            soft_wrap=True,
        )


def _read_workload(config: Path) -> "Workload":
    from flows import workload_file as configs

    return configs.read_workload(config)


def _exit_on_review_errors() -> AbstractContextManager[None]:
    from components.curate.split import SplitChangedError
    from components.store import warehouse
    from flows.workload_file import WorkloadError

    refused = (WorkloadError, SplitChangedError, warehouse.CheckFailedError)
    return exit_on(*refused, OSError, LookupError, warehouse.WarehouseNewerError)


MOST_ROWS = 20


@app.command("feedback")
def show_feedback(
    workload: Annotated[str, typer.Argument(help="The workload's name, as its file has it.")],
) -> None:
    """Show what the last curation made of a workload's feedback.

    How many signals are used for what, or why not; the bursts that were found, with the evidence;
    whom the cap holds back, and by how much; and what people disagreed about. If somebody in there
    is a labeller or a check of yours, name them under `curate: preferences: trusted`.
    """
    from components.curate.preferences import outcomes

    with open_warehouse() as con:
        found = outcomes.read_evidence(con, workload)
    if not found.fates:
        console.print(f"no feedback in {workload}, or it has not been curated", markup=False)
        return
    for table in (
        _show_fates(found),
        _show_bursts(found),
        _show_capped(found),
        _show_disagreements(found),
    ):
        if table.row_count:
            console.print(table)


def _show_fates(evidence: "FeedbackEvidence") -> Table:
    table = _new_table("signals", "what became of them")
    for one in evidence.fates:
        table.add_row(f"{one.signals:,}", one.fate)
    return table


def _show_bursts(evidence: "FeedbackEvidence") -> Table:
    table = _new_table(
        "held back", "burst", "who", "from", "to", "found", "expected", "chance", "aim"
    )
    for one in evidence.bursts[:MOST_ROWS]:
        who = ", ".join(one.actors[:3]) + (
            f" and {n} more" if (n := len(one.actors) - 3) > 0 else ""
        )
        table.add_row(
            f"{one.held_back:,}",
            one.kind,
            escape(who),
            f"{one.first_at:%Y-%m-%d %H:%M}",
            f"{one.last_at:%Y-%m-%d %H:%M}",
            f"{one.found:,}",
            f"{one.expected:.2g}",
            f"{one.chance:.1g}",
            escape(one.aim),
        )
    return table


def _show_capped(evidence: "FeedbackEvidence") -> Table:
    table = _new_table("held back", "of", "client", "actor", "share before", "after", "cap")
    for one in evidence.capped[:MOST_ROWS]:
        table.add_row(
            f"{one.signals - one.kept:,}",
            f"{one.signals:,}",
            escape(one.client_id),
            escape(one.actor_id) or "(without a name)",
            f"{one.share_before:.1%}",
            f"{one.share_after:.1%}",
            f"{one.cap:.0%}",
        )
    return table


def _show_disagreements(evidence: "FeedbackEvidence") -> Table:
    table = _new_table("disagreements", "about", "outcome", "by")
    for one in evidence.disagreements:
        table.add_row(f"{one.found:,}", f"a {one.kind}", one.outcome, one.method)
    return table


def _new_table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    table.columns[0].justify = "right"
    return table
