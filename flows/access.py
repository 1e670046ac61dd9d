"""Access to a home: file permissions, and the logins of its Prefect and MLflow."""

import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from flows.settings import Settings

# The modes of a home; everything made in a shared one gets its group.
PRIVATE, SHARED = 0o700, 0o2770


def set_umask(home: Path) -> None:
    """Keep what this process writes from others, except for a shared home's group."""
    os.umask(0o007 if is_shared(home) else 0o077)


def is_shared(home: Path) -> bool:
    """Return whether a group shares the home."""
    return home.is_dir() and stat.S_IMODE(home.stat().st_mode) & SHARED == SHARED


def secure_home(settings: Settings) -> None:
    """Make the home if it is missing, and close it to others than its owner, or its group.

    A home that a group shares (``chmod 2770``) stays so; ``chmod 700`` ends it.
    """
    home = settings.home
    home.mkdir(parents=True, exist_ok=True)
    mode = SHARED if is_shared(home) else PRIVATE
    if stat.S_IMODE(home.stat().st_mode) != mode:
        home.chmod(mode)
    set_umask(home)


USER = "flywheel"

# An operator who exports these before ``flywheel up`` chooses the logins.
PREFECT_EXPORT = "PREFECT_SERVER_API_AUTH_STRING"
MLFLOW_EXPORTS = ("MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD")


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password; no message shows the password."""

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


def logins_path(home: Path) -> Path:
    """Return the path of a home's logins."""
    return home / "credentials.json"


def read_logins(settings: Settings) -> Credentials | None:
    """Read the home's logins; ``None`` if it has none, or somebody else runs the servers."""
    if settings.elsewhere:
        return None
    try:
        kept = json.loads(logins_path(settings.home).read_text())
    except FileNotFoundError:
        return None
    return Credentials(Login(**kept["prefect"]), Login(**kept["mlflow"]))


def ensure_logins(settings: Settings, env: Mapping[str, str] = os.environ) -> None:
    """Draw the logins that the home lacks; exported ones replace what it has.

    ``env`` holds what an operator exported; leave it out while the servers run.
    """
    kept = read_logins(settings)
    prefect, mlflow = _exported_logins(env)
    logins = Credentials(
        prefect or (kept.prefect if kept else _random_login()),
        mlflow or (kept.mlflow if kept else _random_login()),
    )
    if logins != kept:
        _write_logins(settings.home, logins, is_first=kept is None)


def _exported_logins(env: Mapping[str, str]) -> tuple[Login | None, Login | None]:
    user, colon, password = env.get(PREFECT_EXPORT, "").partition(":")
    prefect = Login(user, password) if colon and user and password else None
    admin, secret = (env.get(name) for name in MLFLOW_EXPORTS)
    return prefect, Login(admin or USER, secret) if secret else None


def _random_login() -> Login:
    return Login(USER, secrets.token_urlsafe(24))


def _write_logins(home: Path, credentials: Credentials, *, is_first: bool) -> None:
    mode = 0o640 if is_shared(home) else 0o600
    partial = home / f".credentials.{os.getpid()}"
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(credentials), file, indent=2)
    if is_first:  # of two commands that draw the first logins, one puts its file in place
        with suppress(FileExistsError):
            os.link(partial, logins_path(home))
        partial.unlink()
    else:
        partial.replace(logins_path(home))
