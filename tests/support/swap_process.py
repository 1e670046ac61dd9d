"""A process that swaps, to be killed: `python -m tests.support.swap_process SERVE URL -- MODEL...`.

It follows the staged versions, one after the other, and waits. With ``--canary`` first, the last
version is a canary of the one before.
"""

import asyncio
import sys
from pathlib import Path

from components.serve import staged_version
from components.serve.engines.http_upstream import HttpUpstream
from components.serve.engines.serving_engine import ServingEngine
from components.serve.engines.vllm_server import VllmServer
from components.serve.routes import Current
from components.serve.settings import SwapSettings, SwapTimes
from components.serve.swap import AdapterSwap


async def main(
    serve: Path, urls: list[str], models: list[str], *, has_canary: bool = False
) -> None:
    engines: dict[str, ServingEngine] = {
        f"vllm-{number}": VllmServer(f"vllm-{number}", HttpUpstream(url), base="the-base")
        for number, url in enumerate(urls, start=1)
    }
    swap = AdapterSwap(serve, engines, Current(), SwapSettings(), times=SwapTimes(drain=1))
    await swap.start()
    adapters = serve / staged_version.ADAPTERS
    canary = [models.pop()] if has_canary else []
    for model in models:
        await swap.follow(staged_version.read_staged(adapters, model))
    for model in canary:
        champion = staged_version.read_staged(adapters, models[-1]).version
        staged = staged_version.read_staged(adapters, model)
        await swap.begin_canary(staged, champion, "the order")
    await asyncio.sleep(3600)


if __name__ == "__main__":
    has_canary = sys.argv[1] == "--canary"
    arguments = sys.argv[1 + has_canary :]
    split = arguments.index("--")
    asyncio.run(
        main(Path(arguments[0]), arguments[1:split], arguments[split + 1 :], has_canary=has_canary)
    )
