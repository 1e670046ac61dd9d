"""On CUDA, a training uses the machine's precision, locks its GPU and splits batches."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.models import base, device
from components.train import fit
from components.train.recipe import Sft
from tests.components.train.test_fit import losses_into
from tests.components.train.test_process_group import ASKED, launched, losses_of, recipe
from tests.support import training_rows

pytestmark = pytest.mark.gpu

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return training_rows.snapshot(tmp_path, [(asked, "Yes.") for asked in ASKED])


def test_the_loss_falls_and_the_adapter_reloads(model: Path, snapshot: Path, tmp_path: Path):
    from peft import PeftModel

    losses: dict[int, float] = {}
    long = recipe(Sft(), num_train_epochs=20)
    fit.fit(snapshot, model, tmp_path / "adapter", long, report=losses_into(losses))
    assert losses[max(losses)] < losses[1] / 2
    bare, _ = base.load(model, "nf4", for_training=False)
    assert bare.dtype == HALVES[device.best_computing().half]
    ids = torch.tensor([[5, 6, 7]], device=bare.device)
    with torch.no_grad():
        before = bare(input_ids=ids).logits
        after = PeftModel.from_pretrained(bare, str(tmp_path / "adapter"))(input_ids=ids).logits
    assert not torch.equal(before, after)


def test_two_trainings_take_turns_on_one_gpu(
    model: Path, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLYWHEEL_HOME", str(tmp_path / "home"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible[0])
    long = recipe(Sft(), num_train_epochs=2000)
    first = launched(snapshot, model, tmp_path / "first", long, processes=1)
    assert first.stdout is not None
    assert '"stage": "train"' in first.stdout.readline()
    second = launched(snapshot, model, tmp_path / "second", recipe(Sft()), processes=1)
    assert second.stdout is not None
    assert f"waiting for GPU 0, held by pid {first.pid}" in second.stdout.readline()
    first.kill()
    first.wait()
    assert '"stage": "train"' in second.stdout.readline()
    assert second.wait() == 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="wants two GPUs")
def test_two_gpus_train_as_one_does(model: Path, snapshot: Path, tmp_path: Path):
    losses: list[dict[int, float]] = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        process: subprocess.Popen[str] = launched(
            snapshot, model, folder, recipe(Sft()), processes=processes
        )
        output, _ = process.communicate()
        assert process.returncode == 0, folder.with_suffix(".log").read_text()
        losses.append(losses_of(output))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert load_file(tmp_path / "2" / "adapter_model.safetensors")
