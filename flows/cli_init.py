"""``flywheel init``: look at logs and write a workload file."""

import os
import re
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.explaining import explained

if TYPE_CHECKING:
    from components.collect.loading import Input
    from components.collect.survey import LoggedWorkload, SurveyedFile
    from components.warehouse import Connection

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
    from components.collect.detect import UnknownSourceError

    with explained(OSError, ImportError, LookupError, UnknownSourceError, ValueError):
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
    from components import warehouse
    from components.collect import survey
    from components.collect.record import Defaults
    from flows import inputs
    from flows.cli_collect import show_reasons

    found = _found(logs, source)
    chosen, sampling = _spread([given for members in found.values() for given in members])
    unnamed = Defaults(workload or _name(logs[0]), "")
    with TemporaryDirectory(prefix="flywheel-") as folder:
        path = Path(folder) / "warehouse.duckdb"
        surveyed: dict[str, SurveyedFile] = {}
        with _progress(chosen) as advance:
            for file in inputs.load_survey(path, chosen, unnamed, now=datetime.now(UTC)):
                surveyed[file.input.place] = file
                advance(file.input)
        show_reasons([file.loaded for file in surveyed.values()], console)
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
    from components import manifest
    from components.collect import survey
    from flows import config as configs
    from flows import log_profile, workload_draft

    target = to or Path(f"{logged.workload_id}.yaml")
    if target.exists() and not force:
        raise FileExistsError(f"{target} exists; --force overwrites it, --to names another file")
    chosen = workload_draft.choose_base(base, _model_folders(target), target)
    tokenizer = None if chosen.folder is None else chosen.folder.path
    profile = log_profile.profile(survey.sample(con, logged.workload_id), tokenizer)
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
        configs.read(target)
    except configs.ConfigError as error:
        _print(f"  before it can be used: {'; '.join(error.mistakes)}")
    _print(f"next: {chosen.command or f'flywheel collect {target}'}")
    _print(f"      {f'flywheel check {target}' if chosen.command else f'flywheel curate {target}'}")


def _found(logs: Sequence[str], source: str | None) -> "dict[str, list[Input]]":
    """List the files of each place; one that is under two belongs to the first."""
    from components.collect import places
    from components.collect.loading import Input
    from flows.inputs import MLFLOW

    found: dict[str, list[Input]] = {}
    known: set[str] = set()
    for place in logs:
        names = [place] if place.startswith(MLFLOW) else places.matching(place)
        if not names:
            raise FileNotFoundError(f"looking at {place}: no file matches it")
        found[place] = [Input(name, source) for name in names if name not in known]
        known.update(names)
    return found


def _spread(found: "list[Input]") -> "tuple[list[Input], str]":
    """Choose files that lie evenly spread among all and have at most ``MOST_READ`` bytes."""
    total = sum(map(_size, found))
    if total <= MOST_READ or len(found) == 1:
        return found, ""
    step = total / MOST_READ
    chosen = [found[int(number * step)] for number in range(int(len(found) / step))] or found[:1]
    read = sum(map(_size, chosen))
    return chosen, (
        f"Only {len(chosen):,} of {len(found):,} files were read, spread evenly "
        f"({read / 1e9:.1f} of {total / 1e9:.1f} GB): counts are of these. "
    )


def _chosen(
    logged: "list[LoggedWorkload]", workload: str | None, to: Path | None
) -> "list[LoggedWorkload]":
    from flows.workload import WORKLOAD_ID

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
    from flows.demo import run

    cache = os.environ.get("HF_HUB_CACHE") or (
        f"{os.environ.get('HF_HOME') or Path.home() / '.cache/huggingface'}/hub"
    )
    return [
        *sorted(target.absolute().parent.glob("*/")),
        *sorted(target.absolute().parent.glob("models/*/")),
        *sorted(Path(cache).glob("models--*/snapshots/*/")),
        *sorted(run.cache().glob("*/")),
    ]


@contextmanager
def _progress(found: "Sequence[Input]") -> "Generator[Callable[[Input], None]]":
    """Show how many bytes were read, by where this process stands in the files it has open."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    sizes = {given.place: _size(given) for given in found}
    columns = TextColumn("reading"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    done = 0
    is_done = threading.Event()
    is_quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=is_quiet) as progress:
        task = progress.add_task("reading", total=sum(sizes.values()))

        def follow() -> None:
            while not is_done.wait(REFRESH_SECONDS):
                progress.update(task, completed=done + _position(sizes))

        def advance(given: "Input") -> None:
            nonlocal done
            done += sizes[given.place]
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


def _size(given: "Input") -> int:
    path = Path(given.place)
    return path.stat().st_size if path.is_file() else 0


def _print(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
