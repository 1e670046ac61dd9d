"""The installation: its home, ports, servers and code version, from environment variables."""

import difflib
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from components.extensions.machines.sharing import Files, Warehouse
    from components.store.warehouse import Location

from components.store import shared_files
from components.store.shared_files import Place

HOST = "127.0.0.1"  # everything embedded listens on the loopback interface only

PREFECT, MLFLOW = "PREFECT_API_URL", "MLFLOW_TRACKING_URI"  # as both read them: servers elsewhere

PREFECT_PORT = "FLYWHEEL_PREFECT_PORT"
MLFLOW_PORT = "FLYWHEEL_MLFLOW_PORT"
METRICS_PORT = "FLYWHEEL_METRICS_PORT"
SERVE_PORT = "FLYWHEEL_SERVE_PORT"
RAY = "FLYWHEEL_RAY"

VARIABLES = (
    *("FLYWHEEL_HOME", "FLYWHEEL_STORE", "FLYWHEEL_WAREHOUSE", RAY),
    *(PREFECT_PORT, MLFLOW_PORT, METRICS_PORT, SERVE_PORT),
    *("FLYWHEEL_CPU_TYPE", "FLYWHEEL_PROCESSES"),
    *("FLYWHEEL_FLOW_HOURS", "FLYWHEEL_FLOWS", "FLYWHEEL_STACK"),
    "FLYWHEEL_CODE",
    *("FLYWHEEL_URL", "FLYWHEEL_TOKEN", "FLYWHEEL_WORKLOAD"),  # of infra/litellm_bridge.py
    *("FLYWHEEL_HOST", "FLYWHEEL_TLS", "FLYWHEEL_IMAGE", "FLYWHEEL_CUDA_IMAGE"),  # of compose.yaml
)
"""Every variable of ours that something reads."""

ALIKE = 0.9
"""How similar (``difflib``) a misspelt name is to the one it may mean: some two letters differ."""

WAREHOUSE = "FLYWHEEL_WAREHOUSE"  # the variable that names the PostgreSQL database of a shared one
STORE = "FLYWHEEL_STORE"  # the variable that names the object store


class SettingsError(ValueError):
    """An environment variable holds a value that can't be used."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Prefect and MLflow where this home's stack does not run them."""

    prefect_api: str  # ends in ``/api``
    mlflow: str


class _Place:
    """A file or folder of a home, by its name there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, settings: "Settings", _: type) -> Path:
        return settings.home / self.name


@dataclass(frozen=True, slots=True)
class Settings:
    """One home folder and two servers; every other path and address follows from them."""

    home: Path
    prefect_port: int
    mlflow_port: int
    processes: int | None = None  # of one training; unset: one for each GPU, or one
    flow_hours: float = 24.0  # that a run may compute before ``flows.maintenance`` cancels it
    metrics_port: int | None = None  # where the stack shows its figures to Prometheus
    serve_port: int | None = None  # where the stack answers applications; unset: it serves nothing
    elsewhere: Servers | None = None  # that somebody else runs; unset: the home's own stack
    store: "Files | None" = None  # where machines share outputs; unset: in the home alone
    shared_warehouse: "Warehouse | None" = None  # of machines; unset: the home's DuckDB file
    ray: str | None = None  # the Ray cluster that judges rows; unset: the curating machine's cores

    warehouse = _Place("warehouse.duckdb")  # the DuckDB file, where none is shared
    spool = _Place("spool")  # what the receiver took and collect has not loaded yet
    archive = _Place("archive")  # old rows that retention took out of the warehouse, as Parquet
    tokens = _Place("tokens.json")  # who may send to the receiver, as hashes
    # The secrets of approvers' one-time codes, a file each, for their owner's eyes only:
    approvers = _Place("approvers")
    # The key that this installation signs versions and exports with, and its public key:
    keys = _Place("keys")
    models = _Place("models")  # base models, and what else is downloaded once
    # What judging each row gave, ``<workload>/<rules>``, so that a night judges only what is new:
    judgements = _Place("judgements")
    snapshots = _Place("snapshots")  # frozen datasets, ``<workload>/<key>``
    adapters = _Place("adapters")  # trained adapters, ``<workload>/<key>``
    scorecards = _Place("scorecards")  # what evaluations measured, ``<workload>/<key>``
    evidence = _Place("evidence")  # what people are asked to approve, ``<workload>/<key>``
    turns = _Place("turns")  # what each turn did, ``<workload>/<flow run id>``
    # Specification, log and progress of each training and evaluation, ``<kind>-<key>``:
    jobs = _Place("jobs")
    gpus = _Place("gpus")  # a lock for each GPU, held by the job that uses it
    locks = _Place("locks")  # a lock for each workload, held by whoever changes its champion
    # What was erased, and proof that nothing is left of it; without personal data:
    certificates = _Place("certificates")
    workloads = _Place("workloads")  # one YAML file for each workload that runs on a schedule
    # How each workload stands: a page, its picture, and the figures for Prometheus:
    monitor = _Place("monitor")
    # What the gateway serves: its settings, the routes, the staged adapters, its status:
    serve = _Place("serve")
    serve_settings = _Place("serve.yaml")
    logs = _Place("logs")  # one log file for each service of the stack
    # What the stack's processes write for a moment; nobody else's, so it can be emptied:
    scratch = _Place("tmp")
    prefect_home = _Place("prefect")  # Prefect's own folder: its database and the persisted results
    mlflow_home = _Place("mlflow")  # MLflow's own folder: its database and the artifacts

    def portable(self, path: Path) -> str:
        """Return a path of this home as another machine's flow run is given it.

        If machines share an object store it is relative to the home.
        """
        return path.relative_to(self.home).as_posix() if self.store else str(path)

    def local(self, portable: str) -> Path:
        """Return the path on this machine of what ``portable`` returned on another one."""
        return self.home / portable if self.store else Path(portable)

    def publish(self, file: Path) -> None:
        """Show a file of this home that still changes to the other machines, if there are any."""
        if self.store and file.is_relative_to(self.home):
            self.store.put(self.portable(file), file)

    def read(self, file: Path) -> str | None:
        """Return the text of a file of this home, or else another machine's; ``None``: neither."""
        try:
            return file.read_text()
        except FileNotFoundError:
            is_shared = self.store and file.is_relative_to(self.home)
            return self.store.read(self.portable(file)) if self.store and is_shared else None

    def names(self, folder: Path) -> list[str]:
        """List what is in a folder of this home, here or in the store, sorted."""
        here = {path.name for path in folder.glob("*")}
        return sorted(here.union(self.store.names(self.portable(folder)) if self.store else ()))

    @property
    def tables(self) -> "Location":
        """The warehouse: the shared one, or the home's DuckDB file."""
        return self.shared_warehouse or self.warehouse

    @property
    def archive_root(self) -> str:
        """Where retention puts old rows: in the home, or beside a shared warehouse in its store."""
        shared = self.shared_warehouse
        return (shared.archive if shared else None) or str(self.archive)

    @property
    def has_warehouse(self) -> bool:
        """Whether there is a warehouse already; opening it creates it."""
        return self.shared_warehouse is not None or self.warehouse.exists()

    @property
    def scratch_or_system(self) -> Path:
        """Where a command that only looks puts temporary files: the system's, if no home was made.

        Whatever makes a folder of a home first has to close it to others.
        """
        return self.scratch if self.scratch.exists() else Path(tempfile.gettempdir())

    @property
    def prefect_url(self) -> str:
        """The Prefect server, for a browser."""
        if self.elsewhere:
            return self.elsewhere.prefect_api.removesuffix("/api")
        return f"http://{HOST}:{self.prefect_port}"

    def run_page(self, run_id: UUID | str) -> str:
        """Return the page of a flow run, for a browser.

        Of Prefect's second UI: the first has nowhere to log in on a link to a run.
        """
        return f"{self.prefect_url}/v2/runs/flow-run/{run_id}"

    @property
    def prefect_api_url(self) -> str:
        """The Prefect server, for clients."""
        return f"{self.prefect_url}/api"

    @property
    def mlflow_url(self) -> str:
        """The MLflow server, for a browser and for clients alike."""
        if self.elsewhere:
            return self.elsewhere.mlflow
        return f"http://{HOST}:{self.mlflow_port}"

    @property
    def serve_url(self) -> str | None:
        """The stack's gateway, for applications; ``None`` if it has none."""
        return None if self.serve_port is None else f"http://{HOST}:{self.serve_port}"

    @property
    def remedy(self) -> str:
        """What to do when a server does not answer, for error messages."""
        if self.elsewhere:
            return f"{PREFECT} and {MLFLOW} name it, and `flywheel doctor` says more"
        return "`flywheel up` starts it"


def load(env: Mapping[str, str] = os.environ) -> Settings:
    """Read the ``FLYWHEEL_`` variables, and where the servers are.

    Where ``PREFECT_API_URL`` names another server than that of the home's own stack, both servers
    are somebody else's, and ``MLFLOW_TRACKING_URI`` names the other one. ``SettingsError`` says
    which variable is wrong.
    """
    settings = Settings(
        home=Path(env.get("FLYWHEEL_HOME") or "~/.flywheel").expanduser().absolute(),
        prefect_port=_port(env, PREFECT_PORT, 4200),
        mlflow_port=_port(env, MLFLOW_PORT, 5000),
        processes=_processes(env),
        flow_hours=_hours(env),
        metrics_port=_port(env, METRICS_PORT, 0) if env.get(METRICS_PORT) else None,
        serve_port=_port(env, SERVE_PORT, 0) if env.get(SERVE_PORT) else None,
        store=_store(env),
        ray=_ray(env),
    )
    if settings.prefect_port == settings.mlflow_port:
        raise SettingsError(
            f"Prefect and MLflow both use port {settings.mlflow_port}; "
            f"set {PREFECT_PORT} and {MLFLOW_PORT} to different ports"
        )
    shared = _shared_warehouse(env, settings)
    return replace(settings, elsewhere=_elsewhere(env, settings), shared_warehouse=shared)


def unknown_variables(env: Mapping[str, str]) -> dict[str, str | None]:
    """Return the variables named like ours that nothing reads, each with the one it may mean."""
    unknown: dict[str, str | None] = {}
    for name, value in sorted(env.items()):
        if name in VARIABLES or not name.startswith("FLY") or _is_of_kubernetes(name, value):
            continue
        meant = difflib.get_close_matches(name, VARIABLES, 1, ALIKE)
        if meant or name.startswith("FLYWHEEL"):
            unknown[name] = meant[0] if meant else None
    return unknown


def misspelt_variables(env: Mapping[str, str]) -> list[str]:
    """Return a warning for each variable that is probably meant to be one of ours."""
    return [
        f"{name} is no setting, so it changes nothing; did you mean {meant}?"
        for name, meant in unknown_variables(env).items()
        if meant is not None
    ]


def _is_of_kubernetes(name: str, value: str) -> bool:
    """Return whether Kubernetes set a variable, as it does for each service of a pod's namespace.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    is_address = value.startswith(("tcp://", "udp://", "sctp://"))
    return is_address or bool(re.search(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP|SCTP)", name))


def _shared_warehouse(env: Mapping[str, str], settings: Settings) -> "Warehouse | None":
    url = env.get(WAREHOUSE) or ""
    if not url:
        return None
    # With another @ what follows the first would be the host, which errors name: half a password.
    if not re.fullmatch(r"postgres(ql)?://([^/@]*@)?[^/@]+/\w[^@]*", url):
        # It may have a password, so it is not quoted.
        raise SettingsError(
            f"{WAREHOUSE} is no address postgres://USER@HOST/DATABASE; in a password, @ is written "
            "%40 and / is written %2F"
        )
    return _sharing().warehouse(url, settings.store, settings.home)


def _sharing() -> Any:  # noqa: ANN401 - loaded by its name, as few homes share anything
    return import_module("components.extensions.machines.sharing")


def _elsewhere(env: Mapping[str, str], settings: Settings) -> Servers | None:
    api = (env.get(PREFECT) or "").rstrip("/")
    if api in {"", settings.prefect_api_url}:
        return None
    mlflow = (env.get(MLFLOW) or "").rstrip("/")
    if not (_is_web(api) and api.endswith("/api")):
        raise SettingsError(f"{PREFECT} is {api!r}; expected http(s)://..., ending in /api")
    if not _is_web(mlflow):
        raise SettingsError(
            f"{PREFECT} is {api}, so Prefect is not this home's own, and {MLFLOW} is {mlflow!r}; "
            f"set {MLFLOW} to the http(s) address of the MLflow that goes with it, or unset "
            f"{PREFECT} to use the stack of {settings.home} (`flywheel up`)"
        )
    return Servers(prefect_api=api, mlflow=mlflow)


OUTPUTS = ("snapshots", "adapters", "scorecards", "evidence")
"""The folders of outputs in the object store, ``<workload>/<key>`` below each."""

BASES = "models"  # of bases there, by the hash of their content

SHARED = (*OUTPUTS, BASES)

STORED = (
    *SHARED,
    *("checkpoints", "erased", "gateways", "jobs", "machines", "pruned", "rollouts", "spool"),
    *("tokens", "turns"),
)
"""All places in the object store but a shared warehouse's."""


def find_place(folder: Path) -> Place | None:
    """Return where the store keeps an output of this home, or a folder of outputs."""
    if not os.environ.get(STORE):
        return None
    settings = load()
    for home in (settings.home, settings.home.resolve()):
        if settings.store and folder.absolute().is_relative_to(home):
            place = folder.absolute().relative_to(home)
            if place.parts and place.parts[0] in SHARED and ".." not in place.parts:
                return settings.store, place.as_posix()
    return None


def _locate(address: str) -> Place:
    return _sharing().located(address)


shared_files.share_by(find_place, _locate)


def _store(env: Mapping[str, str]) -> "Files | None":
    url = (env.get(STORE) or "").rstrip("/")
    if url and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+(/[\w.=-]+)*", url, re.ASCII):
        raise SettingsError(f"{STORE} is {url!r}; expected s3://BUCKET or s3://BUCKET/PREFIX")
    return _sharing().Files(url) if url else None


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if _is_of_kubernetes(name, text):  # of a service that is called flywheel-mlflow, as the chart's
        text = str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise SettingsError(f"{name} is {text!r}; expected a port from 1 to 65535")
    return int(text)


def _ray(env: Mapping[str, str]) -> str | None:
    address = env.get(RAY) or ""
    if address and not re.fullmatch(r"ray://[^/\s@]+:[0-9]+", address):
        raise SettingsError(
            f"{RAY} is {address!r}; expected the client port of a Ray head, ray://host:10001"
        )
    return address or None


def _processes(env: Mapping[str, str]) -> int | None:
    return _number(env, "FLYWHEEL_PROCESSES", least=1)


def _number(env: Mapping[str, str], name: str, *, least: int) -> int | None:
    text = env.get(name) or ""
    if text and not (text.isascii() and text.isdigit() and int(text) >= least):
        raise SettingsError(f"{name} is {text!r}; expected a number of at least {least}")
    return int(text) if text else None


def _hours(env: Mapping[str, str]) -> float:
    text = env.get("FLYWHEEL_FLOW_HOURS") or "24"
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not 0 < hours < math.inf:
        raise SettingsError(f"FLYWHEEL_FLOW_HOURS is {text!r}; expected a number above 0")
    return hours


def code_version() -> str:
    """Return the checked-out commit, with ``-dirty`` if files differ; else the package version."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return f"lora-flywheel {version('lora-flywheel')}"
    described = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or f"lora-flywheel {version('lora-flywheel')}"
