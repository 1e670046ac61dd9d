"""The supervisor process: start the services, restart the ones that die, stop everything."""

import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import httpx
import psutil
from prometheus_client import start_http_server

from components.store import counters, file_locks
from flows import access, trials
from flows.settings import HOST, Settings, code_version
from flows.settings import load as load_settings
from flows.stack import health, processes, prometheus, stack_services
from flows.stack.processes import Phase, Signals, StackState, StopRequested
from flows.stack.service_process import CHECK_DEADLINE, START_SECONDS, ServiceProcess, open_log
from flows.stack.stack_services import MARK, Service, service_environment, stack_mark

WORKER_GRACE = 8.0  # seconds for flow runs to save their work; ``down`` promises 20 in all
SERVER_GRACE = 4.0  # seconds

ORPHANS_EVERY = 10.0  # seconds between two looks for orphans while no service ends
ORPHAN_GRACE = 15.0  # seconds in which an orphaned trainer may still save its checkpoint

FIRST_STEP = "starting the servers; on the first start they make their databases"

log = logging.getLogger("flows.stack")


class StartError(RuntimeError):
    """A service of the stack did not start."""


class Supervisor:
    """The services of one home while they run."""

    def __init__(self, settings: Settings, http: httpx.Client, signals: Signals) -> None:
        self.settings = settings
        self.http = http
        self._signals = signals
        self._environment = service_environment(settings, os.environ)
        self._children: list[ServiceProcess] = []
        self._orphans: dict[int, float] = {}  # when each is killed
        self._next_look = 0.0
        self._lost_runs = health.LostRuns(http, settings.prefect_api_url)
        self._rollouts = trials.signals(http, settings)
        self._phase: Phase = "starting"
        self._step = FIRST_STEP
        self._self = processes.identify_process(os.getpid())
        self._code = code_version()
        self._written: StackState | None = None

    def say(self, phase: Phase, step: str) -> None:
        """Write the phase and the step into ``stack.json``."""
        self._phase, self._step = phase, step
        self._write_state()

    def start(self, deployer: str) -> None:
        """Start everything, each part as soon as it can; raise ``StartError`` when one dies."""
        prefect, _ = (self._launch(service) for service in stack_services.servers(self.settings))
        if (gateway := stack_services.gateway(self.settings)) is not None:
            self._launch(gateway)
        deploy = self._launch(stack_services.deployer(self.settings, deployer))
        self._until(lambda: self._works(prefect))
        self._until(self._has_crashed_lost_runs)
        self.say("starting", "deploying the flows")
        self._until(lambda: deploy.exit_code == 0)
        self._children.remove(deploy)
        self.say("starting", "starting the workers")
        for worker in stack_services.workers(self.settings):
            self._launch(worker)  # after deploying, which withdraws the runs missed meanwhile
        self._until(lambda: all(self._works(child) for child in self._children))
        self.say("up", "everything runs")

    def watch(self) -> NoReturn:
        """Restart services that die or hang, indefinitely."""
        while True:
            self._signals.wait(1.0)  # the end of a child wakes it at once
            orphaned = self._end_orphans()
            for child in self._children:
                with suppress(httpx.HTTPError):  # Prefect is away; the next round retries
                    self._tend(child, orphaned=orphaned)
            if self._is_up("prefect"):
                with suppress(httpx.HTTPError):
                    self._lost_runs.look_round(time.monotonic())
                with suppress(httpx.HTTPError):
                    self._rollouts.look_round(time.monotonic())
            self._write_state()

    def shut_down(self) -> None:
        """End every descendant: the workers and their runs first, since they still report."""
        self.say("stopping", "stopping the workers and their flow runs")
        servers = {child.pid for child in self._children if child.service.health_url}
        below = [
            psutil.Process(pid).children(recursive=True)
            for pid in servers
            if pid and psutil.pid_exists(pid)
        ]
        spared = servers | {process.pid for tree in below for process in tree}
        descendants = psutil.Process().children(recursive=True)
        workers = (process for process in descendants if process.pid not in spared)
        processes.end_processes(workers, WORKER_GRACE)
        self.say("stopping", "stopping the servers")
        processes.end_processes(psutil.Process().children(recursive=True), SERVER_GRACE)
        processes.end_processes(psutil.Process().children(recursive=True), 0.0)

    def _launch(self, service: Service) -> ServiceProcess:
        child = ServiceProcess(service)
        if service.pool is not None:
            self._until(lambda: self._knows_heartbeat(child))
        child.start(self._environment, self.settings.home)
        self._children.append(child)
        self._write_state()
        return child

    def _until(self, claim: Callable[[], bool]) -> None:
        while not claim():
            for child in self._children:
                _require_no_failure(child)
                if child.is_overdue:
                    raise StartError(
                        f"{child.service.name} is not up after {START_SECONDS:.0f} s; it was "
                        f"still {self._step}"
                    )
            self._signals.wait(0.1)
            self._write_state()

    def _has_crashed_lost_runs(self) -> bool:
        try:
            self._lost_runs.crash("The stack was not running any more")
        except httpx.HTTPError:  # just started, and slow to answer on a busy machine
            return False
        return True

    def _tend(self, child: ServiceProcess, *, orphaned: bool) -> None:
        if child.condition != "restarting" and child.exit_code is not None:
            log.warning("%s ended with exit code %d", child.service.name, child.exit_code)
            child.plan_restart()
        elif child.condition == "starting":
            if not self._works(child) and child.is_overdue:
                log.error("%s is not up in time: kill it", child.service.name)
                child.kill()
        elif child.condition != "restarting":
            if child.check(lambda: self._answers(child), time.monotonic()):
                message = "%s hangs (%d checks failed): kill it"
                log.error(message, child.service.name, child.misses)
                child.kill()
        elif not orphaned:
            self._restart(child)

    def _restart(self, child: ServiceProcess) -> None:
        if time.monotonic() < child.retry_at:
            return
        if child.service.pool is not None:
            if not self._is_up("prefect"):
                return  # a worker can't start without it
            self._lost_runs.crash("Its worker died", child.service.pool)
            child.last_heartbeat = self._heartbeat(child)
        try:
            child.start(self._environment, self.settings.home)
        # No process or thread is left, or the home's disk is away for a moment.
        except (OSError, RuntimeError) as error:
            log.warning("can't start %s: %s", child.service.name, error)
            child.plan_restart()

    def _works(self, child: ServiceProcess) -> bool:
        if child.condition == "starting" and self._answers(child):
            child.condition = "up"
            log.info("%s is up", child.service.name)
        return child.condition == "up"

    def _answers(self, child: ServiceProcess) -> bool:
        if child.service.health_url:
            return health.is_answering(self.http, child.service.health_url, CHECK_DEADLINE)
        return self._beats(child)

    def _beats(self, child: ServiceProcess) -> bool:
        """Return whether a worker has reported since the last look; true if that is unknown."""
        if child.condition != "starting" and not self._is_up("prefect"):
            return True
        try:
            heartbeat = self._heartbeat(child)
        except httpx.HTTPError:
            return child.condition != "starting"
        before, child.last_heartbeat = child.last_heartbeat, heartbeat
        return heartbeat != before

    def _knows_heartbeat(self, child: ServiceProcess) -> bool:
        try:
            child.last_heartbeat = self._heartbeat(child)
        except httpx.HTTPError:  # SQLite is busy now and then
            return False
        return True

    def _heartbeat(self, child: ServiceProcess) -> str | None:
        pool, api = child.service.pool, self.settings.prefect_api_url
        return health.last_heartbeat(self.http, api, pool) if pool is not None else None

    def _is_up(self, name: str) -> bool:
        """Return whether a server answered the last time; one that hangs is not asked for more."""
        return any(
            child.service.name == name and child.condition == "up" and not child.misses
            for child in self._children
        )

    def _end_orphans(self) -> bool:
        """Continue ending what the supervisor became the parent of; return whether any is left.

        A flow run of a killed worker, the trainer of a killed flow run: each gets SIGTERM once, and
        SIGKILL when it takes too long.
        """
        now = time.monotonic()
        ended = any(child.has_ended for child in self._children)
        if not (ended or self._orphans or now >= self._next_look):
            return False
        self._next_look = now + ORPHANS_EVERY  # a look reads all of the machine's processes
        own = {child.pid for child in self._children}
        orphans = [each for each in psutil.Process().children() if each.pid not in own]
        deadlines, self._orphans = self._orphans, {}
        for orphan in orphans:
            if not processes.is_running(orphan):
                with suppress(ChildProcessError):
                    os.waitpid(orphan.pid, os.WNOHANG)
                continue
            deadline = deadlines.get(orphan.pid)
            self._orphans[orphan.pid] = deadline or now + ORPHAN_GRACE
            with suppress(psutil.NoSuchProcess):
                if deadline is None:
                    orphan.terminate()
                elif now > deadline:
                    orphan.kill()
        return bool(self._orphans)

    def _write_state(self) -> None:
        steps = (child.step for child in self._children if child.condition == "starting")
        state = StackState(
            phase=self._phase,
            step=next(filter(None, steps), self._step),
            prefect_port=self.settings.prefect_port,
            mlflow_port=self.settings.mlflow_port,
            supervisor=self._self,
            services=tuple(child.state() for child in self._children),
            host=processes.machine_name(),
            code=self._code,
        )
        if state == self._written:
            return
        try:
            processes.write_state(self.settings, state)
        except OSError as error:  # a full disk must not end the stack; the next round retries
            if self._written is not None:
                log.warning("can't write the state: %s", error)
            self._written = None
        else:
            self._written = state


def main(deployer: str, pipe: int) -> int:
    """Run the stack of the environment's home until a signal to stop; return the exit code.

    ``pipe`` is the descriptor from which `flywheel up` reads, while it waits, why a start failed.
    """
    settings, signals = load_settings(), Signals()
    access.set_umask(settings.home)
    for folder in (settings.logs, settings.prefect_home, settings.mlflow_home):
        folder.mkdir(parents=True, exist_ok=True)
    lock = file_locks.held(processes.lock_path(settings), wait=False)
    with lock as alone, health.prefect_client(settings) as http:
        if not alone:
            return 3  # another supervisor was faster; its state counts
        log_to(open_log(settings.logs / "stack.log"))
        processes.adopt_orphans()
        processes.end_processes(processes.marked_processes(MARK, stack_mark(settings)), grace=5.0)
        settings.scratch.mkdir(exist_ok=True)
        file_locks.clear(settings.scratch)  # files of killed processes
        return _run(Supervisor(settings, http, signals), deployer, pipe)


def _run(supervisor: Supervisor, deployer: str, pipe: int) -> int:
    try:
        try:
            supervisor.say("starting", FIRST_STEP)
            processes.require_free_ports(supervisor.settings)
            serve_metrics(supervisor.settings)
            supervisor.start(deployer)
            supervisor.watch()
        finally:
            supervisor.shut_down()
    except StopRequested:
        processes.state_path(supervisor.settings).unlink()
        return 0
    except (StartError, processes.PortTakenError) as error:
        supervisor.say("failed", str(error))
        tell_launcher(pipe, str(error))
        return 1


def tell_launcher(pipe: int, reason: str) -> None:
    """Write why the stack ends, unless nobody waits for it any more."""
    with suppress(OSError):
        os.write(pipe, reason.encode())


def serve_metrics(settings: Settings) -> None:
    """Serve the metrics for Prometheus in a thread, where the settings name a port."""
    counters.create(settings.home)
    if settings.metrics_port is not None:
        registry = prometheus.metrics_registry(settings)
        start_http_server(settings.metrics_port, addr=HOST, registry=registry)


def _require_no_failure(child: ServiceProcess) -> None:
    ended, service = child.exit_code, child.service
    if ended is None or (ended == 0 and service.is_brief):
        return
    raise StartError(
        f"{service.name} ended with exit code {ended} while the stack started; "
        f"the end of {service.log}:\n{child.last_words()}"
    )


def log_to(handler: logging.Handler) -> None:
    """Write the supervisor's log records to a log."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    logging.raiseExceptions = False  # a full disk loses lines


if __name__ == "__main__":
    launcher = int(sys.argv[2])
    os.set_inheritable(launcher, False)  # the services end later
    try:
        sys.exit(main(sys.argv[1], launcher))
    except Exception as error:
        tell_launcher(launcher, f"the supervisor ended: {type(error).__name__}: {error}")
        raise
