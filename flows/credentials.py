"""The logins of the home's own Prefect and MLflow, drawn once and kept in a file of the home.

Who can read the home can log in, and nobody else. No login is ever an argument of a process, nor
part of an address or of a message.
"""

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from flows import permissions
from flows.settings import Settings

USER = "flywheel"

PREFECT_EXPORT = "PREFECT_SERVER_API_AUTH_STRING"
MLFLOW_EXPORTS = ("MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD")
"""An operator who exports these before ``flywheel up`` chooses the logins."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password, which no message shows."""

    user: str
    password: str = field(repr=False)

    @property
    def pair(self) -> str:
        """``user:password``."""
        return f"{self.user}:{self.password}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The logins of the two servers; one does not open the other."""

    prefect: Login
    mlflow: Login


def path(home: Path) -> Path:
    """Return where a home keeps them."""
    return home / "credentials.json"


def read(settings: Settings) -> Credentials | None:
    """Read the home's logins; ``None`` where it has none, or the servers are somebody else's."""
    if settings.elsewhere:
        return None
    try:
        kept = json.loads(path(settings.home).read_text())
    except FileNotFoundError:
        return None
    return Credentials(Login(**kept["prefect"]), Login(**kept["mlflow"]))


def ensure(settings: Settings, env: Mapping[str, str] = os.environ) -> None:
    """Draw the logins that the home lacks; exported ones take the place of what it has.

    Args:
        settings: Of a home that is there.
        env: Holds what an operator exported; leave that out while the servers run.
    """
    kept = read(settings)
    prefect, mlflow = _exported(env)
    wanted = Credentials(
        prefect or (kept.prefect if kept else _drawn()),
        mlflow or (kept.mlflow if kept else _drawn()),
    )
    if wanted != kept:
        _write(settings.home, wanted, is_first=kept is None)


def _exported(env: Mapping[str, str]) -> tuple[Login | None, Login | None]:
    user, colon, password = env.get(PREFECT_EXPORT, "").partition(":")
    prefect = Login(user, password) if colon and user and password else None
    admin, secret = (env.get(name) for name in MLFLOW_EXPORTS)
    return prefect, Login(admin or USER, secret) if secret else None


def _drawn() -> Login:
    return Login(USER, secrets.token_urlsafe(24))


def _write(home: Path, credentials: Credentials, *, is_first: bool) -> None:
    """Put the whole file in place at once; of two commands that draw the first logins, one does."""
    mode = 0o640 if permissions.is_shared(home) else 0o600
    partial = home / f".credentials.{os.getpid()}"
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(credentials), file, indent=2)
    if is_first:
        with suppress(FileExistsError):
            os.link(partial, path(home))
        partial.unlink()
    else:
        partial.replace(path(home))
