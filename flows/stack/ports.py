"""Refuse to start where somebody else listens, and say who and what to do."""

import socket

import psutil

from flows.settings import HOST, METRICS_PORT, Settings


class PortTakenError(RuntimeError):
    """Another program listens on a port that the stack wants."""


def require_free(settings: Settings) -> None:
    """Check all ports; ``PortTakenError`` names the port, its holder and the way out."""
    wanted: tuple[tuple[str, int, str], ...] = (
        ("Prefect", settings.prefect_port, "FLYWHEEL_PREFECT_PORT"),
        ("MLflow", settings.mlflow_port, "FLYWHEEL_MLFLOW_PORT"),
    )
    if settings.metrics_port is not None:
        wanted += (("the metrics", settings.metrics_port, METRICS_PORT),)
    taken = [
        f"port {port} for {name} is taken by {_holder(port)}; "
        f"stop that program, or set {variable} to a free port for every flywheel command"
        for name, port, variable in wanted
        if not is_free(port)
    ]
    if taken:
        raise PortTakenError("; ".join(taken))


def is_free(port: int) -> bool:
    """Tell whether a server could listen on ``port`` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass  # whose it is would be nice to know, no more
    return "another program"
