"""Run every check of the home, its servers, its machine and its workload files."""

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from components.curate import ray_pool
from components.curate.ray_pool import RayPool, RayPoolError
from components.curate.row_judgement import environment
from components.curate.settings import Rules
from components.erase import tombstones
from components.evaluate import score_conditions
from components.evaluate.engines.protocol import EngineError
from components.extensions.machines import shared_spool, sharing
from components.register import registry
from components.store import archived_files, warehouse
from components.store.lock import WarehouseBusyError
from components.store.shared_files import StoreError
from components.store.warehouse_port import WarehouseError
from flows import deployments, gateway_status, home_workloads, settings, trials, workload_file
from flows.doctor import checks, probes, server_checks
from flows.doctor.finding import CheckResult, fine, note, wrong
from flows.gateway_status import NotServingError, ServeFileError
from flows.settings import RAY, Settings
from flows.stack import control, health

WAREHOUSE_SECONDS = 3.0  # a check waits no longer for it

UPKEEP_LATE = timedelta(days=3)  # that a shared warehouse's upkeep, once a day, may be late

SHARED_REMEDY = "correct FLYWHEEL_WAREHOUSE, or what the message says (infra/lake.md)"

WAREHOUSE_PLACES = (sharing.TABLES, archived_files.ROOT)  # in the object store

FILE_REMEDY = (
    "what the message says; upgrade this package if a newer release wrote it; `flywheel restore` a "
    "backup if it is damaged"
)

RECEIVER = 4318  # the default port of ``flywheel receive``

SOURCES = "give the credentials by environment, or install what reaches the place (s3fs for s3://)"

REFUSED = "the reason says what is wrong; `flywheel rollback` restores the version before"

REMEDIES = {
    False: "`flywheel up` starts it",
    True: "start it, or correct PREFECT_API_URL and MLFLOW_TRACKING_URI (infra/team.md)",
}


def diagnose(
    home: Settings, env: Mapping[str, str], workloads: Iterable[Path]
) -> Iterator[CheckResult]:
    """Run all checks; skip those that depend on something missing."""
    yield from check_servers(home, env)
    yield from checks.check_credentials(env)
    yield from check_home(home)
    yield from check_store(home)
    tables = [*check_shared_warehouse(home), *check_warehouse(home)]
    yield from tables
    yield from check_gateway(home)
    if all(result.level == "fine" for result in tables):
        yield from trials.find().check(home, WAREHOUSE_SECONDS)
        yield from check_erasures(home)
    if home.ray is not None:
        yield from check_ray(home.ray)
    yield checks.check_disk(str(home.home), probes.free_bytes(home.home))
    # Where the servers are elsewhere, or in containers, the ports are those of a proxy with TLS.
    plain = {home.prefect_port: "Prefect", home.mlflow_port: "MLflow", RECEIVER: "the receiver"}
    if home.serve_port is not None:
        plain[home.serve_port] = "the gateway"
    sockets = probes.listening_sockets()
    yield from server_checks.check_listening(sockets, {} if home.elsewhere else plain)
    yield from check_compute()
    for path in workloads:
        yield from check_workload(home, env, path)


def check_servers(home: Settings, env: Mapping[str, str]) -> Iterator[CheckResult]:
    """Check both servers, and, where Prefect lets us in, its pools and deployments."""
    remedy = REMEDIES[home.elsewhere is not None]
    with health.http_client(trust_env=home.elsewhere is not None) as http:
        user, colon, password = env.get("PREFECT_API_AUTH_STRING", "").partition(":")
        prefect = probes.probe_prefect(http, home, (user, password) if colon else None)
        user, password = (env.get(f"MLFLOW_TRACKING_{x}", "") for x in ("USERNAME", "PASSWORD"))
        account = (user, password) if user and password else None
        mlflow = probes.probe_mlflow(http, home, account)
    is_down = control.stack_status(home).phase == "down"
    check = partial(server_checks.check_server, remedy=remedy, is_down=is_down)
    yield from check(prefect, variables="PREFECT_API_AUTH_STRING")
    yield from check(mlflow, variables="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
    if mlflow.trouble is None and mlflow.takes_ours:
        names = sorted(map(home_workloads.workload_of, home.workloads.glob("*.yaml")))
        yield from checks.check_owners({name: registry.owners(name) for name in names})
    if prefect.trouble is None and prefect.takes_ours:
        specs = deployments.specs(home.workloads)
        pools = sorted({spec.pool for spec in specs})
        yield from map(checks.check_pool, probes.probe_pools(pools))
        flows = [(spec.flow.partition(":")[2], spec.name) for spec in specs]
        titles = [f"{flow}/{name or flow}" for flow, name in flows]
        yield checks.check_deployments(titles, probes.known_deployments())


def check_home(home: Settings) -> Iterator[CheckResult]:
    """Check who may read and change the home."""
    if not home.home.exists():
        yield note("home", f"{home.home} is not there yet", "`flywheel up` makes it")
        return
    yield from checks.check_files(probes.path_permissions(home.home), probes.home_permissions(home))


def check_shared_warehouse(home: Settings) -> Iterator[CheckResult]:
    """Check that a shared warehouse can be opened, if there is one, and that its upkeep runs."""
    if home.shared_warehouse is None:
        return
    try:
        late = home.shared_warehouse.is_due(datetime.now(UTC) - UPKEEP_LATE)
    except WarehouseError as error:
        yield wrong("warehouse", str(error), SHARED_REMEDY)
        return
    if late:
        remedy = "the flow `maintenance` merges them: `flywheel status` says whether it runs"
        yield note("warehouse", f"{home.shared_warehouse} has files that nobody merges", remedy)
    else:
        yield fine("warehouse", str(home.shared_warehouse))


def check_warehouse(home: Settings) -> Iterator[CheckResult]:
    """Check that the home's file of DuckDB can be opened, if it has one."""
    if home.shared_warehouse is not None or not home.has_warehouse:
        return
    try:
        problem = warehouse.opening_problem(home.warehouse, WAREHOUSE_SECONDS)
    except WarehouseBusyError:
        yield note("warehouse", "not checked: others hold it", "run the doctor again")
        return
    if problem is None:
        yield fine("warehouse", str(home.warehouse))
    else:
        yield wrong("warehouse", f"{home.warehouse} can't be opened: {problem}", FILE_REMEDY)


def check_compute() -> Iterator[CheckResult]:
    """Check that torch loads, uses the GPUs and holds weights in 4 bits."""
    try:
        compute = probes.probe_compute()
    except (ImportError, OSError) as error:
        reason = " ".join(str(error).split())
        yield wrong(
            "gpu", f"torch can't be loaded: {reason}", "pip install --force-reinstall torch"
        )
        return
    yield from checks.check_compute(compute)


def check_store(home: Settings) -> Iterator[CheckResult]:
    """Check that machines can share outputs in the home's object store, if it has one."""
    if home.store is None:
        return
    try:
        home.store.check()
        with home.store.reaching(f"listing the object store {home.store.url}"):
            places = [*settings.STORED, *(WAREHOUSE_PLACES if home.shared_warehouse else ())]
            refused = {place: home.store.refused(place) for place in places}
            shipped = [] if "list" in refused["spool"] else shared_spool.listed(home.store)
    except StoreError as error:
        state, _, remedy = str(error).partition("; ")
        yield wrong("store", state, remedy or "let the AWS_* variables list the bucket, too")
    else:
        yield fine("store", f"{home.store.url} keeps what was written first")
        yield from checks.check_access(home.store.url, refused)
        yield from checks.check_shipped(shipped, time.time())


def check_gateway(home: Settings) -> Iterator[CheckResult]:
    """Check the gateway's file, and what the gateway says of itself if it runs."""
    try:
        gateway_status.read_serve_settings(home, None)
    except ServeFileError as error:
        yield wrong("serve.yaml", str(error), "correct it; `flywheel serve` refuses it")
        return
    try:
        status = gateway_status.read_status(home)
    except NotServingError:
        return
    for refused in status["refused"]:
        version = f"{refused['workload']}@{refused['version']}"
        yield wrong("gateway", f"{version} is not served: {refused['reason']}", REFUSED)
    for workload, route in sorted(status["routes"].items()):
        if not route["champion"]["replicas"]:
            state = f"no replica serves {workload} now"
            yield wrong("gateway", state, "`flywheel serve status`, and the gateway's log")


def check_erasures(home: Settings) -> Iterator[CheckResult]:
    """Name the erasures that were not finished: files may still hold what they are about."""
    if not home.has_warehouse:
        return
    try:
        with warehouse.reading(home.tables, WAREHOUSE_SECONDS) as con:
            left = tombstones.unfinished_erasures(con)
    except WarehouseBusyError:
        yield note("erasures", "not checked: others hold the warehouse", "run the doctor again")
        return
    for erasure in left:
        state = (
            f"the erasure {erasure.certificate_id} of {erasure.begun_at:%Y-%m-%d %H:%M} is not "
            "finished, or left something"
        )
        yield wrong("erasures", state, "unless it runs now, type the same `flywheel erase` again")


def check_ray(address: str) -> Iterator[CheckResult]:
    """Check that the cluster asks for a token, and that its nodes judge rows as this machine."""
    try:
        is_open = ray_pool.takes_strangers(address)
        nodes = ray_pool.probe_nodes(RayPool(address, partial(environment, Rules())))
    except RayPoolError as error:
        yield wrong("Ray", str(error), f"start the head, or unset {RAY}")
        return
    yield from checks.check_ray(address, nodes, is_open=is_open)


def check_workload(home: Settings, env: Mapping[str, str], path: Path) -> Iterator[CheckResult]:
    """Check a workload's file, its text, its base and who may decide about it."""
    if not path.is_file():
        yield wrong(path.name, f"{path} is not there", f"flywheel schedule FILE, or rm {path}")
        return
    yield from checks.check_text(path.name, path.read_text(errors="replace"))
    try:
        workload = workload_file.read_workload(path)
    except workload_file.WorkloadError as error:
        remedy = f"correct it; `flywheel check {path}` shows when it is right"
        yield from (wrong(path.name, mistake, remedy) for mistake in error.mistakes)
        return
    rules = workload.approve
    yield from checks.check_approvers(
        path.name, rules, probes.approvers_without_codes(home, env, rules)
    )
    try:
        score_conditions.require_installed(workload.evaluate.engine)
    except EngineError as error:
        yield wrong(path.name, str(error), "install it beside this package: infra/gpus.md")
    try:
        unlisted: Iterable[Exception] = workload.traffic().unlisted.values()
    except (OSError, ImportError) as error:
        unlisted = [error]
    yield from (wrong(path.name, f"sources: {error}", SOURCES) for error in unlisted)
    bases = sorted(workload.bases())
    yield from (checks.check_model(probes.probe_model(base)) for base in bases)
