"""Checks of Prefect and MLflow: access, TLS, browser origins, clocks, and ports open to others."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from flows.doctor.finding import CheckResult, fine, note, wrong

LATE_SECONDS, TOO_LATE_SECONDS = 5.0, 60.0
"""How far this machine's clock may be from a server's: schedules and decisions have times."""

OWN_STACK = "`flywheel down`, then `flywheel up`: a stack has had logins since homes have them"


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server as it looks from here; what could not be learned is ``None``."""

    name: str
    url: str
    trouble: str | None = None
    """Why it did not answer."""
    is_open: bool | None = None
    """Whether it tells things to who gives no credentials."""
    takes_ours: bool | None = None
    """Whether it answers to the credentials of this environment."""
    guards_forms: bool | None = None
    """Whether it asks for a CSRF token; ``None`` also where it has no such setting."""
    answers_pages: bool | None = None
    """Whether it lets pages of other origins read what it says."""
    seconds_behind: float | None = None
    """How far this machine's clock is behind it, negative if ahead."""


def check_server(server: ServerStatus, remedy: str, variables: str) -> Iterator[CheckResult]:
    """Say all there is to say of a server.

    Args:
        server: What was found.
        remedy: What brings it up.
        variables: Where its clients take their credentials from.
    """
    if server.trouble is not None:
        yield wrong(server.name, f"{server.url} does not answer: {server.trouble}", remedy)
        return
    yield from filter(
        None,
        (
            check_access(server),
            check_login(server, variables),
            check_transport(server),
            check_forms(server),
            check_pages(server),
        ),
    )
    yield check_clock(server)


def check_access(server: ServerStatus) -> CheckResult:
    """Look at whether anybody may use it."""
    if not server.is_open:
        return fine(server.name, f"{server.url} asks for credentials")
    fixes = {
        "Prefect": "set PREFECT_SERVER_API_AUTH_STRING=user:password where the server runs",
        "MLflow": "start it with `mlflow server --app-name basic-auth`",
    }
    if is_loopback(server.url):
        return wrong(
            server.name,
            f"{server.url} answers to every user and program of this machine, and to pages in "
            "its browsers",
            f"{OWN_STACK}; another server: {fixes[server.name]}",
        )
    return wrong(
        server.name,
        f"{server.url} answers to anybody who can reach it",
        f"{fixes[server.name]}, or let it listen on 127.0.0.1 only",
    )


def check_login(server: ServerStatus, variables: str) -> CheckResult | None:
    """Look at whether it takes the credentials of this environment."""
    if server.takes_ours or server.is_open:
        return None
    return wrong(
        server.name,
        f"{server.url} refuses the credentials of this environment",
        f"set {variables} as they are on the server (compose: in infra/.env)",
    )


def check_transport(server: ServerStatus) -> CheckResult | None:
    """Look at whether others on the way can read the credentials."""
    if server.url.startswith("https://") or is_loopback(server.url) or is_inside(server.url):
        return None
    return wrong(
        server.name,
        f"{server.url} is not encrypted: credentials and traffic can be read on the way",
        "put a proxy with TLS before it (infra/Caddyfile), and name its https address",
    )


def check_forms(server: ServerStatus) -> CheckResult | None:
    """Look at whether a page elsewhere could act with the credentials of a person's browser."""
    if server.guards_forms is not False:
        return None
    return wrong(
        server.name,
        f"{server.url} takes requests that another page makes a browser send (no CSRF token)",
        "set PREFECT_SERVER_CSRF_PROTECTION_ENABLED=true where the server runs",
    )


def check_pages(server: ServerStatus) -> CheckResult | None:
    """Look at whether a page elsewhere could read with the credentials of a person's browser."""
    if not server.answers_pages:
        return None
    variable = {
        "Prefect": "PREFECT_SERVER_CORS_ALLOWED_ORIGINS",
        "MLflow": "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS",
    }[server.name]
    return wrong(
        server.name,
        f"{server.url} lets pages of any origin read what it says (CORS)",
        f"set {variable} to its own origin where the server runs",
    )


def check_clock(server: ServerStatus) -> CheckResult:
    """Compare the clocks."""
    behind = server.seconds_behind or 0.0
    if abs(behind) <= LATE_SECONDS:
        return fine("clock", f"as {server.name}'s")
    said = f"this machine is {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'}"
    level = wrong if abs(behind) > TOO_LATE_SECONDS else note
    return level("clock", f"{said} {server.name}'s server", "let chrony or ntpd set both clocks")


def is_loopback(url: str) -> bool:
    """Tell whether an address is of this machine alone."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_inside(url: str) -> bool:
    """Tell a name that only a network of containers or a cluster knows: it is one word."""
    host = urlsplit(url).hostname or ""
    is_one_word = "." not in host and ":" not in host
    return is_one_word or host.endswith((".svc", ".svc.cluster.local"))


DATABASES = {5432: "PostgreSQL", 6379: "Redis", 8333: "the object store"}
"""Ports where nobody but the servers has business."""


def check_listening(
    sockets: Iterable[tuple[str, int]], ours: Mapping[int, str]
) -> list[CheckResult]:
    """Look at the addresses that this machine's programs listen on.

    Args:
        sockets: Address and port of each.
        ours: What our own plain servers' ports are for.
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
