"""Start fake engines as processes, kill them, and write staged adapters for them."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.vllm_server import VllmServer
from components.serve.proof import Resident
from tests.support import word_model


class FakeReplica:
    """A fake engine's process; it keeps its port when it is started again."""

    def __init__(self, *options: str) -> None:
        self._options, self.port = options, 0
        self.start()

    def start(self) -> None:
        arguments = [sys.executable, "-m", "tests.support.fake_engine", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*arguments, *self._options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

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


def stage(folder: Path, workload: str, number: int) -> tuple[Resident, Path]:
    """Write a staged adapter that answers with its own version's word."""
    word = f"{workload}-v{number}"
    staged = word_model.write_adapter(folder / f"{workload}.v{number}-{number:012x}", word)
    references = word_model.make_references(word_model.read_adapter(staged))
    return Resident(staged.name, references), staged
