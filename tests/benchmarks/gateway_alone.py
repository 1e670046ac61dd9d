"""A gateway with one route: ``python -m tests.benchmarks.gateway_alone HOME BASE ENGINE_URL PORT``.

Its version is not proved and never changes, so that only the path of a request is measured.
"""

import sys
from pathlib import Path

import uvloop

from components.chat import chat_templates
from components.serve import gateway_process
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.vllm_server import VllmServer
from components.serve.routes import Current, Route, Routes, Served
from components.serve.settings import ServeSettings
from tests.benchmarks.fast_engine import MODEL

NOW = "2026-11-27T12:00:00+00:00"


def served(base: Path) -> Served:
    return Served(
        workload="tool-calls",
        version="1",
        adapter="0123456789abcdef",
        sha256="0" * 64,
        model=MODEL,
        base=str(base),
        template_hash=chat_templates.template_hash(base),
        form="written",
        max_new_tokens=64,
        precision="fp32",
        constrained=True,
        proved_at=NOW,
        since=NOW,
        replicas=("fast",),
    )


async def main(home: Path, base: Path, url: str, port: int) -> None:
    upstream = HttpUpstream(url)
    engines = {"fast": VllmServer("fast", upstream, base="base")}
    current = Current(Routes({"tool-calls": Route(1, served(base))}))
    app = gateway_process.create(home, ServeSettings(), current, engines)
    await gateway_process.run(app, host="127.0.0.1", port=port, ready=lambda _: None)
    await upstream.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
