"""The gateway of a home: the file ``serve.yaml``, and what the running gateway says of itself."""

import json
import secrets
import time
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from components.schema import describe_mistake
from components.serve.settings import ServeSettings
from components.store.manifest import write_atomically
from flows.settings import Settings

Report: TypeAlias = dict[str, Any]  # JSON that the gateway writes

STALE_SECONDS = 30.0  # the gateway writes its status every 10 s


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
    try:
        raw: object = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ServeFileError(f"{path}: can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ServeFileError(f"{path}: is not YAML: {error}") from error
    try:
        return ServeSettings.model_validate({} if raw is None else raw)
    except ValidationError as error:
        mistakes = [describe_mistake(mistake) for mistake in error.errors()]
        head = f"{path}: {len(mistakes)} mistake(s)"
        raise ServeFileError("\n".join([head, *mistakes])) from error


def read_status(home: Settings) -> Report:
    """Return what the running gateway last wrote about itself.

    Raises:
        NotServingError: None has run in this home, or its last words are too old.
    """
    path = home.serve / "status.json"
    try:
        age, status = time.time() - path.stat().st_mtime, json.loads(path.read_text())
    except FileNotFoundError:
        raise NotServingError(
            f"reading {path}: no gateway has run in this home; `flywheel serve` starts one"
        ) from None
    if age > STALE_SECONDS:
        raise NotServingError(
            f"reading {path}: the gateway wrote it {age:,.0f} s ago and has ended since; "
            "`flywheel serve` starts one"
        )
    return status


def describe(home: Settings, workload: str) -> str:
    """Return one line on who serves a workload, since when, and when it was last proved."""
    try:
        status = read_status(home)
    except NotServingError:
        return "no gateway of this home runs"
    refusals = [
        f"version {refused['version']} is refused: {refused['reason']}"
        for refused in status["refused"]
        if refused["workload"] == workload
    ]
    coming = [
        f"version {version['version']} is being prepared ({version['step']})"
        for version in status.get("preparing", ())
        if version["workload"] == workload
    ]
    route = status["routes"].get(workload)
    if route is None:
        return "; ".join(["not served", *coming, *refusals])
    served = route["champion"]
    proved = (
        "without an effect that could be proved"
        if served["unproved"]
        else f"proved at {minute(served['proved_at'])}"
    )
    serves = f"version {served['version']} since {minute(served['since'])}, {proved}"
    return "; ".join([serves, *coming, *refusals])


def minute(at: str) -> str:
    """Return a time of the gateway's status to the minute, UTC."""
    return at[:16].replace("T", " ")


def request_proof(home: Settings, wait_seconds: float) -> Report:
    """Let the running gateway prove all versions on all replicas now; return its results.

    Raises:
        NotServingError: None runs, or it did not answer in time.
    """
    read_status(home)
    request = secrets.token_hex(8)
    write_atomically(home.serve / "prove.request", request)
    deadline = time.monotonic() + wait_seconds
    while time.monotonic() < deadline:
        proved = _read_json(home.serve / "proved.json")
        if proved.get("request") == request:
            return proved
        time.sleep(0.2)
    raise NotServingError(
        f"waiting for the gateway's proofs: it wrote none in {wait_seconds:,.0f} s; "
        "see its log, or wait longer with --wait"
    )


def _read_json(path: Path) -> Report:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
