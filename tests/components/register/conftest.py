"""A real MLflow store for the test run, and a real PEFT adapter."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.extensions.machines.lake_warehouse import Lake
from flows.settings import Settings
from tests.components.models.conftest import make, snapshot, tiny_base
from tests.support import forking, mlflow_stores, tiny, warehouses

__all__ = ["make", "snapshot", "tiny_base"]


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow_stores.create(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def store(store_folder: Path) -> Iterator[None]:
    """Let MLflow keep its database and its artifacts in a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store_folder}/mlflow.db")
        forking.ready()
        patch.chdir(store_folder)
        yield


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="session")
def adapter(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes nothing yet."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("adapters") / "a1"
    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    bare = AutoModelForCausalLM.from_pretrained(base_model)
    get_peft_model(bare, config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def trained(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter with weights that change the answers."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("trained") / "a2"
    shutil.copytree(adapter, folder)
    weights = folder / "adapter_model.safetensors"
    torch.manual_seed(0)
    moved = {name: torch.randn_like(tensor) for name, tensor in load_file(weights).items()}
    save_file(moved, weights, metadata={"format": "pt"})
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    place = warehouses.location(tmp_path / "home" / "lake")
    monkeypatch.setenv("FLYWHEEL_WAREHOUSE", place.url if isinstance(place, Lake) else "")
    home = Settings(
        tmp_path / "home", 4200, 5000, shared_warehouse=place if isinstance(place, Lake) else None
    )
    if home.shared_warehouse is None:
        warehouses.create(home.warehouse)
    return home
