"""Whether something of ours listens where others can reach it without TLS."""

import ipaddress
from collections.abc import Iterable, Mapping

from flows.doctor.finding import Finding, note, wrong

DATABASES = {5432: "PostgreSQL", 6379: "Redis", 8333: "the object store"}
"""Ports where nobody but the servers has business."""


def check(sockets: Iterable[tuple[str, int]], ours: Mapping[int, str]) -> list[Finding]:
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
