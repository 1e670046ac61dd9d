"""Processes that train together give the result of one, stop together, and write each file once."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.schema import Progress
from components.store import manifest
from components.train import checkpoints, fit
from components.train.micro_batches import Batch, BatchLayout, collate
from components.train.recipe import Kto, Objective, Recipe, Sft
from components.train.training_examples import Tokens, TrainingExample
from tests.components.train.test_fit import losses_into, wait_until
from tests.support import judged_rows, logs, training_rows
from tests.support.train_together import keeper

ASKED = [f"Number {number * 'x'}?" for number in range(15)]


def recipe(objective: Objective, **knobs: object) -> Recipe:
    """Return a recipe whose last batch has one row, so none is left for a second process."""
    steps = {"per_device_train_batch_size": 7, "num_train_epochs": 2, "save_steps": 2, **knobs}
    return Recipe.model_validate({"objective": objective, "r": 4, "learning_rate": 1e-2, **steps})


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Write a snapshot whose files a job can check before it trains."""
    manifest.write(judge(tmp_path), kind="snapshot", now=logs.NOW, body={})
    return tmp_path


def judge(folder: Path) -> Path:
    """Write a snapshot of answers and of their labels."""
    answers = ["Yes." if number % 2 else "No, not at all." for number in range(len(ASKED))]
    training_rows.snapshot(folder, list(zip(ASKED, answers, strict=True)))
    labelled = zip(ASKED, answers, (number % 3 > 0 for number in range(len(ASKED))), strict=True)
    return judged_rows.labels(folder, list(labelled))


EXAMPLES = [
    asdict(
        TrainingExample([Tokens([number % 4, 9, *range(20, 20 + number)], 2, 1.0)], f"row {number}")
    )
    for number in range(1, 6)
]


def learned(batch: Batch) -> list[list[int]]:
    return [share["labels"].tolist() for share in batch["micro_batches"]]


def test_each_example_of_a_batch_is_learned_by_one_process() -> None:
    parts = [collate(EXAMPLES, BatchLayout(process=process, processes=2)) for process in (0, 1)]
    together = sorted(label for part in parts for share in learned(part) for label in share)
    assert all(learned(part) for part in parts)
    assert together == sorted(label for share in learned(collate(EXAMPLES)) for label in share)


def test_the_kl_pairs_are_the_same_in_every_process() -> None:
    shapes = [BatchLayout(kl_pairs=True, process=process, processes=2) for process in (0, 1)]
    first, second = (collate(EXAMPLES, shape)["kl_pairs"] for shape in shapes)
    assert [share["labels"].tolist() for share in first] == [s["labels"].tolist() for s in second]


def test_a_process_without_examples_has_nothing_to_learn() -> None:
    parts = [
        collate(EXAMPLES[:2], BatchLayout(process=process, processes=3)) for process in range(3)
    ]
    assert [bool(learned(part)) for part in parts] == [True, True, False]


def specified(snapshot: Path, model: Path, folder: Path, recipe: Recipe) -> Path:
    """Write the specification of a training."""
    fields = {"snapshot": str(snapshot), "base": str(model), "folder": str(folder)}
    fields |= {"warm_start": None}
    spec = folder.with_suffix(".json")
    spec.write_text(json.dumps({**fields, "recipe": recipe.model_dump(mode="json")}))
    return spec


def environment(processes: int) -> dict[str, str]:
    """Return the environment of this many training processes with one thread each."""
    path = os.pathsep.join(filter(None, sys.path))
    several = {"FLYWHEEL_PROCESSES": str(processes), "OMP_NUM_THREADS": "1"}
    return os.environ | several | {"PYTHONPATH": path}


OBJECTIVES: dict[str, Objective] = {"sft": Sft(), "kto": Kto(beta=0.5)}


@pytest.fixture(scope="module")
def together(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train each objective in two processes; what came of it is in a folder of its name."""
    folder = judge(tmp_path_factory.mktemp("together"))
    train_together(
        folder, model, {name: recipe(objective) for name, objective in OBJECTIVES.items()}
    )
    return folder


def train_together(snapshot: Path, model: Path, recipes: dict[str, Recipe]) -> None:
    """Train by each recipe in two processes; what came of it is in a folder of its name."""
    specs = [specified(snapshot, model, snapshot / n, config) for n, config in recipes.items()]
    command = [sys.executable, "-m", "tests.support.train_together", *map(str, specs)]
    subprocess.run(command, env=environment(2), check=True)


def read_results(together: Path, name: str) -> list[dict[str, Any]]:
    """Return each process's losses and bytes."""
    return [json.loads((together / f"{name}.{rank}").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_train_as_one_does(
    model: Path, together: Path, tmp_path: Path, name: str
) -> None:
    require_same(model, together, name, recipe(OBJECTIVES[name]), tmp_path / "one")


def require_same(model: Path, together: Path, name: str, config: Recipe, folder: Path) -> None:
    """Require that one process learns into a folder what two have learned together."""
    alone: dict[int, float] = {}
    fit.fit(together, model, folder, config, report=keeper(alone))
    first, second = (result["losses"] for result in read_results(together, name))
    assert {int(step): loss for step, loss in first.items()} == pytest.approx(
        alone, rel=0.02, abs=0.015
    )
    assert first["1"] == pytest.approx(alone[1], rel=1e-4)
    assert second == {}, "one of them reports"
    names = sorted(path.name for path in (together / name).iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
    single, pooled = (moved(each) for each in (folder, together / name))
    assert (pooled - single).norm() < 0.1 * single.norm(), (
        "bf16 rounds two parts otherwise than one whole"
    )


def moved(adapter: Path) -> torch.Tensor:
    """Return the adapter's weights that start at zero, so that their values were learned."""
    weights = load_file(adapter / "adapter_model.safetensors")
    return torch.cat([weights[name].flatten() for name in sorted(weights) if "lora_B" in name])


def launched(
    snapshot: Path, model: Path, folder: Path, recipe: Recipe, processes: int = 2
) -> subprocess.Popen[str]:
    """Start processes that train together; their progress comes on standard output."""
    spec = specified(snapshot, model, folder, recipe)
    return subprocess.Popen(
        [sys.executable, "-m", "flows.jobs.launch", "train", str(spec)],
        env=environment(processes),
        stdout=subprocess.PIPE,
        stderr=folder.with_suffix(".log").open("w"),
        text=True,
        start_new_session=True,
    )


def losses_of(output: str) -> dict[int, float]:
    steps = [Progress(**json.loads(line)) for line in output.splitlines() if line.startswith("{")]
    assert len(steps) == len({step.done for step in steps}), "one of the processes speaks"
    return {step.done: step.figures["loss"] for step in steps}


WAYS = pytest.mark.parametrize("fsdp", [None, "full_shard"], ids=["whole bases", "a split base"])


@pytest.mark.slow
@WAYS
def test_a_launched_training_writes_the_adapter_and_a_prompt_example(
    model: Path, snapshot: Path, tmp_path: Path, fsdp: str | None
) -> None:
    folder = tmp_path / "adapter"
    process = launched(snapshot, model, folder, recipe(Sft(), fsdp=fsdp))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, folder.with_suffix(".log").read_text()
    assert list(losses_of(output)) == [1, 2, 3, 4, 5, 6]
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors", "prompt_example.json"]


@pytest.mark.slow
@WAYS
def test_sigterm_stops_all_processes_at_one_checkpoint_that_one_process_resumes(
    model: Path, snapshot: Path, tmp_path: Path, fsdp: str | None
) -> None:
    long, folder = recipe(Sft(), num_train_epochs=2000, fsdp=fsdp), tmp_path / "adapter"
    process = launched(snapshot, model, folder, long)
    saved = folder / "checkpoints"
    wait_until(lambda: (saved / "checkpoint-4" / checkpoints.SEAL_FILE).exists(), seconds=240)
    asked = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - asked < 20
    assert process.returncode != 0
    last = checkpoints.newest_checkpoint(saved, long)
    assert last
    assert last.name == f"checkpoint-{max(losses_of(output))}", "the step at which both stopped"
    losses: dict[int, float] = {}
    done = max(losses_of(output))
    rest = recipe(Sft(), num_train_epochs=(done + 2) / 3)
    fit.fit(snapshot, model, folder, rest, report=losses_into(losses))
    assert min(losses) == done + 1
    assert (folder / "adapter_model.safetensors").exists()
