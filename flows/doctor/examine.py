"""Ask every check about this home, its servers, its machine and its workload files."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from components.evaluate import engines
from flows import config as configs
from flows import deployments
from flows.deployments import Spec
from flows.doctor import (
    approvers,
    credentials,
    files,
    listening,
    locks,
    look,
    machine,
    models,
    pools,
    servers,
    texts,
    versions,
)
from flows.doctor.finding import Finding, note, wrong
from flows.doctor.servers import Server
from flows.settings import Settings
from flows.stack import health
from flows.workload import Workload

RECEIVER = 4318
"""The port of ``flywheel receive`` unless it is told another."""

SOURCES = "give the credentials by environment, or install what reaches the place (s3fs for s3://)"

REMEDIES = {
    False: "`flywheel up` starts it",
    True: "start it, or correct PREFECT_API_URL and MLFLOW_TRACKING_URI (infra/README.md)",
}


def examine(home: Settings, env: Mapping[str, str], workloads: Iterable[Path]) -> Iterator[Finding]:
    """Look at everything; what can't be looked at because something else is missing is left out."""
    yield from check_servers(home, env)
    yield from credentials.check(env)
    yield from check_home(home)
    yield machine.disk(str(home.home), look.free(home.home))
    yield from listening.check(look.sockets(), plain_servers(home))
    yield from check_versions()
    computing = look.compute()
    yield machine.gpus(computing)
    yield machine.four_bit(computing)
    for path in workloads:
        yield from check_workload(home, env, path)


def check_servers(home: Settings, env: Mapping[str, str]) -> Iterator[Finding]:
    """Look at both servers, and where Prefect lets us in, at its pools and deployments."""
    remedy = REMEDIES[home.elsewhere is not None]
    with health.client(trust_env=home.elsewhere is not None) as http:
        prefect = look.prefect(http, home, look.pair(env.get("PREFECT_API_AUTH_STRING")))
        mlflow = look.mlflow(http, home, look.account(env))
    yield from servers.check(prefect, remedy, "PREFECT_API_AUTH_STRING")
    named = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    yield from servers.check(mlflow, remedy, named)
    if usable(prefect):
        specs = deployments.specs(home.workloads)
        wanted = sorted({spec.pool for spec in specs})
        yield from map(pools.check_pool, look.pools(wanted))
        yield pools.check_deployments([title(spec) for spec in specs], look.deployments())


def title(spec: Spec) -> str:
    """Name a deployment as Prefect does."""
    flow = spec.flow.partition(":")[2]
    return f"{flow}/{spec.name or flow}"


def usable(server: Server) -> bool:
    """Tell whether a server answers us."""
    return server.trouble is None and bool(server.takes_ours)


def plain_servers(home: Settings) -> dict[int, str]:
    """Say which of this machine's ports have a server of ours without TLS.

    Where the servers are elsewhere, or in containers here, the same ports are the proxy's.
    """
    if home.elsewhere:
        return {}
    return {home.prefect_port: "Prefect", home.mlflow_port: "MLflow", RECEIVER: "the receiver"}


def check_home(home: Settings) -> Iterator[Finding]:
    """Look at who may read and change the home, and whether locks hold in it."""
    if not home.home.exists():
        yield note("home", f"{home.home} is not there yet", "`flywheel up` makes it")
        return
    yield from files.check(look.entry(home.home), look.inside(home))
    mount = locks.mount_of(home.home, look.mounts())
    yield from locks.check(home.home, locks.probe(home.home), mount)


def check_versions() -> Iterator[Finding]:
    """Look at the packages."""
    tested = versions.pins(look.constraints())
    yield from versions.check(look.requirements(), look.installed(), tested)


def check_workload(home: Settings, env: Mapping[str, str], path: Path) -> Iterator[Finding]:
    """Look at a workload's file, its text, its base and who may decide about it."""
    if not path.is_file():
        yield wrong(path.name, f"{path} is not there", f"flywheel schedule FILE, or rm {path}")
        return
    yield from texts.check(path.name, path.read_text(errors="replace"))
    try:
        workload = configs.read(path)
    except configs.ConfigError as error:
        remedy = f"correct it; `flywheel check {path}` tells when it is right"
        yield from (wrong(path.name, mistake, remedy) for mistake in error.mistakes)
        return
    rules = workload.approve
    yield from approvers.check(path.name, rules, look.without_codes(home, env, rules))
    try:
        engines.require_installed(workload.evaluate.engine)
    except engines.EngineError as error:
        yield wrong(path.name, str(error), "install it beside this package: infra/README.md")
    try:
        _ = [*workload.log_files(), *workload.feedback_files()]
    except (OSError, ImportError) as error:
        yield wrong(path.name, f"sources: {error}", SOURCES)
    bases = {workload.base, *(one.base for one in workload.candidates())}
    yield from (models.check(look.model(base)) for base in sorted(bases))


def plan(workload: Workload) -> str:
    """Say what of a workload would run, and when."""
    logs, feedback = _number(workload.log_files), _number(workload.feedback_files)
    tried = len(workload.candidates())
    trained = f"the best of {tried} recipes" if tried else f"{workload.train.objective.kind}"
    others = len(workload.evaluate.tasks) + len(workload.evaluate.built_in)
    guards = f", {others} task(s) beside the holdout" if others else ""
    return (
        f"{workload.workload}: collect {logs} log and {feedback} feedback file(s) and the spool "
        f"at `{workload.collect_schedule}`, a turn at `{workload.turn_schedule}` (cron, UTC): "
        f"{trained} on {workload.base.name} in {workload.train.precision}, judged by "
        f"{workload.gate.metric}{guards}"
    )


def _number(files: Callable[[], Sequence[object]]) -> str:
    try:
        return str(len(files()))
    except (OSError, ImportError):
        return "unknown"
