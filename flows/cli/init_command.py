"""Profile a workload's logged interactions: what the answers are, languages, lengths, tools."""

import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from tokenizers import Tokenizer

from components.chat import prompt
from components.chat.token_counts import FILE
from components.curate.rules import language
from components.evaluate import metrics
from components.evaluate.metrics import AnswerSpace
from components.schema import Answer, Json
from flows.cli.console import exit_on

if TYPE_CHECKING:
    from components.collect.source import Input
    from components.collect.survey import LoggedWorkload, SurveyedFile
    from components.store.warehouse import Connection


BYTES_A_TOKEN = 4
"""Of text in UTF-8, where no tokenizer is at hand: about 4 letters, or one character of Chinese."""


@dataclass(frozen=True, slots=True)
class TextLengths:
    """Lengths of a sample of texts."""

    median: int
    high: int
    """Nineteen of twenty are no longer."""
    longest: int


@dataclass(frozen=True, slots=True)
class LogProfile:
    """What a sample of a workload's interactions shows.

    ``languages`` counts the requests in each, as far as that can be told. ``offered`` requests
    offer tools, ``calling`` answers call one. ``tool_lists`` counts the different sets of tools,
    ``most_offered`` the requests that offer the most frequent tool, ``conversations`` the different
    first messages, ``most_frequent`` the most frequent text.
    """

    sampled: int
    unreadable: int
    answers: AnswerSpace
    most_frequent: int
    languages: Mapping[str, int]
    offered: int
    calling: int
    tool_lists: int
    most_offered: int
    conversations: int
    users: int
    prompt_characters: TextLengths
    prompt_tokens: TextLengths
    answer_tokens: TextLengths
    total_tokens: TextLengths


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A logged request, rendered, and its answer."""

    prompt: str
    answer: Answer
    tools: frozenset[str]
    opening: str
    user: str | None
    language: str | None


def profile_logs(records: Iterable[dict[str, Json]], base: Path | None) -> LogProfile | None:
    """Profile canonical records; ``None`` if none of them can be read.

    Args:
        records: A sample of them.
        base: Tokens are counted with this base's tokenizer, estimated without one.
    """
    exchanges: list[_Exchange] = []
    unreadable = 0
    for record in records:
        try:
            exchanges.append(_exchange(record))
        except (ValueError, LookupError, TypeError, AttributeError):
            unreadable += 1
    if not exchanges:
        return None
    answers = [one.answer for one in exchanges]
    offers_tools = any(one.tools for one in exchanges)
    offers = Counter(tool for one in exchanges for tool in one.tools)
    texts = Counter(answer.text.strip() for answer in answers)
    asked = _count(base, [one.prompt for one in exchanges])
    answered = _count(base, [prompt.render_answer(answer) for answer in answers])
    return LogProfile(
        sampled=len(exchanges),
        unreadable=unreadable,
        answers=metrics.find_answer_space(answers, None, offers_tools=offers_tools),
        most_frequent=max(texts.values()),
        languages=Counter(one.language for one in exchanges if one.language),
        offered=sum(bool(one.tools) for one in exchanges),
        calling=sum(bool(one.answer.calls) for one in exchanges),
        tool_lists=len({one.tools for one in exchanges if one.tools}),
        most_offered=max(offers.values(), default=0),
        conversations=len({one.opening for one in exchanges}),
        users=len({one.user for one in exchanges if one.user}),
        prompt_characters=_lengths([len(one.prompt) for one in exchanges]),
        prompt_tokens=_lengths(asked),
        answer_tokens=_lengths(answered),
        total_tokens=_lengths([sum(pair) for pair in zip(asked, answered, strict=True)]),
    )


def _exchange(record: dict[str, Json]) -> _Exchange:
    match record:
        case {
            "request": {"messages": list(messages), **request},
            "response": {"choices": [{"message": dict(message)}, *_]},
        }:
            tools = request.get("tools")
        case _:
            raise ValueError("the record is not a chat completion")
    turns = [one for one in messages if isinstance(one, dict)]
    offered = [one for one in tools if isinstance(one, dict)] if isinstance(tools, list) else []
    rendered = prompt.render_prompt(turns, offered)
    said = [prompt.text_of(turn) for turn in turns if turn.get("role") == "user"]
    user = record.get("user_id")
    return _Exchange(
        prompt="\n".join(turn["content"] for turn in rendered),
        answer=prompt.read_message(message),
        tools=frozenset(map(_tool_name, offered)),
        opening=said[0] if said else "",
        user=user if isinstance(user, str) else None,
        language=language.request_language(said),
    )


def _tool_name(tool: dict[str, Json]) -> str:
    match tool:
        case {"function": {"name": str(name)}}:
            return name
        case _:
            raise ValueError("a tool has no name")


def _count(base: Path | None, texts: Sequence[str]) -> list[int]:
    """Count tokens with the base's tokenizer, or estimate them from the bytes."""
    if base is None or not (base / FILE).is_file():
        return [-(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN) for text in texts]
    encoder = Tokenizer.from_file(str(base / FILE))
    encoder.no_truncation()
    encoder.no_padding()
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    return [len(one.ids) for one in encoder.encode_batch_fast(clean, add_special_tokens=False)]


def _lengths(lengths: Sequence[int]) -> TextLengths:
    ordered = sorted(lengths)
    last = len(ordered) - 1
    return TextLengths(ordered[last // 2], ordered[round(0.95 * last)], ordered[last])


app = typer.Typer(add_completion=False, no_args_is_help=True)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

MOST_READ = 8 * 2**30
"""Bytes of logs that are read; of more, files are read that lie evenly spread among all."""

REFRESH_SECONDS = 0.2


@app.command()
def init(
    logs: Annotated[
        list[str], typer.Argument(help="Logs and feedback: files, folders, globs, fsspec URLs.")
    ],
    workload: Annotated[
        str | None,
        typer.Option(help="The only workload to write a file for; also of records without one."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="The file to write; WORKLOAD.yaml if left out.")
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(help="Folder of the pretrained model; if left out, any that fits."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="The form of the records; detected when left out.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Look at logs and write a commented workload file, the first thing to do with your own logs.

    Shows the workloads in them and why lines can't be loaded; nothing is stored. Each setting in
    the file has a comment on what was found: languages, lengths, tools, feedback, what is missing.
    """
    from components.collect.files import UnknownSourceError

    with exit_on(OSError, ImportError, LookupError, UnknownSourceError, ValueError):
        _init(logs, workload, to, base, source, force=force)


def _init(
    logs: Sequence[str],
    workload: str | None,
    to: Path | None,
    base: Path | None,
    source: str | None,
    *,
    force: bool,
) -> None:
    from components.collect import survey
    from components.collect.source import Defaults
    from components.store import warehouse
    from flows import sources
    from flows.cli.collect_commands import show_reasons

    found = _found(logs, source)
    chosen, sampling = _spread([given for members in found.values() for given in members])
    unnamed = Defaults(workload or _name(logs[0]), "")
    with TemporaryDirectory(prefix="flywheel-") as folder:
        path = Path(folder) / "warehouse.duckdb"
        surveyed: dict[str, SurveyedFile] = {}
        with _progress(chosen) as advance:
            for file in sources.load_survey(path, chosen, unnamed, now=datetime.now(UTC)):
                surveyed[file.input.place] = file
                advance(file.input)
        show_reasons([file.loaded for file in surveyed.values()])
        with warehouse.connect(path, memory=warehouse.COLLECTING) as con:
            logged = _chosen(survey.workloads(con), workload, to)
            files = {
                place: [surveyed[one.place] for one in members if one.place in surveyed]
                for place, members in found.items()
            }
            for one in logged:
                _write(con, one, to, base, files, sampling, force=force)


def _write(
    con: "Connection",
    logged: "LoggedWorkload",
    to: Path | None,
    base: Path | None,
    files: "dict[str, list[SurveyedFile]]",
    sampling: str,
    *,
    force: bool,
) -> None:
    from components.collect import survey
    from components.store import manifest
    from flows import workload_file as configs
    from flows.cli import workload_draft

    target = to or Path(f"{logged.workload_id}.yaml")
    if target.exists() and not force:
        raise FileExistsError(f"{target} exists; --force overwrites it, --to names another file")
    chosen = workload_draft.choose_base(base, _model_folders(target), target)
    tokenizer = None if chosen.folder is None else chosen.folder.path
    profile = profile_logs(survey.sample(con, logged.workload_id), tokenizer)
    if profile is None:
        raise ValueError(f"{logged.workload_id}: none of its records is a chat completion")
    feedback = [one for one in survey.feedback(con) if one.workload_id == logged.workload_id]
    draft = workload_draft.draft(logged, profile, feedback, files, chosen, target, sampling)
    manifest.write_atomically(target, draft.text)
    labels = f" ({len(profile.answers.labels)} labels)" if profile.answers.labels else ""
    _print(
        f"wrote {target}: workload {logged.workload_id}, {logged.interactions:,} interactions of "
        f"{logged.first_at:%Y-%m-%d} to {logged.last_at:%Y-%m-%d}, {profile.answers.kind}{labels}, "
        f"{sum(one.events for one in feedback):,} feedback events, base {chosen.path}"
    )
    for text in draft.missing:
        _print(f"  missing: {text}")
    try:
        configs.read_workload(target)
    except configs.WorkloadError as error:
        _print(f"  before it can be used: {'; '.join(error.mistakes)}")
    _print(f"next: {chosen.command or f'flywheel collect {target}'}")
    _print(f"      {f'flywheel check {target}' if chosen.command else f'flywheel curate {target}'}")


def _found(logs: Sequence[str], source: str | None) -> "dict[str, list[Input]]":
    """List the files of each place; one that is under two belongs to the first."""
    from components.collect import files
    from components.collect.source import Input
    from flows.sources import MLFLOW

    found: dict[str, list[Input]] = {}
    known: set[str] = set()
    for place in logs:
        names = [place] if place.startswith(MLFLOW) else files.matching_files(place)
        if not names:
            raise FileNotFoundError(f"looking at {place}: no file matches it")
        found[place] = [Input(name, source) for name in names if name not in known]
        known.update(names)
    return found


def _spread(inputs: "list[Input]") -> "tuple[list[Input], str]":
    """Choose files that lie evenly spread among all and have at most ``MOST_READ`` bytes."""
    total = sum(map(_size, inputs))
    if total <= MOST_READ or len(inputs) == 1:
        return inputs, ""
    step = total / MOST_READ
    chosen = [inputs[int(number * step)] for number in range(int(len(inputs) / step))] or inputs[:1]
    read = sum(map(_size, chosen))
    return chosen, (
        f"Only {len(chosen):,} of {len(inputs):,} files were read, spread evenly "
        f"({read / 1e9:.1f} of {total / 1e9:.1f} GB): counts are of these. "
    )


def _chosen(
    logged: "list[LoggedWorkload]", workload: str | None, to: Path | None
) -> "list[LoggedWorkload]":
    from flows.workload_file import WORKLOAD_ID

    if not logged:
        raise LookupError(
            "no interaction can be loaded, so there is no workload to write a file for"
        )
    names = ", ".join(f"{one.workload_id} ({one.interactions:,})" for one in logged)
    if workload is not None:
        logged = [one for one in logged if one.workload_id == workload]
        if not logged:
            raise LookupError(f"no interaction is of workload {workload}; there are {names}")
    if to is not None and len(logged) > 1:
        raise ValueError(
            f"--to names one file, and there are several workloads: {names}; choose "
            "one with --workload"
        )
    usable = [one for one in logged if re.fullmatch(WORKLOAD_ID, one.workload_id)]
    for one in logged:
        if one not in usable:
            errors.print(
                f"workload {one.workload_id!r} ({one.interactions:,} interactions) can't name a "
                "model: expected lower-case letters, digits and ._-, at most 63",
                markup=False,
                soft_wrap=True,
            )
    if not usable:
        raise ValueError("no workload has a usable name")
    return usable


def _name(place: str) -> str:
    """Derive a workload's name from the place of its logs."""
    stem = place.rstrip("/").rpartition("/")[2].partition(".")[0]
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_") or "workload"


def _model_folders(target: Path) -> list[Path]:
    """List where models usually lie: beside the file, Hugging Face's cache, the demo's."""
    from flows.cli import demo_command

    cache = os.environ.get("HF_HUB_CACHE") or (
        f"{os.environ.get('HF_HOME') or Path.home() / '.cache/huggingface'}/hub"
    )
    return [
        *sorted(target.absolute().parent.glob("*/")),
        *sorted(target.absolute().parent.glob("models/*/")),
        *sorted(Path(cache).glob("models--*/snapshots/*/")),
        *sorted(demo_command.download_folder().glob("*/")),
    ]


@contextmanager
def _progress(inputs: "Sequence[Input]") -> "Generator[Callable[[Input], None]]":
    """Show how many bytes were read, by where this process stands in the files it has open."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    sizes = {given.place: _size(given) for given in inputs}
    columns = TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    done = 0
    is_done = threading.Event()
    is_quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=is_quiet) as progress:
        task = progress.add_task("reading", total=sum(sizes.values()))

        def follow() -> None:
            while not is_done.wait(REFRESH_SECONDS):
                progress.update(task, completed=done + _position(sizes))

        def advance(source: "Input") -> None:
            nonlocal done
            done += sizes[source.place]
            progress.update(task, completed=done)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield advance
        finally:
            is_done.set()
            follower.join()


def _position(paths: Iterable[str]) -> int:
    """Return how far the file that is being read was read; hashing it may be further."""
    import psutil

    names = {os.path.realpath(path) for path in paths}
    opened = [file for file in psutil.Process().open_files() if file.path in names]
    return min((file.position for file in opened), default=0)


def _size(source: "Input") -> int:
    path = Path(source.place)
    return path.stat().st_size if path.is_file() else 0


def _print(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
