"""`flywheel review` and `feedback`: label interactions, and see what feedback did."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import click
import typer
from rich.panel import Panel
from rich.table import Table

from flows import settings
from flows.cli.console import (
    console,
    errors,
    exit_on,
    fail,
    has_person,
    home_with_warehouse,
    new_table,
    open_warehouse,
    print_line,
    shorten,
)
from flows.cli.parameters import ConfigFile, PersonOption, WorkloadArgument
from flows.settings import Settings

if TYPE_CHECKING:
    from components.curate.preferences.outcomes import FeedbackEvidence
    from components.review.pick import ReviewQuestion
    from components.schema import Answer, Json
    from flows.review import Answered
    from flows.workload_file import Workload

app = typer.Typer(add_completion=False, no_args_is_help=True)

ANSWER_KEYS = "[b]g[/b]ood  [b]b[/b]ad  [b]c[/b]orrect  [b]s[/b]kip  [b]q[/b]uit: "
MAX_CHARACTERS = 2000  # characters of a message that are shown; the beginning of a longer one
MAX_ROWS = 20


@app.command()
@exit_on(OSError, LookupError)
def review(
    config: ConfigFile,
    reviewer: PersonOption,
    count: Annotated[
        int | None,
        typer.Option("--count", "-n", min=1, help="How many to ask about: 20, or 50 in an audit."),
    ] = None,
    audit: Annotated[
        bool,
        typer.Option("--audit", help="Ask about random held-out references instead."),
    ] = False,
    export: Annotated[
        Path | None, typer.Option(help="Write the questions to a file of lines, and ask nothing.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", help="Load such a file with its answers filled in.")
    ] = None,
) -> None:
    """Ask a person about the interactions whose label would help most, and load the answers.

    What people or models disagree about comes first, then large kinds that nobody has judged and
    what rules flagged; of nearly equal requests one is asked about. Each answer is stored at once.
    Nobody is asked twice about the same request. In an exported line set `verdict` to good or bad,
    or `correction` to a text or an assistant message.

    An audit asks about held-out references of the newest snapshot that nobody has confirmed or
    corrected, drawn by a hash, until all are answered; the approval form subtracts their error rate
    from what it claims. Unanswered ones count as wrong.
    """
    from flows import workload_file

    if export and import_:
        fail("expected --export or --import, not both")
    workload = workload_file.read_workload(config)
    home = settings.load() if import_ else home_with_warehouse("reviewing")
    if import_:
        _import_answers(home, workload, import_, reviewer)
    else:
        _review(home, workload, count, reviewer, export, is_audit=audit)


def _review(
    home: Settings,
    workload: "Workload",
    count: int | None,
    reviewer: str,
    path: Path | None,
    *,
    is_audit: bool,
) -> None:
    now = datetime.now(UTC)
    with errors.status("choosing questions"):
        from components.review.audit import SAMPLE
        from flows import review

        questions = (
            review.audit_questions(home, workload, count or SAMPLE, now=now)
            if is_audit
            else review.choose_questions(home, workload, count or 20, reviewer=reviewer, now=now)
        )
    if not questions:
        print_line(
            f"{workload.workload}: nothing is left to ask {reviewer} about, or it "
            "has not been curated"
        )
        return
    if path:
        written = review.export_questions(path, questions, now=now)
        print_line(f"{written} questions written to {path}")
        return
    if not has_person():
        fail(
            f"reviewing {workload.workload}: there is no terminal to ask {len(questions)} "
            "questions at; --export FILE writes them, --import FILE loads their answers"
        )
    ended = review.ask_questions(
        home,
        questions,
        lambda number, question: _ask_question(number, len(questions), question, reviewer),
        now=lambda: datetime.now(UTC),
        audited_by=reviewer if is_audit else None,
    )
    console.print(f"{ended.answered} of {len(questions)} answered; {ended.loaded} new rows loaded")
    _print_reminder(workload, reviewer)


def _import_answers(home: Settings, workload: "Workload", path: Path, reviewer: str) -> None:
    from flows import review

    loaded, unanswered = review.import_answers(
        home, path, workload.workload, reviewer=reviewer, now=datetime.now(UTC)
    )
    if loaded.skipped:
        print_line(f"{path}: loaded before")
        return
    print_line(
        f"{path}: {loaded.new} answers, {loaded.known} known, {unanswered} unanswered, "
        f"{loaded.quarantined} lines in quarantine"
    )
    _print_reminder(workload, reviewer)


def _ask_question(number: int, total: int, question: "ReviewQuestion", reviewer: str) -> "Answered":
    """Show a question and read one answer; ask again where a correction is missing or invalid."""
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
                    print_line(str(error))
            case "s":
                return "skip"
            case "q":
                return "quit"
            case _:
                console.print("expected g, b, c, s or q")


def _show_question(number: int, total: int, question: "ReviewQuestion") -> None:
    from components.schema import Answer

    about = question.about
    why = "; ".join(reason.text for reason in question.reasons)
    console.rule(f"{number} of {total}  {about.interaction_id[:12]}")
    console.print(f"asked because: {why}", style="dim", soft_wrap=True)
    for message in cast("list[dict[str, Json]]", json.loads(about.messages)):
        role, text = str(message.get("role")), shorten(_message_text(message), MAX_CHARACTERS)
        console.print(role, style="bold", end="  ", soft_wrap=True)
        print_line(text)
    if names := _tool_names(about.tools):
        console.print(f"tools: {', '.join(names)}", style="dim", soft_wrap=True)
    answer = _answer_text(Answer.from_json(about.answer))
    shown = shorten(answer, MAX_CHARACTERS)
    console.print(Panel(shown, title="answer", title_align="left"))


def _ask_correction(question: "ReviewQuestion") -> str | None:
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
    if isinstance(content, str) and not calls:
        return content
    return json.dumps(calls or content, ensure_ascii=False)


def _tool_names(tools: str) -> list[str]:
    offered = cast("list[dict[str, dict[str, str]]]", json.loads(tools))
    return [str(tool.get("function", {}).get("name")) for tool in offered]


def _print_reminder(workload: "Workload", reviewer: str) -> None:
    if reviewer not in workload.curate.preferences.trusted:
        print_line(
            f"{reviewer} is not among `curate: preferences: trusted`, so that many or fast answers "
            "of one person may be held back"
        )


@app.command("feedback")
@exit_on()
def show_feedback(
    workload: WorkloadArgument,
) -> None:
    """Show what the last curation made of a workload's feedback.

    How many signals are used for what, or why not; the bursts that were found, with the evidence;
    whom the cap holds back, and by how much; and what people disagreed about. Name your labellers
    and automatic checks under `curate: preferences: trusted`.
    """
    from components.curate.preferences import outcomes

    with open_warehouse() as con:
        evidence = outcomes.read_evidence(con, workload)
    if not evidence.fates:
        print_line(f"no feedback in {workload}, or it has not been curated")
        return
    for table in (
        _fates_table(evidence),
        _bursts_table(evidence),
        _capped_table(evidence),
        _disagreements_table(evidence),
    ):
        if table.row_count:
            console.print(table)


def _fates_table(evidence: "FeedbackEvidence") -> Table:
    table = new_table("signals", "what became of them", is_counted=True)
    for fate in evidence.fates:
        table.add_row(f"{fate.signals:,}", fate.fate)
    return table


def _bursts_table(evidence: "FeedbackEvidence") -> Table:
    columns = "held back", "burst", "who", "from", "to", "found", "expected", "chance", "aim"
    table = new_table(*columns, is_counted=True)
    for burst in evidence.bursts[:MAX_ROWS]:
        others = len(burst.actors) - 3
        table.add_row(
            f"{burst.held_back:,}",
            burst.kind,
            ", ".join(burst.actors[:3]) + (f" and {others} more" if others > 0 else ""),
            f"{burst.first_at:%Y-%m-%d %H:%M}",
            f"{burst.last_at:%Y-%m-%d %H:%M}",
            f"{burst.found:,}",
            f"{burst.expected:.2g}",
            f"{burst.chance:.1g}",
            burst.aim,
        )
    return table


def _capped_table(evidence: "FeedbackEvidence") -> Table:
    columns = "held back", "of", "client", "actor", "share before", "after", "cap"
    table = new_table(*columns, is_counted=True)
    for actor in evidence.capped[:MAX_ROWS]:
        table.add_row(
            f"{actor.signals - actor.kept:,}",
            f"{actor.signals:,}",
            actor.client_id,
            actor.actor_id or "(without a name)",
            f"{actor.share_before:.1%}",
            f"{actor.share_after:.1%}",
            f"{actor.cap:.0%}",
        )
    return table


def _disagreements_table(evidence: "FeedbackEvidence") -> Table:
    table = new_table("disagreements", "about", "outcome", "by", is_counted=True)
    for kind in evidence.disagreements:
        table.add_row(f"{kind.found:,}", f"a {kind.kind}", kind.outcome, kind.method)
    return table
