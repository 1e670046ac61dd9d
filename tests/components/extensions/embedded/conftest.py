"""A tiny base, ten adapters of many kinds on it, and an engine in this process."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from components.extensions.embedded.shared_base import SharedBase
from tests.support import lora_adapters, tiny
from tests.support.batched_answers import Engine


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def adapters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        name: lora_adapters.build(tiny_base, root / name, seed, **settings)
        for seed, (name, settings) in enumerate(lora_adapters.KINDS.items())
    }


@pytest.fixture(scope="session")
def shared_base(tiny_base: Path) -> SharedBase:
    return SharedBase(tiny_base, "fp32", slots=4)


@pytest.fixture
def engine(shared_base: SharedBase, adapters: dict[str, Path]) -> Callable[..., Engine]:
    return partial(Engine, shared_base, adapters)
