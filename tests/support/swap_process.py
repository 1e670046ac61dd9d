"""A process that swaps, to be killed: `python -m tests.support.swap_process SERVE URL -- MODEL...`.

It follows the staged versions, one after the other, and waits.
"""

import asyncio
import sys
from pathlib import Path

from components.serve import staged_version
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.serving_engine import ServingEngine
from components.serve.engines.vllm_server import VllmServer
from components.serve.routes import Current
from components.serve.settings import SwapSettings
from components.serve.swap import AdapterSwap


async def main(serve: Path, urls: list[str], models: list[str]) -> None:
    engines: dict[str, ServingEngine] = {
        f"vllm-{number}": VllmServer(f"vllm-{number}", HttpUpstream(url), base="the-base")
        for number, url in enumerate(urls, start=1)
    }
    swap = AdapterSwap(serve, engines, Current(), SwapSettings(drain_seconds=1))
    await swap.start()
    adapters = serve / staged_version.ADAPTERS
    for model in models:
        await swap.follow(staged_version.read_staged(adapters, model))
    await asyncio.sleep(3600)


if __name__ == "__main__":
    split = sys.argv.index("--")
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:split], sys.argv[split + 1 :]))
