"""A gateway serves on without an engine that does not start, and starts it when it can."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components.serve.follower import following
from components.serve.routes import Current
from components.serve.serve_places import ServePlaces
from components.serve.settings import ServeSettings
from tests.support.fake_replicas import fake_replica, stage


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


def test_an_engine_that_does_not_start_ends_no_gateway_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    places, starts = ServePlaces(tmp_path), tmp_path / "starts"

    async def scenario(url: str) -> None:
        vllm = {"kind": "vllm", "base_name": "the-base", "replicas": [{"name": "a", "url": url}]}
        settings = ServeSettings.model_validate({"engine": vllm})
        async with following(settings, places, None, Current()) as follower:
            await follower.swap.follow(stage(places.folder, "support", 1))
        # Its base is gone, or too large for the memory that is left.
        failing = tmp_path / "python"
        failing.write_text(f"#!/bin/sh\necho >> {starts}\nexit 1\n")
        failing.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(failing))
        current = Current()
        async with following(ServeSettings(), places, None, current):
            assert current.routes["support"].champion.replicas == ()
            await until(lambda: len(starts.read_text()) > 1)

    with fake_replica() as replica:
        asyncio.run(scenario(replica.url))
