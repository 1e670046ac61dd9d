"""Run pure work on the nodes of a Ray cluster that have this process's code and libraries.

Nothing but the work's arguments and results travels: the nodes import the code that is installed
there, and refuse work if it is other code.
"""

import hashlib
import importlib
import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from components.store import manifest

Item = TypeVar("Item")
Result = TypeVar("Result")

Environment = Callable[[], Mapping[str, str | None]]
"""Returns the version of each thing that the work's results depend on, by its name."""

RETRIES = 5
"""Of a batch whose node or process died; a batch that kills each of its processes ends the work."""

BATCHES_AHEAD = 3  # in flight for each core of the cluster
MAX_AHEAD = 64  # batches in flight at most, as they and their results are in the head's memory
LOOK_EVERY = 32  # batches, after which the cores are counted again: nodes come and go

PING_SECONDS = 10.0
PROBE_SECONDS = 60.0  # that a node has to start a process and import our code

SCHEME = "ray://"


class RayPoolError(RuntimeError):
    """The cluster can't be reached, was lost, or has nodes with other code."""


@dataclass(frozen=True, slots=True)
class RayPool:
    """A cluster's address, ``ray://host:port``, and what its nodes must have as this process."""

    address: str
    environment: Environment


@dataclass(frozen=True, slots=True)
class RefusedBatch:
    """The answer of a node that differs from this process: by name, what is here and there."""

    node: str
    differences: dict[str, tuple[str | None, str | None]]


@dataclass(frozen=True, slots=True)
class NodeProbe:
    """A node of a cluster; ``trouble`` is why it can't judge rows as this process does."""

    node: str
    cores: int
    trouble: str | None


def map_on_ray(
    work: Callable[[list[Item]], list[Result]], batches: Iterator[list[Item]], pool: RayPool
) -> Iterator[Result]:
    """Map ``work`` over batches on the cluster's nodes, in their order, reading them lazily.

    Raises:
        RayPoolError: The cluster can't be reached or was lost, or a node refused a batch.
    """
    job, expected = pickle.dumps((work, pool.environment)), dict(pool.environment())
    with _connected(pool.address) as ray:
        run = ray.remote(max_retries=RETRIES)(_run)
        under_way: deque[Any] = deque()
        ahead = 0
        try:
            for number, batch in enumerate(batches):
                with _explained(ray, pool.address):
                    if number % LOOK_EVERY == 0:
                        ahead = min(MAX_AHEAD, BATCHES_AHEAD * max(1, _cores(ray)))
                    # As bytes, since Ray's pickler calls Python for each object in them.
                    under_way.append(run.remote(job, expected, pickle.dumps(batch)))
                while len(under_way) >= ahead:
                    yield from _results(ray, pool.address, under_way.popleft())
            while under_way:
                yield from _results(ray, pool.address, under_way.popleft())
        except BaseException:
            if ray.is_connected():
                with suppress(ConnectionError):  # tasks of a lost head end with it
                    for reference in under_way:
                        ray.cancel(reference, force=True)
            raise


def _run(job: bytes, expected: dict[str, str | None], batch: bytes) -> bytes | RefusedBatch:
    work, environment = _job(job)
    if differences := _differences(expected, environment):
        return RefusedBatch(_node(), differences)
    return pickle.dumps(work(pickle.loads(batch)))


@lru_cache(maxsize=1)
def _job(job: bytes) -> tuple[Callable[[list[Any]], list[Any]], dict[str, str | None]]:
    work, environment = pickle.loads(job)
    return work, dict(environment())


def _differences(
    expected: Mapping[str, str | None], actual: Mapping[str, str | None]
) -> dict[str, tuple[str | None, str | None]]:
    return {
        name: (expected.get(name), actual.get(name))
        for name in sorted({*expected, *actual})
        if expected.get(name) != actual.get(name)
    }


def _node() -> str:
    return str(_ray().util.get_node_ip_address())


def _results(ray: Any, address: str, reference: Any) -> list[Any]:  # noqa: ANN401 - an extra
    with _explained(ray, address):
        answer = ray.get(reference)
    if isinstance(answer, RefusedBatch):
        raise RayPoolError(
            f"Ray node {answer.node} {_different(answer.differences)}; install the same release "
            "on every node, the head included"
        )
    return pickle.loads(answer)


def _different(differences: Mapping[str, tuple[str | None, str | None]]) -> str:
    each = (
        f"{name} {there} where this machine has {here}"
        for name, (here, there) in differences.items()
    )
    return f"has {', '.join(each)}"


@contextmanager
def _connected(address: str) -> Generator[Any]:
    """Yield Ray's client, connected to the cluster in this thread.

    Not the module, whose functions start a cluster on this machine when the connection is lost.
    """
    ray = _ray()
    try:
        context = ray.init(address, allow_multiple=True, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RayPoolError(
            f"connecting to Ray at {address}: {_first_line(error)}; start its head with `ray start "
            "--head --ray-client-server-port=...`, and give both the same token"
        ) from error
    try:
        with context:
            yield importlib.import_module("ray.util.client").ray
    finally:
        context.disconnect()


def probe_nodes(pool: RayPool) -> list[NodeProbe]:
    """Ask each node with a core for its environment.

    Raises:
        RayPoolError: The cluster can't be reached or was lost.
    """
    expected = dict(pool.environment())
    job = pickle.dumps((list, pool.environment))
    place = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    with _connected(pool.address) as ray, _explained(ray, pool.address):
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        asked = [
            ray.remote(max_retries=0, scheduling_strategy=place(node["NodeID"], soft=False))(
                _run
            ).remote(job, expected, pickle.dumps([]))
            for node in nodes
        ]
        return [
            NodeProbe(
                node["NodeManagerAddress"], int(node["Resources"]["CPU"]), _trouble(ray, reference)
            )
            for node, reference in zip(nodes, asked, strict=True)
        ]


def _trouble(ray: Any, reference: Any) -> str | None:  # noqa: ANN401 - an extra
    known = _ray().exceptions
    try:
        answer = ray.get(reference, timeout=PROBE_SECONDS)
    except known.GetTimeoutError:
        return f"runs nothing within {PROBE_SECONDS:g} s; its cores may be busy"
    except known.RayError as error:
        return _first_line(error)
    return _different(answer.differences) if isinstance(answer, RefusedBatch) else None


def takes_strangers(address: str) -> bool:
    """Return whether the head answers without a token: then it runs what anybody sends.

    Raises:
        RayPoolError: Nothing answers at the address.
    """
    _ray()
    grpc = importlib.import_module("grpc")
    messages = importlib.import_module("ray.core.generated.ray_client_pb2")
    services = importlib.import_module("ray.core.generated.ray_client_pb2_grpc")
    with grpc.insecure_channel(address.removeprefix(SCHEME)) as channel:
        ping = messages.ClusterInfoRequest(type=messages.ClusterInfoType.PING)
        try:
            services.RayletDriverStub(channel).ClusterInfo(ping, timeout=PING_SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise RayPoolError(f"asking Ray at {address}: {error.details()}") from error
    return True


@contextmanager
def _explained(ray: Any, address: str) -> Generator[None]:  # noqa: ANN401 - an extra
    """Raise the work's own errors as they were, and the cluster's as ``RayPoolError``."""
    known = _ray().exceptions
    try:
        if not ray.is_connected():
            raise ConnectionError("the connection was lost")  # noqa: TRY301 - as Ray itself
        yield
    except known.RayTaskError as error:
        raise error.cause from None
    except (ConnectionError, known.RayError) as error:
        raise RayPoolError(
            f"judging rows on Ray at {address}: {type(error).__name__}: {_first_line(error)}; what "
            "was judged before is kept, so curate again when the cluster is up, or without it"
        ) from error


def _ray() -> Any:  # noqa: ANN401 - an extra
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise RayPoolError(
            "judging rows on Ray: the package ray is not installed here; install "
            "`lora-flywheel[ray]`, or curate without a cluster"
        ) from error


def source_digest() -> str:
    """Return the digest of the installed files of ``components``."""
    root = Path(__file__).parents[1]
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc")
    names = (f"{path.relative_to(root)} {manifest.file_digest(path)}\n" for path in files)
    return hashlib.sha256("".join(names).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _cores(ray: Any) -> int:  # noqa: ANN401 - an extra
    return int(ray.cluster_resources().get("CPU", 0))
