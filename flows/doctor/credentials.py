"""Whether the passwords of this environment are any good; none is ever shown."""

from collections.abc import Mapping

from flows.doctor.finding import Finding, fine, wrong

SHORTEST = 16
"""Characters of a password that nobody types; guessing 16 letters takes for ever."""

WELL_KNOWN = frozenset(
    {"admin", "pass", "password", "password1234", "prefect", "mlflow", "flywheel", "secret"}
    | {"changeme", "postgres", "redis", "minioadmin", "test"}
)

PAIRS = ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")
"""Hold ``user:password``."""

PASSWORDS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
)


def check(env: Mapping[str, str]) -> list[Finding]:
    """Look at each credential that the environment holds."""
    found = [_pair(name, env[name]) for name in PAIRS if env.get(name)]
    return found + [_password(name, env[name]) for name in PASSWORDS if env.get(name)]


def weakness(password: str) -> str | None:
    """Say what is wrong with a password."""
    if password.lower() in WELL_KNOWN:
        return "is one that everybody knows"
    if len(password) < SHORTEST:
        return f"has {len(password)} characters, wants {SHORTEST} or more"
    if len(set(password)) < SHORTEST // 2:
        return "repeats a few characters"
    return None


def _pair(name: str, text: str) -> Finding:
    user, colon, password = text.partition(":")
    if not colon or not user:
        return wrong(name, "is not of the form user:password", _new(name, "flywheel:"))
    return _password(name, password, "flywheel:")


def _password(name: str, password: str, prefix: str = "") -> Finding:
    weak = weakness(password)
    if weak:
        return wrong(name, f"the password {weak}", _new(name, prefix))
    return fine(name, "is set, and not easily guessed")


def _new(name: str, prefix: str) -> str:
    return f"set {name}={prefix}$(openssl rand -hex 24), on the server and for its clients"
