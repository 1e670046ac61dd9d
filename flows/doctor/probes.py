"""Probe servers, files, packages and the machine; return plain records."""

import logging
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import psutil

from components.decide.approvers import Approving
from components.models import device, model_signature
from flows import access, approver_keys, prefect_api
from flows.doctor.checks import BaseFolder, Compute, PathPermissions, PoolStatus, free_variables
from flows.doctor.server_checks import ServerStatus
from flows.settings import Settings

FOREIGN = {"Origin": "https://elsewhere.example"}  # a browser's header for another origin's page


def probe_prefect(
    http: httpx.Client, settings: Settings, auth: tuple[str, str] | None
) -> ServerStatus:
    """Probe who may send Prefect requests."""
    url, api = settings.prefect_url, settings.prefect_api_url
    try:
        alive = http.get(f"{api}/health").raise_for_status()
        stranger = http.get(f"{api}/admin/version").status_code
        ours = http.get(f"{api}/admin/version", auth=auth).status_code
        token = http.get(f"{api}/csrf-token", params={"client": "doctor"}, auth=auth).status_code
        page = http.get(f"{api}/health", headers=FOREIGN)
    except httpx.HTTPError as error:
        return ServerStatus("Prefect", url, trouble=_cause_of(error))
    if failure := _failure(stranger, ours):
        return ServerStatus("Prefect", url, trouble=failure)
    return ServerStatus(
        "Prefect",
        url,
        is_open=stranger == 200,
        takes_ours=ours == 200,
        answers_pages=_lets_read(page),
        guards_forms={200: True, 422: False}.get(token),
        seconds_behind=_server_behind(alive),
    )


def probe_mlflow(
    http: httpx.Client, settings: Settings, auth: tuple[str, str] | None
) -> ServerStatus:
    """Probe who may send MLflow requests; it has no setting for CSRF."""
    url = settings.mlflow_url
    search = f"{url}/api/2.0/mlflow/registered-models/search"
    try:
        alive = http.get(f"{url}/health").raise_for_status()
        stranger, ours = http.get(search).status_code, http.get(search, auth=auth).status_code
        page = http.get(search, headers=FOREIGN, auth=auth)
    except httpx.HTTPError as error:
        return ServerStatus("MLflow", url, trouble=_cause_of(error))
    if failure := _failure(stranger, ours):
        return ServerStatus("MLflow", url, trouble=failure)
    return ServerStatus(
        "MLflow",
        url,
        is_open=stranger == 200,
        takes_ours=ours == 200,
        answers_pages=_lets_read(page),
        seconds_behind=_server_behind(alive),
    )


def probe_pools(names: list[str]) -> list[PoolStatus]:
    """Read pools and their workers from Prefect."""
    pools = {pool["name"]: pool for pool in prefect_api.pages("/work_pools/filter", {})}
    statuses: list[PoolStatus] = []
    for name in names:
        if name not in pools:
            statuses.append(PoolStatus(name, None))
            continue
        pool, online = pools[name], len(prefect_api.online_workers(name))
        free, paused = free_variables(pool["base_job_template"]), pool["is_paused"]
        statuses.append(PoolStatus(name, pool["type"], paused, online, free))
    return statuses


def known_deployments() -> list[str]:
    """Read the deployments of Prefect, as ``flow/name``."""
    flows = {flow["id"]: flow["name"] for flow in prefect_api.pages("/flows/filter", {})}
    deployed = prefect_api.pages("/deployments/filter", {})
    return [f"{flows[each['flow_id']]}/{each['name']}" for each in deployed]


def path_permissions(path: Path, *, is_secret: bool = False) -> PathPermissions:
    """Read a path's permissions."""
    return PathPermissions(path, path.stat().st_mode, is_secret=is_secret)


def home_permissions(settings: Settings) -> list[PathPermissions]:
    """Read the permissions of the most important files of a home."""
    logins = access.logins_path(settings.home)
    secret = [logins, settings.tokens, *sorted(settings.approvers.glob("*"))]
    secret.append(settings.keys / model_signature.PRIVATE)  # who has it signs versions and exports
    plain = [settings.warehouse, settings.spool, settings.workloads, settings.adapters]
    plain += [settings.models, settings.prefect_home, settings.mlflow_home, settings.keys]
    return [
        path_permissions(path, is_secret=path in secret) for path in secret + plain if path.exists()
    ]


def approvers_without_codes(
    settings: Settings, env: Mapping[str, str], rules: Approving
) -> dict[str, str]:
    """Return why codes can't be checked here, by the approver's name."""
    troubles: dict[str, str] = {}
    for person in rules.approvers if rules.proof == "code" else ():
        place = person.secret_env or approver_keys.secret_file(settings, person.name)
        try:
            if approver_keys.find_secret(settings, person, env) is None:
                troubles[person.name] = f"{place} is not there"
        except approver_keys.SecretError as error:
            troubles[person.name] = str(error)
    return troubles


def probe_model(path: Path) -> BaseFolder:
    """Read the names in a base's folder without loading anything."""
    config = path / "config.json"
    if not config.is_file():
        return BaseFolder(path, is_there=False)
    return BaseFolder(
        path,
        is_there=True,
        weights=_names(path, "*.safetensors"),
        pickles=_names(path, "*.bin") + _names(path, "*.pt"),
        brings_code='"auto_map"' in config.read_text(),
    )


def probe_compute() -> Compute:
    """Try torch and bitsandbytes here; loads both."""
    import torch

    gpus = device.cuda_devices()
    return Compute(
        torch=str(torch.__version__),
        cards=tuple(card.name for card in device.graphics()),
        gpus=tuple(gpu.name for gpu in gpus),
        four_bit_trouble=_four_bit_trouble("cuda" if gpus else "cpu"),
        products=device.trained_in(),
    )


def listening_sockets() -> Iterator[tuple[str, int]]:
    """List the addresses that this machine's programs listen on, as far as we may see."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr:
            yield connection.laddr.ip, connection.laddr.port


def free_bytes(home: Path) -> int:
    """Return the free bytes of a home's disk, also before the home exists."""
    existing = next(path for path in (home, *home.parents) if path.exists())
    return shutil.disk_usage(existing).free


def _names(folder: Path, pattern: str) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.glob(pattern)))


def _lets_read(answer: httpx.Response) -> bool:
    return answer.headers.get("access-control-allow-origin") in {"*", FOREIGN["Origin"]}


def _server_behind(answer: httpx.Response) -> float | None:
    date = answer.headers.get("date")
    return parsedate_to_datetime(date).timestamp() - time.time() if date else None


def _failure(*statuses: int) -> str | None:
    """Return what a server says that breaks: then whom it lets in can't be seen."""
    return next((f"it says {status}" for status in statuses if status >= 500), None)


def _cause_of(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"it says {error.response.status_code}"
    return re.sub(r"\s+", " ", str(error)) or type(error).__name__


def _four_bit_trouble(device: str) -> str | None:
    try:
        import torch

        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it recommends packages
        from bitsandbytes import functional

        numbers = torch.linspace(-1, 1, 4096, device=device, dtype=torch.bfloat16)
        quantized, state = functional.quantize_4bit(numbers, quant_type="nf4")
        back = functional.dequantize_4bit(quantized, state)
        off = float((back - numbers).abs().max())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is why 4-bit weights don't work
        return f"{type(error).__name__}: {error}"
    return None if off < 0.2 else f"numbers from -1 to 1 come back off by {off:.2f}"
