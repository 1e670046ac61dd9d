"""`flywheel init`: look at logs and write a workload file."""

import os
import re
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.collect_commands import show_reasons
from flows.cli.console import console, exit_on, print_error, print_line
from flows.cli.parameters import SourceOption

if TYPE_CHECKING:
    from components.collect.source import Input
    from components.collect.survey import LoggedWorkload, SurveyedFile
    from components.store.warehouse import Connection

app = typer.Typer(add_completion=False, no_args_is_help=True)

MAX_READ = 8 * 2**30  # bytes of logs; of more, files that lie evenly spread among all are read

REFRESH_SECONDS = 0.2

MAX_WORKLOADS = 20  # that get a file at once, and that an error names


@app.command()
@exit_on(OSError, ImportError, LookupError, ValueError)
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
    source: SourceOption = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
) -> None:
    """Look at logs and write a commented workload file, the first thing to do with your own logs.

    Shows the workloads in them and why lines can't be loaded; nothing is stored. A comment on each
    setting in the file shows its reasons: languages, lengths, tools, feedback, what is missing.

    `flywheel init logs/*.jsonl.gz --workload support` writes `support.yaml` in this folder.
    """
    from components.collect import survey
    from components.collect.source import Defaults
    from components.store import file_locks, warehouse
    from flows import settings, sources

    inputs = _inputs(logs, source)
    chosen, sampling = _spread([file for members in inputs.values() for file in members])
    unnamed = Defaults(workload or _workload_name(logs[0]), "")
    with file_locks.temporary_folder(settings.load().scratch_or_system, "init-") as folder:
        path = folder / "warehouse.duckdb"
        surveyed: dict[str, SurveyedFile] = {}
        with _progress(chosen) as advance:
            for file in sources.load_survey(path, chosen, unnamed, now=datetime.now(UTC)):
                surveyed[file.input.place] = file
                advance(file.input)
        loaded = [file.loaded for file in surveyed.values()]
        if not any(file.new or file.known or file.quarantined for file in loaded):
            raise LookupError(f"looking at {', '.join(logs)}: there is not a single line in it")
        show_reasons(loaded)
        files = {
            place: [surveyed[file.place] for file in members if file.place in surveyed]
            for place, members in inputs.items()
        }
        with warehouse.connect(path, memory=warehouse.COLLECTING) as con:
            logged = _choose_workloads(survey.workloads(con), workload, to)
            targets = [to or Path(f"{each.workload_id}.yaml") for each in logged]
            existing = ", ".join(str(target) for target in targets if target.exists())
            if existing and not force:
                raise FileExistsError(_existing_text(existing, is_only=len(targets) == 1))
            for each, target in zip(logged, targets, strict=True):
                _write(con, each, target, base, files, sampling)


def _existing_text(existing: str, *, is_only: bool) -> str:
    way = "--to names another file" if is_only else "--workload names one of the others"
    return f"{existing} exists; --force overwrites it, {way}"


def _write(
    con: "Connection",
    logged: "LoggedWorkload",
    target: Path,
    base: Path | None,
    files: "dict[str, list[SurveyedFile]]",
    sampling: str,
) -> None:
    from components.collect import survey
    from components.store import manifest
    from flows import workload_file
    from flows.cli import log_profile, workload_draft

    chosen = workload_draft.choose_base(base, _model_folders(target), target)
    tokenizer = None if chosen.folder is None else chosen.folder.path
    profile = log_profile.profile_logs(survey.sample(con, logged.workload_id), tokenizer)
    if profile is None:
        raise ValueError(f"{logged.workload_id}: none of its records is a chat completion")
    joins = [join for join in survey.feedback(con) if join.workload_id == logged.workload_id]
    draft = workload_draft.draft(logged, profile, joins, files, chosen, target, sampling)
    manifest.write_atomically(target, draft.text)
    labels = f" ({len(profile.answers.labels)} labels)" if profile.answers.labels else ""
    print_line(
        f"wrote {target}: workload {logged.workload_id}, {logged.interactions:,} interactions of "
        f"{logged.first_at:%Y-%m-%d} to {logged.last_at:%Y-%m-%d}, {profile.answers.kind}{labels}, "
        f"{sum(join.events for join in joins):,} feedback events, base {chosen.path}"
    )
    for text in draft.missing:
        print_line(f"  missing: {text}")
    try:
        workload_file.read_workload(target)
    except workload_file.WorkloadError as error:
        print_line(f"  before it can be used: {'; '.join(error.mistakes)}")
    print_line(f"next: {chosen.command or f'flywheel collect {target}'}")
    print_line(f"      flywheel {'check' if chosen.command else 'curate'} {target}")


def _inputs(logs: Sequence[str], source: str | None) -> "dict[str, list[Input]]":
    """List the files of each place; one that is under two belongs to the first."""
    from components.collect import places
    from components.collect.source import Input
    from flows.source_entries import MLFLOW

    inputs: dict[str, list[Input]] = {}
    known: set[str] = set()
    for place in logs:
        names = [place] if place.startswith(MLFLOW) else places.matching_files(place)
        if not names:
            raise FileNotFoundError(f"looking at {place}: no file matches it")
        inputs[place] = [Input(name, source) for name in names if name not in known]
        known.update(names)
    return inputs


def _spread(inputs: "list[Input]") -> "tuple[list[Input], str]":
    """Choose files that lie evenly spread among all and have at most ``MAX_READ`` bytes."""
    total = sum(map(_size, inputs))
    if total <= MAX_READ or len(inputs) == 1:
        return inputs, ""
    step = total / MAX_READ
    chosen = [inputs[int(number * step)] for number in range(int(len(inputs) / step))] or inputs[:1]
    read = sum(map(_size, chosen))
    return chosen, (
        f"Only {len(chosen):,} of {len(inputs):,} files were read, spread evenly "
        f"({read / 1e9:.1f} of {total / 1e9:.1f} GB): counts are of these. "
    )


def _choose_workloads(
    logged: "list[LoggedWorkload]", workload: str | None, to: Path | None
) -> "list[LoggedWorkload]":
    from components.schema import WORKLOAD_ID

    if not logged:
        raise LookupError(
            "no interaction can be loaded, so there is no workload to write a file for"
        )
    largest = sorted(logged, key=lambda each: -each.interactions)[:MAX_WORKLOADS]
    names = ", ".join(f"{each.workload_id} ({each.interactions:,})" for each in largest)
    if rest := len(logged) - len(largest):
        names += f" and {rest:,} more"
    if workload is not None:
        logged = [each for each in logged if each.workload_id == workload]
        if not logged:
            raise LookupError(f"no interaction is of workload {workload}; there are {names}")
    if to is not None and len(logged) > 1:
        raise ValueError(
            f"--to names one file, and there are several workloads: {names}; choose "
            "one with --workload"
        )
    if len(logged) > MAX_WORKLOADS:
        raise ValueError(
            f"there are {len(logged):,} workloads, too many to write a file for each: {names}; "
            "choose one with --workload"
        )
    usable = [each for each in logged if re.fullmatch(WORKLOAD_ID, each.workload_id)]
    for each in logged:
        if each not in usable:
            print_error(
                f"workload {each.workload_id!r} ({each.interactions:,} interactions) can't name a "
                "model: expected lower-case letters, digits and ._-, at most 63"
            )
    if not usable:
        raise ValueError("no workload has a usable name")
    return usable


def _workload_name(place: str) -> str:
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
    # Bytes read are known by this process's positions in its open files.
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    sizes = {file.place: _size(file) for file in inputs}
    columns = TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    done = 0
    is_done = threading.Event()
    is_quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=is_quiet) as progress:
        task = progress.add_task("reading", total=sum(sizes.values()))

        def show(position: int) -> None:
            # Small files are open together, and done in another order: a bar that went back misled.
            progress.update(task, completed=max(position, progress.tasks[task].completed))

        def follow() -> None:
            while not is_done.wait(REFRESH_SECONDS):
                show(done + _position(sizes))

        def advance(file: "Input") -> None:
            nonlocal done
            done += sizes[file.place]
            show(done)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield advance
        finally:
            is_done.set()
            follower.join()


def _position(paths: Iterable[str]) -> int:
    import psutil

    names = {os.path.realpath(path) for path in paths}
    opened = [file for file in psutil.Process().open_files() if file.path in names]
    # The same file may be open twice; hashing it is further than reading it.
    return min((file.position for file in opened), default=0)


def _size(source: "Input") -> int:
    path = Path(source.place)
    return path.stat().st_size if path.is_file() else 0
