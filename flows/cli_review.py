"""``flywheel review``: a person is asked about the interactions whose label would help most."""

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

from flows import settings
from flows.explaining import explained

if TYPE_CHECKING:
    from components.review.reading import Question
    from components.schema import Answer, Json
    from flows.review import Answered
    from flows.workload import Workload

app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

KEYS = "[b]g[/b]ood  [b]b[/b]ad  [b]c[/b]orrect  [b]s[/b]kip  [b]q[/b]uit: "
MOST_SHOWN = 2000
"""Characters of a message that are shown; the beginning of a longer one."""


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
    with _explained():
        workload = _read(config)
        if import_:
            _import(workload, import_, reviewer)
        else:
            _review(workload, count, reviewer, export)


def _review(workload: "Workload", count: int, reviewer: str, path: Path | None) -> None:
    from flows import review

    home = settings.load()
    if not home.warehouse.exists():
        errors.print(f"reviewing: there is no warehouse at {home.warehouse}", soft_wrap=True)
        raise typer.Exit(2)
    now = datetime.now(UTC)
    asked = review.questions(home, workload, count, reviewer=reviewer, now=now)
    if not asked:
        console.print(f"{workload.workload}: nothing is left to ask {escape(reviewer)} about")
        return
    if path:
        written = review.export(path, asked, now=now)
        console.print(f"{written} questions written to {path}", markup=False, soft_wrap=True)
        return
    ended = review.ask(
        home,
        asked,
        lambda number, question: _ask(number, len(asked), question, reviewer),
        now=lambda: datetime.now(UTC),
    )
    console.print(f"{ended.answered} of {len(asked)} answered; {ended.loaded} new rows loaded")
    _remind(workload, reviewer)


def _import(workload: "Workload", path: Path, reviewer: str) -> None:
    from flows import review

    home, now = settings.load(), datetime.now(UTC)
    loaded, unanswered = review.take_in(home, path, workload.workload, reviewer=reviewer, now=now)
    if loaded.skipped:
        console.print(f"{path}: loaded before", markup=False, soft_wrap=True)
        return
    console.print(
        f"{path}: {loaded.new} answers, {loaded.known} known, {unanswered} unanswered, "
        f"{loaded.quarantined} lines in quarantine",
        markup=False,
        soft_wrap=True,
    )
    _remind(workload, reviewer)


def _ask(number: int, total: int, question: "Question", reviewer: str) -> "Answered":
    """Show a question and take one answer; a correction that is none is asked for again."""
    from flows import review

    _show(number, total, question)
    while True:
        try:
            key = console.input(KEYS).strip().lower()[:1]
        except (EOFError, KeyboardInterrupt):
            return "quit"
        now = datetime.now(UTC)
        match key:
            case "g" | "b":
                verdict = "good" if key == "g" else "bad"
                return review.vote(question.about, verdict, reviewer=reviewer, at=now)
            case "c":
                if (text := _correct(question)) is None:
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


def _show(number: int, total: int, question: "Question") -> None:
    from components.schema import Answer

    about = question.about
    why = "; ".join(reason.said for reason in question.pick.reasons)
    console.rule(f"{number} of {total}  {about.interaction_id[:12]}")
    console.print(f"[dim]asked because: {escape(why)}[/dim]", soft_wrap=True)
    for message in cast("list[dict[str, Json]]", json.loads(about.messages)):
        _say(str(message.get("role")), _words(message))
    if names := _tool_names(about.tools):
        console.print(f"[dim]tools: {escape(', '.join(names))}[/dim]", soft_wrap=True)
    answer = _answer_text(Answer.from_json(about.answer))
    console.print(Panel(escape(_short(answer)), title="answer", title_align="left"))


def _correct(question: "Question") -> str | None:
    """Take a correction from the person's editor, or, without one, from a line."""
    from components.review import answers
    from components.schema import Answer

    answer = Answer.from_json(question.about.answer)
    written = (
        json.dumps(answers.to_message(answer), indent=2, ensure_ascii=False)
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


def _words(message: "dict[str, Json]") -> str:
    content, calls = message.get("content"), message.get("tool_calls")
    said = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return said if not calls else json.dumps(calls, ensure_ascii=False)


def _tool_names(tools: str) -> list[str]:
    found = cast("list[dict[str, dict[str, str]]]", json.loads(tools))
    return [str(tool.get("function", {}).get("name")) for tool in found]


def _say(role: str, text: str) -> None:
    console.print(f"[b]{escape(role)}[/b]  {escape(_short(text))}", soft_wrap=True)


def _short(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + " ..."


def _remind(workload: "Workload", reviewer: str) -> None:
    if reviewer not in workload.curate.preferences.trusted:
        console.print(
            f"{escape(reviewer)} is not among `curate: preferences: trusted`, so that "
            "what is much or fast from one person may be held back",
            soft_wrap=True,
        )


def _read(config: Path) -> "Workload":
    from flows import config as configs

    return configs.read(config)


def _explained() -> AbstractContextManager[None]:
    from components import warehouse
    from components.curate.split import SplitChangedError
    from flows.config import ConfigError

    refused = (ConfigError, SplitChangedError, warehouse.CheckFailedError)
    return explained(*refused, OSError, LookupError, warehouse.WarehouseNewerError)
