"""vLLM's OpenAI server on this CPU, with LoRA."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.vllm_server import VllmServer
from tests.support.staged_adapters import LAYERS

START_SECONDS = 600


class VllmProcess:
    """The process; it keeps its port when it is started again."""

    def __init__(
        self,
        base: Path,
        log: Path,
        options: Mapping[str, object] | None = None,
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = int(listener.getsockname()[1])
        self._base, self._log, self._python = base, log, python
        self._options, self._environment = options or {}, environment or {}
        self.start()

    def start(self) -> None:
        options: dict[str, object] = {
            "--model": self._base,
            "--served-model-name": "the-base",
            "--dtype": "float32",
            "--max-loras": 4,
            "--max-cpu-loras": 8,
            "--max-lora-rank": 8,
            "--max-model-len": 512,
            "--max-num-seqs": 8,
            "--host": "127.0.0.1",
            "--port": self.port,
            **self._options,
        }
        arguments = [str(part) for pair in options.items() for part in pair]
        # The CPU build dies at a prompt's log-probabilities if its LoRA includes lm_head.
        arguments += ["--lora-target-modules", *LAYERS]
        module = "vllm.entrypoints.openai.api_server"
        environment = {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            **self._environment,
        }
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [self._python, "-m", module, *arguments, "--enable-lora", "--enforce-eager"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_healthy():
            assert self.process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.5)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health").is_success
        except httpx.TransportError:
            return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def engine(self, name: str) -> VllmServer:
        return VllmServer(name, HttpUpstream(self.url))
