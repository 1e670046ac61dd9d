"""Start fake engines as processes, kill them, and write staged adapters for them."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx

from components.serve import staged_version
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.vllm_server import VllmServer
from components.serve.staged_version import StagedVersion
from components.store.manifest import folder_digest
from tests.support import fake_engine, forking, word_model


class FakeReplica:
    """A fake engine's process; it keeps its port when it is started again."""

    def __init__(self, *options: str) -> None:
        self._options, self.port = options, 0
        self.start()

    def start(self) -> None:
        ports, to_parent = forking.PROCESSES.Pipe(duplex=False)
        options = ["--port", str(self.port), *self._options]
        self.process = forking.process(fake_engine.serve, to_parent.send, options)
        self.process.start()
        to_parent.close()
        with ports:
            self.port = ports.recv()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def misbehave(self, *faults: str) -> None:
        """Have these faults from now on, and no others."""
        httpx.post(f"{self.url}/misbehave", json=[*faults]).raise_for_status()

    def requests(self) -> int:
        """Count the requests since the last load."""
        return int(httpx.get(f"{self.url}/metrics").text.split()[-1])

    def reset(self) -> None:
        """Forget all adapters and faults; start it if it was killed."""
        if not self.process.is_alive():
            self.start()
        httpx.post(f"{self.url}/reset").raise_for_status()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def engine(self, name: str = "vllm-1", patience_seconds: float = 5.0) -> VllmServer:
        upstream = HttpUpstream(self.url, patience_seconds=patience_seconds)
        return VllmServer(name, upstream, base="the-base")


@contextmanager
def fake_replica(*options: str) -> Generator[FakeReplica]:
    """Run a fake engine; ``options`` are those of its command line."""
    replica = FakeReplica(*options)
    try:
        yield replica
    finally:
        replica.kill()


def stage(serve: Path, workload: str, number: int, word: str | None = None) -> StagedVersion:
    """Stage an adapter that answers with its own version's word."""
    adapters = serve / staged_version.ADAPTERS
    partial = word_model.write_adapter(adapters / ".partial", word or f"{workload}-v{number}")
    adapter, sha256 = word_model.read_adapter(partial), folder_digest(partial)
    name = staged_version.engine_name(workload, str(number), sha256)
    folder = partial.replace(adapters / name)
    staged = StagedVersion(
        workload=workload,
        version=str(number),
        adapter=adapter.key,
        sha256=sha256,
        model=name,
        base="/bases/the-base",
        base_hash=word_model.BASE_KEY,
        template_hash="0123456789abcdef",
        form="written",
        max_new_tokens=32,
        precision="fp32",
        rank=8,
        constrained=False,
        folder=folder,
    )
    word_model.make_references(adapter).write(staged.references_path)
    staged.write()
    return staged
