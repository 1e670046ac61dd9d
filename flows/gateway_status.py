"""The gateway of a home: the file ``serve.yaml``, and what the running gateway says of itself."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from components.monitor import serving_status
from components.monitor.serving_status import (
    ElsewhereVersion,
    RefusedVersion,
    ServingStatus,
    ServingVersion,
)
from components.schema import parse_yaml
from components.serve import seen_gateways
from components.serve.seen_gateways import SeenGateway
from components.serve.settings import ServeSettings
from components.store.shared_files import StoreError
from components.validation_messages import describe_mistakes
from flows.settings import Settings

Report: TypeAlias = dict[str, Any]  # JSON that the gateway writes

SHARED_STALE_SECONDS = 90.0  # a gateway writes into the store every 10 s
WRONG_CLOCK_SECONDS = 60.0  # by which a machine's clock may differ from the store's
FORGOTTEN_SECONDS = 86_400.0  # after which nobody is told of a gateway that was killed
STALE_SECONDS = 30.0  # the gateway writes its status every 10 s
RESTART_SECONDS = 3600.0  # after which one that is silent is not expected back


class ServeFileError(ValueError):
    """A ``serve.yaml`` that can't be used; the message lists every mistake."""


class NotServingError(RuntimeError):
    """No gateway of this home runs."""


def read_serve_settings(home: Settings, file: Path | None) -> ServeSettings:
    """Read the gateway's settings: of ``file``, else of the home's ``serve.yaml``, else defaults.

    Raises:
        ServeFileError: With every mistake, not only the first.
    """
    path = file or home.serve_settings
    if file is None and not path.exists():
        return ServeSettings()
    return parse_settings(_read_text(path), path)


def parse_settings(text: str, source: Path | str) -> ServeSettings:
    """Return the settings of a text; ``source`` names it.

    Raises:
        ServeFileError: With every mistake, not only the first.
    """
    raw = _parse_yaml(text, source)
    raw = {} if raw is None else raw
    try:
        return ServeSettings.model_validate(raw)
    except ValidationError as error:
        mistakes = describe_mistakes(error, ServeSettings)
        head = f"{source}: {len(mistakes)} mistake(s)"
        raise ServeFileError("\n".join([head, *mistakes])) from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ServeFileError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ServeFileError(f"{path}: is not YAML: {error}") from error


def _parse_yaml(text: str, source: Path | str) -> object:
    try:
        return parse_yaml(text, source)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # as of the date 2027-13-01
        raise ServeFileError(f"{source}: is not YAML: {error}") from error


def read_status(home: Settings, stale_seconds: float = STALE_SECONDS) -> Report:
    """Return what the running gateway last wrote about itself.

    Raises:
        NotServingError: None has run in this home, or its last words are older than that.
    """
    path = home.serve / "status.json"
    try:
        age, status = time.time() - path.stat().st_mtime, json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotServingError(
            f"reading {path}: no gateway has run in this home; `flywheel serve` starts one"
        ) from None
    except ValueError as error:
        raise NotServingError(f"reading {path}: it is not JSON: {error}") from error
    if not isinstance(status, dict) or not {"routes", "refused"} <= status.keys():
        raise NotServingError(f"reading {path}: it is not what a gateway writes about itself")
    if age > stale_seconds:
        raise NotServingError(
            f"reading {path}: the gateway wrote it {age:,.0f} s ago and has ended since; "
            "`flywheel serve` starts one"
        )
    return status


def describe(home: Settings, workload: str) -> str:
    """Return one line on who serves a workload, since when, last proved when, and on its canary."""
    serving = read_serving(home, workload)
    running = read_status(home).get("rollouts", ()) if serving.is_running else ()
    stands = [
        f"version {each['version']} is a canary beside it: {each['state']}"
        for each in running
        if each["workload"] == workload
    ]
    return "; ".join([serving_status.sentence(serving), *stands])


def read_serving(home: Settings, workload: str) -> ServingStatus:
    """Return who serves a workload."""
    elsewhere = _elsewhere(home, workload)
    try:
        status = read_status(home)
    except NotServingError:
        return ServingStatus(False, elsewhere=elsewhere)
    route = status["routes"].get(workload)
    versions = {
        role: _version(route[role])
        for role in ("champion", "previous")
        if route and route.get(role)
    }
    return ServingStatus(
        is_running=True,
        engine=status.get("engine"),
        champion=versions.get("champion"),
        previous=versions.get("previous"),
        preparing=[
            (coming["version"], coming["step"])
            for coming in status.get("preparing", ())
            if coming["workload"] == workload
        ],
        refused=[
            RefusedVersion(refused["at"], refused["version"], refused["reason"])
            for refused in status["refused"]
            if refused["workload"] == workload
        ],
        replicas_out=[
            (replica["name"], replica["reason"] or "")
            for replica in status.get("replicas", ())
            if replica["condition"] != "in"
        ],
        elsewhere=elsewhere,
    )


def _elsewhere(home: Settings, workload: str) -> list[ElsewhereVersion] | None:
    try:
        gateways = read_gateways(home)
    except StoreError:
        return None
    own = seen_gateways.read_id(home.serve)
    return [
        ElsewhereVersion(gateway.machine, champion.version, champion.since)
        for gateway in gateways
        if gateway.id != own and is_running(gateway)
        if (champion := gateway.champions.get(workload)) is not None
    ]


def served_workloads(home: Settings, *, may_restart: bool = False) -> set[str]:
    """Return the workloads that the home's gateway serves, or any that shares its store.

    With ``may_restart`` one counts that ran until ``RESTART_SECONDS`` ago.

    Raises:
        NotServingError: None runs.
        StoreError: The store can't be reached.
    """
    own_age, shared_age = STALE_SECONDS, SHARED_STALE_SECONDS
    if may_restart:
        own_age = shared_age = RESTART_SECONDS
    try:
        own = {*read_status(home, own_age)["routes"]}
    except NotServingError:
        if home.store is None:
            raise
        own = None
    running = [each for each in read_gateways(home) if time.time() - each.at <= shared_age]
    if own is None and not running:
        raise NotServingError(f"no gateway has written to {home.store} of late; start one")
    return (own or set()).union(*(gateway.champions for gateway in running))


def read_gateways(home: Settings) -> list[SeenGateway]:
    """Return what the gateways that share the home's object store wrote there within a day.

    Raises:
        StoreError: The store can't be reached.
    """
    if home.store is None:
        return []
    with home.store.reaching("reading which gateways run"):
        gateways = seen_gateways.read(home.store)
    return [gateway for gateway in gateways if time.time() - gateway.at <= FORGOTTEN_SECONDS]


def is_running(gateway: SeenGateway) -> bool:
    """Return whether a gateway wrote of late."""
    return time.time() - gateway.at <= SHARED_STALE_SECONDS


def wrong_clocks(gateways: Iterable[SeenGateway]) -> list[str]:
    """Return a sentence for each gateway whose machine's clock is wrong by the store's."""
    return [
        f"the clock of {gateway_name(gateway)} is {abs(gateway.clock_ahead):,.0f} s "
        f"{'ahead of' if gateway.clock_ahead > 0 else 'behind'} the store's"
        for gateway in gateways
        if abs(gateway.clock_ahead) > WRONG_CLOCK_SECONDS
    ]


def is_all_served(own: Report | None, running: Iterable[SeenGateway]) -> bool:
    """Return whether every champion is proved on a replica, and nothing was refused.

    ``own`` is the status of the home's gateway, if it runs, ``running`` what all others wrote.
    """
    routes: Iterable[Report] = own["routes"].values() if own else ()
    replicas = [route["champion"]["replicas"] for route in routes]
    replicas += [champion.replicas for seen in running for champion in seen.champions.values()]
    refused = [own["refused"] if own else [], *(gateway.refused for gateway in running)]
    return all(replicas) and not any(refused)


def disagreements(gateways: Iterable[SeenGateway]) -> list[str]:
    """Return a sentence for each workload of which gateways serve different versions."""
    at: dict[str, dict[str, list[str]]] = {}
    for gateway in gateways:
        for workload, champion in gateway.champions.items():
            at.setdefault(workload, {}).setdefault(champion.version, []).append(gateway.machine)
    return [
        f"{workload}: gateways serve different versions: "
        + ", ".join(f"{version} at {' '.join(by[version])}" for version in sorted(by))
        for workload, by in sorted(at.items())
        if len(by) > 1
    ]


def _version(served: Report) -> ServingVersion:
    return ServingVersion(
        version=served["version"],
        model=served["model"],
        precision=served["precision"],
        since=served["since"],
        proved_at=served["proved_at"],
        has_effect=not served["unproved"],
        replicas=served["replicas"],
    )


def gateway_name(gateway: SeenGateway) -> str:
    """Return how people are told of a gateway: its machine, and the beginning of its id."""
    return f"{gateway.machine} {gateway.id[:6]}"
