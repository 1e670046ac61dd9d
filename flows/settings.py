"""The installation: its home, ports, servers and code version, from environment variables."""

import math
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

HOST = "127.0.0.1"  # everything embedded listens on the loopback interface only

PREFECT, MLFLOW = "PREFECT_API_URL", "MLFLOW_TRACKING_URI"
"""The variables that name servers elsewhere, as Prefect and MLflow themselves read them."""

GROUP = "FLYWHEEL_HOME_GROUP"  # the variable that names the group that shares the home

METRICS_PORT = "FLYWHEEL_METRICS_PORT"


class SettingsError(ValueError):
    """An environment variable holds a value that can't be used."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Prefect and MLflow where this home's stack does not run them."""

    prefect_api: str
    """Ends in ``/api``."""
    mlflow: str


@dataclass(frozen=True, slots=True)
class Settings:
    """One home folder and two servers; every other path and address follows from them."""

    home: Path
    prefect_port: int
    mlflow_port: int
    processes: int | None = None
    """How many processes train together; one for each GPU if not given, and one without a GPU."""
    flow_hours: float = 24.0
    """How long a flow run may compute before it is cancelled (``flows.maintenance``)."""
    metrics_port: int | None = None
    """Where the stack shows its figures to Prometheus; nowhere if not given."""
    log_format: Literal["text", "json"] = "text"
    """How the stack's logs are written: as the services print them, or a JSON object a line."""
    elsewhere: "Servers | None" = None
    """The servers that somebody else runs; ``None`` where they are the home's own stack."""
    group: str | None = None
    """The group that ``flywheel up`` gives the home to; its owner's alone if not given."""

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.home / "warehouse.duckdb"

    @property
    def spool(self) -> Path:
        """What the receiver took and collect has not loaded yet."""
        return self.home / "spool"

    @property
    def archive(self) -> Path:
        """Old rows that retention took out of the warehouse, as Parquet."""
        return self.home / "archive"

    @property
    def tokens(self) -> Path:
        """Who may send to the receiver, as hashes."""
        return self.home / "tokens.json"

    @property
    def approvers(self) -> Path:
        """The secrets of approvers' one-time codes, a file each, for their owner's eyes only."""
        return self.home / "approvers"

    @property
    def keys(self) -> Path:
        """The key that this installation signs versions and exports with, and its public key."""
        return self.home / "keys"

    @property
    def models(self) -> Path:
        """Base models, and what else is downloaded once."""
        return self.home / "models"

    @property
    def snapshots(self) -> Path:
        """Frozen datasets, ``<workload>/<key>``."""
        return self.home / "snapshots"

    @property
    def adapters(self) -> Path:
        """Trained adapters, ``<workload>/<key>``."""
        return self.home / "adapters"

    @property
    def scorecards(self) -> Path:
        """What evaluations measured, ``<workload>/<key>``."""
        return self.home / "scorecards"

    @property
    def evidence(self) -> Path:
        """What people are asked to approve, ``<workload>/<key>``."""
        return self.home / "evidence"

    @property
    def turns(self) -> Path:
        """What each turn did, ``<workload>/<flow run id>``."""
        return self.home / "turns"

    @property
    def jobs(self) -> Path:
        """Specification, log and progress of each training and evaluation, ``<kind>-<key>``."""
        return self.home / "jobs"

    @property
    def gpus(self) -> Path:
        """A lock for each GPU, held by the job that uses it."""
        return self.home / "gpus"

    @property
    def locks(self) -> Path:
        """A lock for each workload, held by whoever changes its champion."""
        return self.home / "locks"

    @property
    def certificates(self) -> Path:
        """What was erased, and proof that nothing is left of it; without personal data."""
        return self.home / "certificates"

    @property
    def workloads(self) -> Path:
        """One YAML file for each workload that runs on a schedule."""
        return self.home / "workloads"

    @property
    def monitor(self) -> Path:
        """How each workload stands: a page, its picture, and the figures for Prometheus."""
        return self.home / "monitor"

    @property
    def logs(self) -> Path:
        """One log file for each service of the stack."""
        return self.home / "logs"

    @property
    def scratch(self) -> Path:
        """What the stack's processes write for a moment; nobody else's, so it can be emptied."""
        return self.home / "tmp"

    @property
    def prefect_home(self) -> Path:
        """Prefect's own folder: its database and the persisted results."""
        return self.home / "prefect"

    @property
    def mlflow_home(self) -> Path:
        """MLflow's own folder: its database and the artifacts."""
        return self.home / "mlflow"

    @property
    def prefect_url(self) -> str:
        """The Prefect server, for a browser."""
        if self.elsewhere:
            return self.elsewhere.prefect_api.removesuffix("/api")
        return f"http://{HOST}:{self.prefect_port}"

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
    def remedy(self) -> str:
        """What to do when a server does not answer, for error messages."""
        if self.elsewhere:
            return f"{PREFECT} and {MLFLOW} name it, and `flywheel doctor` says more"
        return "`flywheel up` starts it"


def load(env: Mapping[str, str] = os.environ) -> Settings:
    """Read ``FLYWHEEL_HOME`` and its like, and where the servers are.

    ``FLYWHEEL_PREFECT_PORT``, ``_MLFLOW_PORT``, ``_PROCESSES``, ``_FLOW_HOURS`` and
    ``_HOME_GROUP`` are read, too.
    Where ``PREFECT_API_URL`` names another server than that of the home's own stack, both servers
    are somebody else's, and ``MLFLOW_TRACKING_URI`` names the other one.

    Raises:
        SettingsError: A port is not a number from 1 to 65535, both are the same, the processes
            are not a number from 1 up, the hours are not a number above 0, or one server is
            elsewhere and the other one is not named.
    """
    settings = Settings(
        home=Path(env.get("FLYWHEEL_HOME") or "~/.flywheel").expanduser().absolute(),
        prefect_port=_port(env, "FLYWHEEL_PREFECT_PORT", 4200),
        mlflow_port=_port(env, "FLYWHEEL_MLFLOW_PORT", 5000),
        processes=_processes(env),
        flow_hours=_hours(env),
        log_format=_log_format(env),
        metrics_port=_metrics_port(env),
        group=env.get(GROUP) or None,
    )
    if settings.prefect_port == settings.mlflow_port:
        raise SettingsError(
            f"Prefect and MLflow both use port {settings.mlflow_port}; "
            "set FLYWHEEL_PREFECT_PORT and FLYWHEEL_MLFLOW_PORT to different ports"
        )
    return replace(settings, elsewhere=_elsewhere(env, settings))


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


def _is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise SettingsError(f"{name} is {text!r}; expected a port from 1 to 65535")
    return int(text)


def _log_format(env: Mapping[str, str]) -> Literal["text", "json"]:
    text = env.get("FLYWHEEL_LOG_FORMAT") or "text"
    if text not in ("text", "json"):
        raise SettingsError(f"FLYWHEEL_LOG_FORMAT is {text!r}; expected text or json")
    return text


def _metrics_port(env: Mapping[str, str]) -> int | None:
    return _port(env, METRICS_PORT, 0) if env.get(METRICS_PORT) else None


def _processes(env: Mapping[str, str]) -> int | None:
    text = env.get("FLYWHEEL_PROCESSES") or ""
    if text and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise SettingsError(f"FLYWHEEL_PROCESSES is {text!r}; expected a number of at least 1")
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
