"""Checks of Prefect and MLflow: access, TLS, browser origins, clocks, and ports open to others."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from flows.doctor.finding import CheckResult, fine, note, wrong

LATE_SECONDS, TOO_LATE_SECONDS = 5.0, 60.0  # between two clocks: schedules and decisions have times

OWN_STACK = "`flywheel down`, then `flywheel up`: a stack has had logins since homes have them"

LOGIN_FIXES = {
    "Prefect": "set PREFECT_SERVER_API_AUTH_STRING=user:password where the server runs",
    "MLflow": "start it with `mlflow server --app-name basic-auth`",
}
ORIGIN_VARIABLES = {
    "Prefect": "PREFECT_SERVER_CORS_ALLOWED_ORIGINS",
    "MLflow": "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
}

DATABASES = {5432: "PostgreSQL", 6379: "Redis", 8333: "the object store"}  # ports of servers' own


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server as seen from here; ``None`` is unknown.

    ``trouble``: why it did not answer. ``is_open``: it answers without credentials.
    ``takes_ours``: it accepts the credentials of this environment. ``guards_forms``: it requires
    CSRF tokens; ``None`` also where it has no such setting. ``answers_pages``: pages of other
    origins may read its answers. ``seconds_behind``: this machine's clock is behind the server's.
    """

    name: str
    url: str
    trouble: str | None = None
    is_open: bool | None = None
    takes_ours: bool | None = None
    guards_forms: bool | None = None
    answers_pages: bool | None = None
    seconds_behind: float | None = None


def check_server(
    server: ServerStatus, remedy: str, variables: str, *, is_down: bool = False
) -> Iterator[CheckResult]:
    """Check access, login, encryption, CSRF, CORS and clock of a server.

    Args:
        server: Its status.
        remedy: What starts it.
        variables: The variables of its clients' credentials.
        is_down: The home's own server is not running.
    """
    name, url = server.name, server.url
    if server.trouble is not None:
        yield wrong(name, f"{url} does not answer: {server.trouble}", remedy)
        return
    if is_down and not server.takes_ours:
        yield wrong(
            name,
            f"this home's is down, and what answers at {url} does not take its login: it is of "
            "another home, or another program",
            f"stop that, or set FLYWHEEL_{name.upper()}_PORT to a free port; then {remedy}",
        )
        return
    if not server.is_open:
        yield fine(name, f"{url} asks for credentials")
    elif is_loopback(url):
        yield wrong(
            name,
            f"{url} answers to every user and program of this machine, and to pages in its "
            "browsers",
            f"{OWN_STACK}; another server: {LOGIN_FIXES[name]}",
        )
    else:
        yield wrong(
            name,
            f"{url} answers to anybody who can reach it",
            f"{LOGIN_FIXES[name]}, or let it listen on 127.0.0.1 only",
        )
    if not server.takes_ours and not server.is_open:
        yield wrong(
            name,
            f"{url} refuses the credentials of this environment",
            f"set {variables} as they are on the server (compose: in infra/.env)",
        )
    if not (url.startswith("https://") or is_loopback(url) or is_inside(url)):
        yield wrong(
            name,
            f"{url} is not encrypted: credentials and traffic can be read on the way",
            "put a proxy with TLS before it (infra/Caddyfile), and name its https address",
        )
    if server.guards_forms is False:
        yield wrong(
            name,
            f"{url} takes requests that another page makes a browser send (no CSRF token)",
            "set PREFECT_SERVER_CSRF_PROTECTION_ENABLED=true where the server runs",
        )
    if server.answers_pages:
        yield wrong(
            name,
            f"{url} lets pages of any origin read what it says (CORS)",
            f"set {ORIGIN_VARIABLES[name]} to its own origin where the server runs",
        )
    if server.seconds_behind is not None:
        yield check_clock(server.name, server.seconds_behind)


def check_clock(name: str, behind: float) -> CheckResult:
    """Check by how many seconds this machine's clock is behind a server's."""
    if abs(behind) <= LATE_SECONDS:
        return fine("clock", f"as {name}'s")
    distance = f"{abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'}"
    level = wrong if abs(behind) > TOO_LATE_SECONDS else note
    state = f"this machine is {distance} {name}'s server"
    return level("clock", state, "let chrony or ntpd set both clocks")


def is_loopback(url: str) -> bool:
    """Return whether an address is of this machine alone."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_inside(url: str) -> bool:
    """Return whether only a network of containers or a cluster knows the name: it is one word."""
    host = urlsplit(url).hostname or ""
    is_one_word = "." not in host and ":" not in host
    return is_one_word or host.endswith((".svc", ".svc.cluster.local"))


def check_listening(
    sockets: Iterable[tuple[str, int]], ours: Mapping[int, str]
) -> list[CheckResult]:
    """Check the addresses that this machine's programs listen on.

    Args:
        sockets: Address and port of each.
        ours: The names of our own plain servers by port.
    """
    known = DATABASES | dict(ours)
    wide = {(port, known[port]) for host, port in sockets if port in known and _is_wide(host)}
    return [
        (wrong if port in ours else note)(
            "network",
            f"{name} listens beyond this machine on port {port}, without TLS",
            "let it listen on 127.0.0.1; infra/Caddyfile puts TLS before what others may reach",
        )
        for port, name in sorted(wide)
    ]


def _is_wide(host: str) -> bool:
    return not ipaddress.ip_address(host.partition("%")[0]).is_loopback
