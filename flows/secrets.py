"""Where the secrets of approvers' one-time codes are: never in a workload's file."""

import os
from collections.abc import Mapping
from pathlib import Path

from components.decide import totp
from components.decide.approvers import Approver
from flows.settings import Settings

ONLY_OWNER = 0o600


class SecretError(ValueError):
    """A secret that can't be used, or that must not be written over."""


def find(home: Settings, one: Approver, env: Mapping[str, str] = os.environ) -> str | None:
    """Find the secret of an approver; ``None`` if there is none, so that no code can be right.

    Raises:
        SecretError: It is no secret for one-time codes, or others may read its file.
    """
    if one.secret_env:
        found, place = env.get(one.secret_env), f"the environment variable {one.secret_env}"
    else:
        path = file(home, one.name)
        found, place = _in_file(path), str(path)
    if found and not totp.is_secret(found):
        raise SecretError(
            f"{place} holds no secret for one-time codes, wants base32 of 128 bits or more as "
            f"`flywheel approver add {one.name}` makes it"
        )
    return found or None


def file(home: Settings, name: str) -> Path:
    """Name the file that holds a person's secret."""
    return home.approvers / f"{name}.secret"


def enrol(home: Settings, name: str, *, again: bool) -> str:
    """Draw a secret for a person and keep it in a file that only its owner may read.

    Raises:
        SecretError: There is one, and ``again`` does not say that it may be replaced.
    """
    path = file(home, name)
    home.approvers.mkdir(mode=0o700, parents=True, exist_ok=True)
    if again:
        path.unlink(missing_ok=True)
    drawn = totp.draw_secret()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, ONLY_OWNER)
    except FileExistsError as error:
        raise SecretError(
            f"{name} has a secret in {path}; --again replaces it, and codes of the old one end"
        ) from error
    with os.fdopen(descriptor, "w") as written:
        written.write(drawn + "\n")
    return drawn


def _in_file(path: Path) -> str | None:
    if not path.exists():
        return None
    if path.stat().st_mode & 0o077:
        raise SecretError(f"others than its owner may read {path}; chmod 600 it, and enrol anew")
    return path.read_text().strip()
